/* Map operations: each program does OPERATIONS of one kind; `empty` is the loop around them.
 *
 * l_*: lookups that hit    u_*: updates of keys that are there    d_*: insertions and deletions in turn
 */
#include "../../tests/objects/bpf.h"

#define __array(name, value) typeof(value) *name[]
#define OPERATIONS 256
#define ENTRIES 1024
#define BPF_MAP_TYPE_PROG_ARRAY 3
#define BPF_MAP_TYPE_PERCPU_HASH 5
#define BPF_MAP_TYPE_LRU_PERCPU_HASH 10
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_QUEUE 22
#define BPF_MAP_TYPE_RINGBUF 27
#define BPF_F_NO_PREALLOC 1
#define BPF_RB_NO_WAKEUP 1

static long (*const bpf_tail_call)(void *context, void *map, __u32 index) = (void *)12;
static long (*const bpf_map_push_elem)(void *map, const void *value, __u64 flags) = (void *)87;
static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)132;

struct wide {
	__u64 a, b;
};
struct prefix {
	__u32 length, address;
};

#define MAP(name_, type_, key_, entries_) \
	struct { \
		__uint(type, type_); \
		__uint(max_entries, entries_); \
		__type(key, key_); \
		__type(value, __u64); \
	} name_ SEC(".maps")

MAP(array, BPF_MAP_TYPE_ARRAY, __u32, ENTRIES);
MAP(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, ENTRIES);
MAP(hash, BPF_MAP_TYPE_HASH, __u32, 2 * ENTRIES);
MAP(hash16, BPF_MAP_TYPE_HASH, struct wide, 2 * ENTRIES);
MAP(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, __u32, 2 * ENTRIES);
MAP(lru_hash, BPF_MAP_TYPE_LRU_HASH, __u32, 2 * ENTRIES);
MAP(lru_percpu_hash, BPF_MAP_TYPE_LRU_PERCPU_HASH, __u32, 2 * ENTRIES);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, ENTRIES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u64);
} lpm_trie SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, ENTRIES);
	__type(value, __u64);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} ringbuf SEC(".maps");

int tail(struct xdp_md *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__array(values, int(void *));
} programs SEC(".maps") = {.values = {[0] = (void *)&tail}};

__u64 counter;

#define KEYS(i) __u32 k = (i) * 167 & (ENTRIES - 1); asm volatile("" : "+r"(k))
#define PREFIX(k) {32, (k) * 2654435761u}
#define PROGRAM(name, ...) \
	SEC("xdp") int name(struct xdp_md *ctx) \
	{ \
		__u64 sum = 0; \
\
		for (__u32 i = 0; i < OPERATIONS; i++) { \
			KEYS(i); \
			__VA_ARGS__; \
		} \
		return sum; \
	}
#define LOOKUP(map, key) \
	{ \
		__u64 *value = bpf_map_lookup_elem(&map, key); \
		if (value) \
			sum += *value; \
	}
#define UPDATE(map, key) \
	{ \
		__u64 value = i; \
		sum += bpf_map_update_elem(&map, key, &value, 0); \
	}

PROGRAM(empty, { __u32 *p = &k; asm volatile("" : : "r"(p) : "memory"); sum += *p; })
PROGRAM(global, { asm volatile("" : : : "memory"); counter += k; })
PROGRAM(l_array, LOOKUP(array, &k))
PROGRAM(l_percpu_array, LOOKUP(percpu_array, &k))
PROGRAM(l_hash, LOOKUP(hash, &k))
PROGRAM(l_hash16, { struct wide wide = {k, k}; LOOKUP(hash16, &wide) })
PROGRAM(l_percpu_hash, LOOKUP(percpu_hash, &k))
PROGRAM(l_lru_hash, LOOKUP(lru_hash, &k))
PROGRAM(l_lru_percpu_hash, LOOKUP(lru_percpu_hash, &k))
PROGRAM(l_lpm_trie, { struct prefix prefix = PREFIX(k); LOOKUP(lpm_trie, &prefix) })
PROGRAM(u_array, UPDATE(array, &k))
PROGRAM(u_hash, UPDATE(hash, &k))
PROGRAM(u_hash16, { struct wide wide = {k, k}; UPDATE(hash16, &wide) })
PROGRAM(u_percpu_hash, UPDATE(percpu_hash, &k))
PROGRAM(u_lru_hash, UPDATE(lru_hash, &k))
PROGRAM(u_lru_percpu_hash, UPDATE(lru_percpu_hash, &k))
PROGRAM(u_lpm_trie, { struct prefix prefix = PREFIX(k); UPDATE(lpm_trie, &prefix) })
PROGRAM(d_hash, { k += ENTRIES; UPDATE(hash, &k) sum += bpf_map_delete_elem(&hash, &k); })
PROGRAM(queue_both, {
	__u64 value = k;
	sum += bpf_map_push_elem(&queue, &value, 0);
	sum += bpf_map_pop_elem(&queue, &value);
})
PROGRAM(ringbuf_both, {
	__u64 *record = bpf_ringbuf_reserve(&ringbuf, 8, 0);
	if (record) {
		*record = k;
		bpf_ringbuf_submit(record, BPF_RB_NO_WAKEUP);
		sum++;
	}
})

SEC("xdp") int tail(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &programs, 0);
	return 0;
}

SEC("xdp") int fill(struct xdp_md *ctx)
{
	__u64 sum = 0;

	for (__u32 i = 0; i < ENTRIES; i++) {
		__u32 k = i;
		struct wide wide = {i, i};
		struct prefix prefix = PREFIX(i);

		UPDATE(hash, &k)
		UPDATE(hash16, &wide)
		UPDATE(percpu_hash, &k)
		UPDATE(lru_hash, &k)
		UPDATE(lru_percpu_hash, &k)
		UPDATE(lpm_trie, &prefix)
	}
	return sum;
}

char _license[] SEC("license") = "GPL";
