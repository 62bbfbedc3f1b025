/* Global functions: verified by themselves for whatever their types allow, and called as their types say.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

struct task_struct {
	int pid;
	struct task_struct *last_wakee;
} __attribute__((preserve_access_index));
struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));

extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *dynptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *dynptr, __u32 offset, void *buffer, __u32 size) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *dynptr) __ksym;
static long (*const bpf_dynptr_write)(const struct bpf_dynptr *to, __u32 at, void *from, __u32 size, __u64 flags) = (void *)202;

#define tag(name) __attribute__((btf_decl_tag("arg:" #name)))

struct pair {
	__u64 first;
	__u32 second;
	__u8 bytes[4];
};

__noinline int second(struct pair *pair)
{
	return pair ? pair->second : 0;
}

__noinline int second_of_something(struct pair *pair tag(nonnull))
{
	return pair->second;
}

__noinline int second_unchecked(struct pair *pair)
{
	return pair->second;
}

__noinline int past_the_pair(struct pair *pair)
{
	return pair ? ((volatile __u8 *)pair)[16] : 0;
}

__noinline int byte_of(struct pair *pair, __u32 index)
{
	return pair && index < 4 ? pair->bytes[index] : 0;
}

__noinline int byte_of_signed(struct pair *pair, int index)
{
	return pair && index < 4 ? pair->bytes[index] : 0;
}

SEC("tc") int memory(struct __sk_buff *skb)
{
	struct pair pair = {};
	return second(&pair);
}

SEC("tc") int memory_that_is_null(struct __sk_buff *skb)
{
	return second(0);
}

SEC("tc") REFUSED(null-dereference) int memory_that_the_function_did_not_check(struct __sk_buff *skb)
{
	struct pair pair = {};
	return second_unchecked(&pair);
}

SEC("tc") int memory_that_is_never_null(struct __sk_buff *skb)
{
	struct pair pair = {};
	return second_of_something(&pair);
}

SEC("tc") REFUSED(bad-argument) LINUX(accepts) int null_where_it_may_not_be(struct __sk_buff *skb)
{
	struct pair *nothing = 0;
	asm volatile("" : "+r"(nothing));
	return second_of_something(nothing);
}

SEC("tc") REFUSED(out-of-bounds) int past_the_memory(struct __sk_buff *skb)
{
	struct pair pair = {};
	return past_the_pair(&pair);
}

SEC("tc") int an_index_below(struct __sk_buff *skb)
{
	struct pair pair = {};
	return byte_of(&pair, skb->len);
}

SEC("tc") REFUSED(out-of-bounds) int an_index_that_may_be_negative(struct __sk_buff *skb)
{
	struct pair pair = {};
	return byte_of_signed(&pair, skb->len);
}

SEC("tc") int memory_of_the_packet(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	if (data + sizeof(struct pair) > (__u8 *)(long)skb->data_end)
		return 0;
	return second((void *)data);
}

SEC("tc") REFUSED(packet-out-of-bounds) int memory_past_the_packet(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	if (data + sizeof(struct pair) - 1 > (__u8 *)(long)skb->data_end)
		return 0;
	return second((void *)data);
}

__noinline int length(const struct bpf_dynptr *dynptr)
{
	return bpf_dynptr_size(dynptr);
}

__noinline int write_through(const struct bpf_dynptr *dynptr)
{
	__u64 word = 1;
	return bpf_dynptr_write(dynptr, 0, &word, sizeof(word), 0);
}

SEC("tc") int a_dynptr(struct __sk_buff *skb)
{
	struct bpf_dynptr dynptr;
	bpf_dynptr_from_skb(skb, 0, &dynptr);
	return length(&dynptr);
}

SEC("tc") REFUSED(bad-argument) int a_dynptr_that_was_never_made(struct __sk_buff *skb)
{
	struct bpf_dynptr dynptr = {};
	return length(&dynptr);
}

SEC("tc") int a_slice_before_the_packet_is_written(struct __sk_buff *skb)
{
	struct bpf_dynptr dynptr;
	__u8 buffer[8] = {}, *slice, byte;
	bpf_dynptr_from_skb(skb, 0, &dynptr);
	slice = bpf_dynptr_slice(&dynptr, 0, buffer, sizeof(buffer));
	if (!slice)
		return 0;
	byte = *(volatile __u8 *)slice;
	write_through(&dynptr);
	return byte;
}

SEC("tc") REFUSED(not-a-pointer) LINUX(accepts) int a_slice_after_the_packet_was_written(struct __sk_buff *skb)
{
	struct bpf_dynptr dynptr;
	__u8 buffer[8] = {}, *slice;
	bpf_dynptr_from_skb(skb, 0, &dynptr);
	slice = bpf_dynptr_slice(&dynptr, 0, buffer, sizeof(buffer));
	if (!slice)
		return 0;
	write_through(&dynptr);
	return *(volatile __u8 *)slice;
}

__noinline int number_of(struct task_struct *task tag(trusted))
{
	task = bpf_task_acquire(task);
	if (!task)
		return 0;
	int pid = task->pid;
	bpf_task_release(task);
	return pid;
}

__noinline int number_of_any(struct task_struct *task tag(untrusted))
{
	return task->pid;
}

__noinline int reference_to_any(struct task_struct *task tag(untrusted))
{
	task = bpf_task_acquire(task);
	if (task)
		bpf_task_release(task);
	return 0;
}

__noinline int number_if_any(struct task_struct *task tag(trusted) tag(nullable))
{
	return task ? task->pid : 0;
}

__noinline int number_if_any_unchecked(struct task_struct *task tag(trusted) tag(nullable))
{
	return task->pid;
}

__noinline int gives_up(struct task_struct *task tag(trusted))
{
	bpf_task_release(task);
	return 0;
}

SEC("tp_btf/task_newtask") int an_object(void *context)
{
	return number_of(bpf_get_current_task_btf());
}

SEC("tp_btf/task_newtask") REFUSED(untrusted-pointer) LINUX(accepts) int an_object_that_may_be_gone(void *context)
{
	return number_of(bpf_get_current_task_btf()->last_wakee);
}

SEC("tp_btf/task_newtask") int an_object_that_may_be_gone_where_it_may(void *context)
{
	return number_of_any(bpf_get_current_task_btf()->last_wakee);
}

SEC("tp_btf/task_newtask") REFUSED(untrusted-pointer) int a_reference_to_what_may_be_gone(void *context)
{
	return reference_to_any(bpf_get_current_task_btf()->last_wakee);
}

SEC("tp_btf/task_newtask") int an_object_that_is_null(void *context)
{
	return number_if_any(0);
}

SEC("tp_btf/task_newtask") REFUSED(null-dereference) int an_object_that_may_be_null(void *context)
{
	return number_if_any_unchecked(0);
}

SEC("tp_btf/task_newtask") int an_object_that_is_held(void *context)
{
	struct task_struct *task = bpf_task_from_pid(1);
	if (!task)
		return 0;
	number_of(task);
	bpf_task_release(task);
	return 0;
}

SEC("tp_btf/task_newtask") REFUSED(bad-release) int an_object_given_up_by_the_function(void *context)
{
	struct task_struct *task = bpf_task_from_pid(1);
	if (!task)
		return 0;
	gives_up(task);
	bpf_task_release(task);
	return 0;
}

char _license[] SEC("license") = "GPL";
