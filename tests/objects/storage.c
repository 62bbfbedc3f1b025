/* Maps that belong to something, and the ring that the host fills.
 *
 * task     counts runs in the storage of the running task (created at the first run), forgets it when packet[0] is 1
 * cgroup   counts runs in the cgroup's storage
 * drain    adds up the first bytes of the samples in the user ring; stops after a sample that starts with 0xff
 */
#include "bpf.h"

#define BPF_MAP_TYPE_CGROUP_STORAGE 19
#define BPF_MAP_TYPE_TASK_STORAGE 29
#define BPF_MAP_TYPE_USER_RINGBUF 31
#define BPF_F_NO_PREALLOC 1

struct task_struct;
struct bpf_dynptr;
struct bpf_cgroup_storage_key {
	__u64 cgroup;
	__u32 attach_type;
};

static void *(*const bpf_get_local_storage)(void *map, __u64 flags) = (void *)81;
static void *(*const bpf_task_storage_get)(void *map, struct task_struct *task, void *value, __u64 flags) = (void *)156;
static long (*const bpf_task_storage_delete)(void *map, struct task_struct *task) = (void *)157;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static long (*const bpf_dynptr_read)(void *to, __u32 size, const struct bpf_dynptr *from, __u32 offset, __u64 flags) = (void *)201;
static long (*const bpf_user_ringbuf_drain)(void *map, void *callback, void *context, __u64 flags) = (void *)209;

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} tasks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_STORAGE);
	__type(key, struct bpf_cgroup_storage_key);
	__type(value, __u64);
} cgroup_storage SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_USER_RINGBUF);
	__uint(max_entries, 4096);
} samples SEC(".maps");

SEC("tc") int task(struct __sk_buff *skb)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 start = 100, *count = bpf_task_storage_get(&tasks, task, &start, 1);

	if (!count)
		return -1;
	if (skb->mark == 1)
		return bpf_task_storage_delete(&tasks, task);
	return ++*count;
}

SEC("cgroup_skb/egress") int cgroup(struct __sk_buff *skb)
{
	__u64 *count = bpf_get_local_storage(&cgroup_storage, 0);

	return ++*count & 1;
}

static long take(struct bpf_dynptr *sample, __u64 *sum)
{
	__u8 first = 0;

	bpf_dynptr_read(&first, 1, sample, 0, 0);
	*sum += first;
	return first == 0xff;
}

SEC("tc") int drain(struct __sk_buff *skb)
{
	__u64 sum = 0;
	long samples_taken = bpf_user_ringbuf_drain(&samples, take, &sum, 0);

	return samples_taken < 0 ? samples_taken : samples_taken << 16 | (sum & 0xffff);
}

char _license[] SEC("license") = "GPL";
