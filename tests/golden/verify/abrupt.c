/* Ways out of a function that are no exit: exceptions, tail calls, legacy packet loads past the end of the packet.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

extern void bpf_throw(__u64 cookie) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct { __u8 bytes[16]; });
} values SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

static __noinline int throws_if(__u32 n)
{
	if (n == 3)
		bpf_throw(n);
	return n & 15;
}

__noinline int throws_in_global(__u32 n)
{
	if (n == 3)
		bpf_throw(n);
	return n & 15;
}

static __noinline long throws_back(__u32 n, void *context)
{
	bpf_throw(n);
	return 0;
}

SEC("tc") int exception(struct __sk_buff *skb)
{
	if (skb->len == 3)
		bpf_throw(0);
	return 0;
}

SEC("tc") int what_follows_an_exception_is_never_reached(struct __sk_buff *skb)
{
	bpf_throw(0);
	return *(volatile int *)0;
}

SEC("tc") int exception_in_a_function(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u8 *value = bpf_map_lookup_elem(&values, &key);
	return value ? value[throws_if(skb->len)] : 0;
}

SEC("tc") int exception_in_a_global_function(struct __sk_buff *skb)
{
	return throws_in_global(skb->len);
}

SEC("cgroup/sock_create") int exception_with_a_result(void *sock)
{
	bpf_throw(1);
	return 1;
}

SEC("cgroup/sock_create") REFUSED(return-range) int exception_with_a_result_that_is_not_allowed(void *sock)
{
	bpf_throw(7);
	return 1;
}

SEC("tc") REFUSED(reference-leak) int exception_with_a_reference(struct __sk_buff *skb)
{
	__u64 *record = bpf_ringbuf_reserve(&ring, 8, 0);
	if (!record)
		return 0;
	if (skb->len == 3)
		bpf_throw(0);
	bpf_ringbuf_discard(record, 0);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int exception_below_a_reference(struct __sk_buff *skb)
{
	__u64 *record = bpf_ringbuf_reserve(&ring, 8, 0);
	if (!record)
		return 0;
	*record = throws_if(skb->len);
	bpf_ringbuf_discard(record, 0);
	return 0;
}

SEC("tc") LINUX(accepts) REFUSED(reference-leak) int exception_in_a_global_function_below_a_reference(struct __sk_buff *skb)
{
	__u64 *record = bpf_ringbuf_reserve(&ring, 8, 0);
	if (!record)
		return 0;
	*record = throws_in_global(skb->len);
	bpf_ringbuf_discard(record, 0);
	return 0;
}

SEC("tc") REFUSED(section-open) int exception_in_an_rcu_section(struct __sk_buff *skb)
{
	bpf_rcu_read_lock();
	if (skb->len == 3)
		bpf_throw(0);
	bpf_rcu_read_unlock();
	return 0;
}

SEC("tc") REFUSED(bad-exception) int exception_in_a_callback(struct __sk_buff *skb)
{
	bpf_loop(5, throws_back, 0, 0);
	return 0;
}

static __noinline int loads(struct __sk_buff *skb)
{
	return 1 + (load_byte(skb, 14) & 7);
}

SEC("tc") int legacy_load_in_a_function(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u8 *value = bpf_map_lookup_elem(&values, &key);
	return value ? value[loads(skb)] : 0;
}

SEC("tc") REFUSED(map-value-out-of-bounds) int legacy_load_in_a_function_may_return_zero(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u8 *value = bpf_map_lookup_elem(&values, &key);
	return value ? (value - 1)[loads(skb)] : 0;
}

static __noinline void loads_for_nothing(struct __sk_buff *skb)
{
	__u32 key = load_byte(skb, 14);
	bpf_map_lookup_elem(&values, &key);
}

SEC("tc") REFUSED(bad-exception) int legacy_load_in_a_function_without_result(struct __sk_buff *skb)
{
	loads_for_nothing(skb);
	return 0;
}

static __noinline int calls_tail(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &programs, 1);
	return skb->len & 7;
}

SEC("tc") int tail_call_in_a_function(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u8 *value = bpf_map_lookup_elem(&values, &key);
	long n = calls_tail(skb);
	asm volatile("%0 &= 7" : "+r"(n)); /* which the compiler, knowing the function, would leave out */
	return value ? value[n] : 0;
}

SEC("tc") int tail_call_in_a_function_below_a_reference(struct __sk_buff *skb)
{
	void *record = bpf_ringbuf_reserve(&ring, 8, 0);
	if (!record)
		return 0;
	calls_tail(skb);
	bpf_ringbuf_discard(record, 0);
	return 0;
}

static __noinline int jumps_with_a_reference(struct __sk_buff *skb)
{
	void *record = bpf_ringbuf_reserve(&ring, 8, 0);
	if (!record)
		return 0;
	bpf_tail_call(skb, &programs, 0);
	bpf_ringbuf_discard(record, 0);
	return 0;
}

SEC("tc") REFUSED(reference-leak) int tail_call_in_a_function_with_a_reference(struct __sk_buff *skb)
{
	return jumps_with_a_reference(skb);
}

SEC("tc") REFUSED(map-value-out-of-bounds) int tail_call_in_a_function_may_return_anything(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u8 *value = bpf_map_lookup_elem(&values, &key);
	return value ? value[calls_tail(skb)] : 0;
}

__noinline void returns_nothing(struct __sk_buff *skb)
{
	skb->mark = 1;
}

SEC("tc") REFUSED(global-function) int global_function_without_result(struct __sk_buff *skb)
{
	returns_nothing(skb);
	return 0;
}

char _license[] SEC("license") = "GPL";
