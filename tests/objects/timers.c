/* Timers in the values of an array and of a hash: a callback counts, and sets its timer again three times. */
#include "bpf.h"

struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

static long (*const bpf_timer_init)(struct bpf_timer *timer, void *map, __u64 flags) = (void *)169;
static long (*const bpf_timer_set_callback)(struct bpf_timer *timer, void *callback) = (void *)170;
static long (*const bpf_timer_start)(struct bpf_timer *timer, __u64 ns, __u64 flags) = (void *)171;
static long (*const bpf_timer_cancel)(struct bpf_timer *timer) = (void *)172;

struct element {
	__u64 count;
	struct bpf_timer timer;
};

#define MAP(name_, type_, key_) \
	struct { \
		__uint(type, type_); \
		__uint(max_entries, 4); \
		__type(key, key_); \
		__type(value, struct element); \
	} name_ SEC(".maps")

MAP(array, BPF_MAP_TYPE_ARRAY, __u32);
MAP(hash, BPF_MAP_TYPE_HASH, __u64);
__u64 last_key;

static int tick(void *map, __u32 *key, struct element *element)
{
	last_key = *key;
	if (++element->count < 3)
		bpf_timer_start(&element->timer, 1000, 0);
	return 0;
}

static __always_inline int start(void *map, struct element *element, __u64 ns)
{
	long failed;

	if (!element)
		return -1;
	failed = bpf_timer_init(&element->timer, map, 1);
	if (failed)
		return failed;
	failed = bpf_timer_set_callback(&element->timer, tick);
	return failed ? failed : bpf_timer_start(&element->timer, ns, 0);
}

SEC("tc") int in_array(struct __sk_buff *skb)
{
	__u32 key = 2;

	return start(&array, bpf_map_lookup_elem(&array, &key), skb->mark);
}

SEC("tc") int in_hash(struct __sk_buff *skb)
{
	__u64 key = 0x77;
	struct element empty = {};

	bpf_map_update_elem(&hash, &key, &empty, BPF_NOEXIST);
	return start(&hash, bpf_map_lookup_elem(&hash, &key), skb->mark);
}

SEC("tc") int stop(struct __sk_buff *skb)
{
	__u32 key = 2;
	struct element *element = bpf_map_lookup_elem(&array, &key);

	return element ? bpf_timer_cancel(&element->timer) : -1;
}

char _license[] SEC("license") = "GPL";
