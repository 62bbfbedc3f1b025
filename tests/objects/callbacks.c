/* Helpers that call back: bpf_for_each_map_elem and bpf_loop; and locks around what they share.
 *
 * sum_*   keys and values of the map added up, through a context on the caller's stack
 * stop    ends after the second element
 * count   a loop of packet[0] turns; its result and the last index
 * nested  a loop in a loop
 * locked  a value changed under its spin lock
 */
#include "bpf.h"

#define BPF_MAP_TYPE_PERCPU_HASH 5

static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *context, __u64 flags) = (void *)164;
static long (*const bpf_loop)(__u32 turns, void *callback, void *context, __u64 flags) = (void *)181;

struct bpf_spin_lock {
	__u32 value;
};
static void (*const bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static void (*const bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;

struct key {
	__u32 a, b, c;
};

struct shared {
	struct bpf_spin_lock lock;
	__u32 left, right;
};

#define MAP(name_, type_, key_, value_, entries_) \
	struct { \
		__uint(type, type_); \
		__uint(max_entries, entries_); \
		__type(key, key_); \
		__type(value, value_); \
	} name_ SEC(".maps")

MAP(array, BPF_MAP_TYPE_ARRAY, __u32, __u64, 5);
MAP(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, __u64, 5);
MAP(hash, BPF_MAP_TYPE_HASH, struct key, __u64, 100);
MAP(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, __u32, __u64, 100);
MAP(shared, BPF_MAP_TYPE_ARRAY, __u32, struct shared, 1);

struct sums {
	__u64 keys, values, calls;
};
struct sums sums;

static long add(void *map, const __u32 *key, __u64 *value, struct sums *sums)
{
	sums->keys += key[0];
	sums->values += *value;
	sums->calls++;
	*value += 1;
	return 0;
}

static long add_wide(void *map, const struct key *key, __u64 *value, struct sums *sums)
{
	sums->keys += key->a + key->c;
	sums->values += *value;
	sums->calls++;
	bpf_map_delete_elem(map, key);
	return 0;
}

static long second(void *map, const __u32 *key, __u64 *value, struct sums *sums)
{
	return ++sums->calls == 2;
}

#define SUM(name_, map_, callback_) \
	SEC("socket") int name_(struct __sk_buff *skb) \
	{ \
		struct sums found = {}; \
		int visited = bpf_for_each_map_elem(&map_, callback_, &found, 0); \
\
		sums = found; \
		return visited; \
	}

SUM(sum_array, array, add)
SUM(sum_percpu_array, percpu_array, add)
SUM(sum_hash, hash, add_wide)
SUM(sum_percpu_hash, percpu_hash, add)
SUM(stop, array, second)

static long turn(__u32 index, __u64 *last)
{
	*last = index;
	return index == 1000;
}

static long outer(__u32 index, __u64 *total)
{
	__u64 last = 0;

	bpf_loop(index, turn, &last, 0);
	*total += last;
	return 0;
}

SEC("socket") int count(struct __sk_buff *skb)
{
	__u64 last = 0;
	int turns = bpf_loop(skb->mark, turn, &last, 0);

	sums.values = last;
	return turns;
}

SEC("socket") int nested(struct __sk_buff *skb)
{
	__u64 total = 0;

	bpf_loop(skb->mark, outer, &total, 0);
	return total;
}

SEC("socket") int locked(struct __sk_buff *skb)
{
	__u32 key = 0;
	struct shared *found = bpf_map_lookup_elem(&shared, &key);

	if (!found)
		return -1;
	bpf_spin_lock(&found->lock);
	found->left++;
	found->right = found->left;
	bpf_spin_unlock(&found->lock);
	return 0;
}

char _license[] SEC("license") = "GPL";
