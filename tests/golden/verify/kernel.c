/* Pointers into the kernel: how far they are to be relied on.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct sock {
	int sk_mark;
};
struct net_device {
	int ifindex;
};
struct sk_buff {
	struct sk_buff *next;
	struct net_device *dev;
	unsigned int len;
};
struct cpumask {
	int bits;
};
struct task_struct {
	int pid;
	struct cpumask *cpus_ptr;
	struct task_struct *last_wakee;
};
struct tcp_sock {
	int snd_cwnd;
};
#pragma clang attribute pop

extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

struct {
	__uint(type, 24); /* BPF_MAP_TYPE_SK_STORAGE */
	__uint(map_flags, 1);
	__type(key, int);
	__type(value, long);
} storage SEC(".maps");

static void *(*const bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;

SEC("tp_btf/kfree_skb") int the_receiver_may_be_null(__u64 *arguments)
{
	struct sock *receiver = (void *)arguments[3];
	return receiver ? receiver->sk_mark : 0;
}

SEC("tp_btf/kfree_skb") REFUSED(null-dereference) int the_receiver_was_not_compared(__u64 *arguments)
{
	struct sock *receiver = (void *)arguments[3];
	return receiver->sk_mark;
}

SEC("tp_btf/kfree_skb") int the_packet_is_never_null(__u64 *arguments)
{
	struct sk_buff *skb = (void *)arguments[0];
	return skb->len;
}

SEC("tp_btf/tcp_probe") int storage_of_a_socket(__u64 *arguments)
{
	bpf_sk_storage_get(&storage, (void *)arguments[0], 0, 0);
	return 0;
}

SEC("tp_btf/tcp_probe") REFUSED(untrusted-pointer) int storage_of_what_a_union_holds(__u64 *arguments)
{
	struct sk_buff *skb = (void *)arguments[1];
	bpf_sk_storage_get(&storage, skb->next, 0, 0);
	return 0;
}

SEC("tp_btf/task_newtask") int reference_to_an_argument(__u64 *arguments)
{
	struct task_struct *task = bpf_task_acquire((void *)arguments[0]);
	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("tp_btf/task_newtask") REFUSED(untrusted-pointer) int reference_to_what_a_member_points_to(__u64 *arguments)
{
	struct task_struct *task = (void *)arguments[0];
	task = bpf_task_acquire(task->last_wakee);
	if (task)
		bpf_task_release(task);
	return 0;
}

SEC("tp_btf/task_newtask") int one_byte_of_a_member(__u64 *arguments)
{
	struct task_struct *task = (void *)arguments[0];
	return *(volatile char *)&task->pid;
}

SEC("tp_btf/task_newtask") REFUSED(kernel-object) int a_byte_at_an_offset_that_varies(__u64 *arguments)
{
	struct task_struct *task = (void *)arguments[0];
	return ((volatile char *)&task->pid)[arguments[1] & 3];
}

SEC("struct_ops/ssthresh") unsigned int ssthresh(__u64 *arguments)
{
	return ((struct tcp_sock *)arguments[0])->snd_cwnd;
}

SEC("struct_ops/undo_cwnd") unsigned int undo_cwnd(__u64 *arguments)
{
	return ((struct tcp_sock *)arguments[0])->snd_cwnd;
}

SEC("struct_ops/cong_avoid") void cong_avoid(__u64 *arguments)
{
}

SEC("struct_ops/get_info") REFUSED(unsupported-operation) unsigned long get_info(__u64 *arguments)
{
	return 0;
}

struct tcp_congestion_ops {
	unsigned int (*ssthresh)(__u64 *arguments);
	void (*cong_avoid)(__u64 *arguments);
	unsigned int (*undo_cwnd)(__u64 *arguments);
	unsigned long (*get_info)(__u64 *arguments);
	char name[16];
};

SEC(".struct_ops") struct tcp_congestion_ops congestion = {
	.ssthresh = ssthresh,
	.cong_avoid = cong_avoid,
	.undo_cwnd = undo_cwnd,
	.get_info = get_info,
	.name = "bpfc_cases",
};

char _license[] SEC("license") = "GPL";
