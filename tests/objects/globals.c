/* Global variables in every kind of section: what design (d) of the issues promises about them.
 *
 * read      GD-07  copies of all variables into the map `copies`
 * count     GD-08  .bss and .data are memory shared with the host
 * guarded   GD-12  a helper that does not exist behind a read-only flag
 * open      GD-13  the same behind a flag that may change
 * loop      GD-14  a loop that only ends because of what .rodata holds
 * widths    GD-15  loads of every width and sign
 * indexed   GD-16  an index that nobody knows before the run
 * pointer   GD-20  a word that holds a function's address, once linked
 * store     GD-10  a store into .rodata
 */
#include "bpf.h"

struct pair {
	__u8 small;
	__u32 large;
	__u8 name[8];
};

#define MISSING ((long (*)(void))2000)

volatile __u64 initialized = 42;
volatile __u64 zeroed;
const volatile __u64 constant = 24;
static volatile struct pair pair_data = {7, 0x12345678, "static"};
static const volatile struct pair pair_rodata = {9, 0x9abcdef0, "read"};
static volatile struct pair pair_bss;
const volatile char text[] = "a string";

const volatile __u32 use_missing = 0;
volatile __u32 use_missing_data = 0;
const volatile __u32 numbers[] = {2, 3, 4, 5};
const volatile __s8 wide8 = -128;
const volatile __s16 wide16 = -32768;
const volatile __s32 wide32 = -2147483647 - 1;
const volatile __u64 wide64 = 0x8000000000000001;
const volatile __u8 table[16] = {0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121, 144, 169, 196, 225};

struct copies {
	__u64 initialized, zeroed, constant;
	struct pair data, rodata, bss;
	char text[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct copies);
} copies SEC(".maps");

SEC("socket") int read(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct copies *to = bpf_map_lookup_elem(&copies, &key);

	if (!to)
		return 1;
	to->initialized = initialized;
	to->zeroed = zeroed;
	to->constant = constant;
	to->data = pair_data;
	to->rodata = pair_rodata;
	to->bss = pair_bss;
	for (int i = 0; i < sizeof(text); i++)
		to->text[i] = text[i];
	return 0;
}

SEC("socket") int count(struct __sk_buff *skb)
{
	zeroed++;
	return initialized;
}

SEC("socket") int add(struct __sk_buff *skb)
{
	__sync_fetch_and_add((__u64 *)&zeroed, 1);
	return 0;
}

SEC("socket") int guarded(struct __sk_buff *skb)
{
	if (use_missing)
		return MISSING();
	return 3;
}

SEC("socket") int open(struct __sk_buff *skb)
{
	if (use_missing_data)
		return MISSING();
	return 3;
}

SEC("socket") int loop(struct __sk_buff *skb)
{
	const volatile __u32 *p = numbers;
	int sum = 0, turns = 0;

	while (*p < 5) {
		sum += *p++;
		turns++;
	}
	return turns << 8 | sum;
}

SEC("socket") int widths(struct __sk_buff *skb)
{
	__s64 sum = (__s64)wide8 + wide16 + wide32 + (__u8)wide8 + (__u16)wide16 + (__u32)wide32;

	return sum == -128 - 32768 - 2147483648ll + 128 + 32768 + 2147483648ll && wide64 == 0x8000000000000001;
}

SEC("socket") int indexed(struct __sk_buff *skb)
{
	__u32 index = skb->mark;

	return index < sizeof(table) ? table[index] : -1;
}

static __noinline int target(int x)
{
	return x + 1;
}

int (*const volatile where)(int) = target;

SEC("socket") int pointer(struct __sk_buff *skb)
{
	return where == 0 ? 1 : 2 + (target(skb->len) == 0);
}

SEC("?socket") int store(struct __sk_buff *skb)
{
	*(volatile __u64 *)&constant = 25;
	return 0;
}

char _license[] SEC("license") = "GPL";
