/* Values with a lock, changed by programs under it and by BPF_F_LOCK, and values with a timer beside data. */
#include "bpf.h"

struct bpf_spin_lock {
	__u32 val;
};

struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

static long (*const bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*const bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;

struct locked {
	__u32 first;
	struct bpf_spin_lock lock;
	__u64 second;
	__u8 tail[5];
};

struct timed {
	__u64 before;
	struct bpf_timer timer;
	__u64 after;
};

#define MAP(name_, type_, value_) \
	struct { \
		__uint(type, type_); \
		__uint(max_entries, 4); \
		__type(key, __u32); \
		__type(value, value_); \
	} name_ SEC(".maps")

MAP(array, BPF_MAP_TYPE_ARRAY, struct locked);
MAP(hash, BPF_MAP_TYPE_HASH, struct locked);
MAP(timed_array, BPF_MAP_TYPE_ARRAY, struct timed);
MAP(timed_hash, BPF_MAP_TYPE_HASH, struct timed);

static __always_inline int update(void *map, struct __sk_buff *skb)
{
	struct locked value = {.first = skb->mark, .lock = {77}, .second = skb->mark + 1ull, .tail = {1, 2, 3, 4, 5}};
	__u32 key = 1;

	return bpf_map_update_elem(map, &key, &value, skb->priority);
}

SEC("tc") int in_array(struct __sk_buff *skb)
{
	return update(&array, skb);
}

SEC("tc") int in_hash(struct __sk_buff *skb)
{
	return update(&hash, skb);
}

/* Adds to both numbers under the lock; 1 when they had come apart. */
SEC("tc") int add(struct __sk_buff *skb)
{
	__u32 key = 1;
	struct locked *value = bpf_map_lookup_elem(&hash, &key);
	int apart;

	if (!value)
		return -1;
	bpf_spin_lock(&value->lock);
	apart = value->second != value->first + 1ull;
	value->first++;
	value->second++;
	bpf_spin_unlock(&value->lock);
	return apart;
}

char _license[] SEC("license") = "GPL";
