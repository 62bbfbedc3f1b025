/* What a loader has to get right, in one object: maps of maps, globals of every kind, static and global subprograms,
 * function pointers, externs, CO-RE. Not meant to run. Compiled for both byte orders.
 */
#include "bpf.h"

#define __array(name, value) typeof(value) *name[]
#define __weak __attribute__((weak))
#define __hidden __attribute__((visibility("hidden")))
#define __kconfig __attribute__((section(".kconfig")))
#define __ksym __attribute__((section(".ksyms")))
#define __core __attribute__((preserve_access_index))

#define BPF_MAP_TYPE_PROG_ARRAY 3
#define BPF_MAP_TYPE_ARRAY_OF_MAPS 12
#define BPF_MAP_TYPE_HASH_OF_MAPS 13
#define BPF_F_NO_PREALLOC 1
#define LIBBPF_PIN_BY_NAME 1

enum libbpf_tristate { TRI_NO = 0, TRI_YES = 1, TRI_MODULE = 2 };

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} first_inner SEC(".maps"), second_inner SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps") = { .values = { [0] = &first_inner, [2] = &second_inner } };

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 8);
	__uint(key_size, 4);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_HASH);
		__uint(max_entries, 16);
		__uint(map_flags, BPF_F_NO_PREALLOC);
		__type(key, __u32);
		__type(value, __u32);
	});
} anonymous_outer SEC(".maps");

int tail(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(void *));
} jumps SEC(".maps") = { .values = { [1] = (void *)&tail } };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct { __u8 bytes[6]; });
	__type(value, struct { __u64 packets; __u64 bytes; });
} pinned SEC(".maps");

int configured = 42;
static volatile int configured_inside = 43;
long zeroed;
static volatile char hidden_zeroes[24];
const volatile __u32 limit = 100;
__u64 apart SEC(".data.apart") = 7;
const __u16 table[4] SEC(".rodata.table") = { 1, 2, 3, 4 };
__hidden int hidden = 5;

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool CONFIG_BPF_JIT __kconfig;
extern enum libbpf_tristate CONFIG_XDP_SOCKETS __kconfig __weak;
extern __u32 CONFIG_HZ __kconfig;
extern char CONFIG_CC_VERSION_TEXT[8] __kconfig __weak;
extern const int bpf_prog_active __ksym;
extern const void bpf_missing __ksym __weak;
extern int bpf_kernel_function(int x) __ksym;

struct task_struct {
	int pid;
	struct {
		char comm[16];
		struct task_struct *parent;
	};
	__u32 flags : 3, kind : 5;
} __core;

struct task_struct___old {
	long state;
} __core;

enum state { RUNNING = 1, STOPPED = 2 };

static __noinline int leaf(int x)
{
	return x * 3 + configured_inside;
}

__noinline int shared(int x)
{
	return leaf(x + 1) + configured;
}

__hidden __noinline int concealed(int x)
{
	return shared(x) - leaf(x);
}

static int each(void *map, const void *key, void *value, void *context)
{
	return leaf(*(int *)value) < 0;
}

static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *context, __u64 flags) = (void *)164;
static long (*const bpf_tail_call)(void *context, void *map, __u32 index) = (void *)12;

SEC("tc") int classify(struct __sk_buff *skb)
{
	__u32 key = skb->len & 3;
	void *inner = bpf_map_lookup_elem(&outer, &key);
	__u64 *value = inner ? bpf_map_lookup_elem(inner, &key) : 0;

	bpf_for_each_map_elem(&pinned, each, 0, 0);
	if (value)
		zeroed += *value + table[key] + apart;
	hidden_zeroes[key] = hidden;
	bpf_tail_call(skb, &jumps, 1);
	return concealed(key) > limit;
}

SEC("tc") int tail(struct __sk_buff *skb)
{
	return shared(skb->len);
}

SEC("?fentry.s/do_unlinkat") int externs(unsigned long long *context)
{
	__u64 sum = LINUX_KERNEL_VERSION + CONFIG_BPF_JIT + CONFIG_XDP_SOCKETS + CONFIG_HZ + CONFIG_CC_VERSION_TEXT[1];

	sum += bpf_prog_active + (&bpf_missing != 0);
	return bpf_kernel_function(sum);
}

SEC("kprobe/wake_up_process") int core(struct task_struct *task)
{
	struct task_struct___old *old = (void *)task;
	int seen = task->pid + task->parent->comm[3] + task->kind;

	if (__builtin_preserve_field_info(old->state, 2))
		seen += old->state;
	seen += __builtin_preserve_type_info(*(struct task_struct *)0, 1);
	seen += __builtin_preserve_enum_value(*(typeof(enum state) *)STOPPED, 1);
	return seen + __builtin_preserve_field_info(task->kind, 0) + __builtin_preserve_field_info(task->flags, 4);
}

char _license[] SEC("license") = "Dual MIT/GPL";
__u32 _version SEC("version") = 0x60102;
