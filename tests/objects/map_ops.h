/* Map operations, many for each packet: what `KEYED` and `LISTED` make a program of, for a map of its own.
 *
 * packet: any number of requests, each of them
 *
 *   op 1 | flags 1 | padding 2 | result 4 | key 24 | value 16 | begin 8 | end 8
 *
 *   op: 0 lookup, 1 update, 2 delete, 3 push, 4 pop, 5 peek
 *
 * The result is the helper's, its highest bit cleared; of a lookup, pop or peek a digest of the value. The highest bit of
 * a lookup's says that something was found. Where `IS_TIMED`, a request is told when it was begun and done with, and the
 * value itself is left in the request, without a digest. The verdict is how many requests were done.
 */
#include "bpf.h"

#define BPF_MAP_TYPE_PERCPU_HASH 5
#define BPF_MAP_TYPE_LRU_PERCPU_HASH 10
#define BPF_MAP_TYPE_LPM_TRIE 11
#define BPF_MAP_TYPE_QUEUE 22
#define BPF_MAP_TYPE_STACK 23
#define BPF_F_NO_PREALLOC 1

static long (*const bpf_map_push_elem)(void *map, const void *value, __u64 flags) = (void *)87;
static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;
static long (*const bpf_map_peek_elem)(void *map, void *value) = (void *)89;

enum op { LOOKUP, UPDATE, DELETE, PUSH, POP, PEEK };

#define BATCH 48 /* as many as fit what the kernel takes for a packet */

struct request {
	__u8 op, flags, padding[2];
	__u32 result;
	__u8 key[24];
	__u8 value[16];
	__u64 begin, end;
};

static __always_inline __u32 digest(const __u8 *bytes, int size)
{
	__u32 sum = 2166136261u;

	for (int i = 0; i < size; i++)
		sum = (sum ^ bytes[i]) * 16777619u;
	return sum | 0x80000000;
}

static __always_inline void copy(__u8 *to, const __u8 *from, int size)
{
	for (int i = 0; i < size; i++)
		to[i] = from[i];
}

/* Nothing that is done before it is seen by others after it, nor the other way round: a processor keeps stores to itself
 * for a while, and loads early, so that without it an operation may take effect outside of the times that it says. */
#if IS_TIMED
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} fences SEC(".maps");

static __always_inline void fence(void)
{
	__u32 only = 0;
	__u64 *word = bpf_map_lookup_elem(&fences, &only);

	if (word)
		__sync_lock_test_and_set(word, 1);
}
#else
#define fence()
#endif

#define PROGRAM(name_) \
	SEC("xdp") int name_(struct xdp_md *ctx) \
	{ \
		struct request *request = (void *)(long)ctx->data; \
		int done; \
\
		_Pragma("clang loop unroll(disable)") \
		for (done = 0; done < BATCH && (void *)(request + 1) <= (void *)(long)ctx->data_end; done++, request++) { \
			if (IS_TIMED) { \
				request->begin = bpf_ktime_get_ns(); \
				fence(); \
			} \
			request->result = one_##name_(request); \
			if (IS_TIMED) { \
				fence(); \
				request->end = bpf_ktime_get_ns(); \
			} \
		} \
		return done; \
	}

#define KEYED(name_, type_, key_size_, value_size_, entries_, flags_) \
	struct { \
		__uint(type, type_); \
		__uint(key_size, key_size_); \
		__uint(value_size, value_size_); \
		__uint(max_entries, entries_); \
		__uint(map_flags, flags_); \
	} map_##name_ SEC(".maps"); \
\
	static __always_inline __u32 one_##name_(struct request *request) \
	{ \
		__u8 key[key_size_] __attribute__((aligned(8))), value[value_size_] __attribute__((aligned(8))); \
		__u8 *found; \
\
		copy(key, request->key, key_size_); \
		copy(value, request->value, value_size_); \
		switch (request->op) { \
		case LOOKUP: \
			found = bpf_map_lookup_elem(&map_##name_, key); \
			if (found && IS_TIMED) { \
				*(__u64 *)request->value = *(__u64 *)found; /* one load: whole, though others write */ \
				return 0x80000000; \
			} \
			return found ? digest(found, value_size_) : 0; \
		case UPDATE: \
			return bpf_map_update_elem(&map_##name_, key, value, request->flags) & 0x7fffffff; \
		case DELETE: \
			return bpf_map_delete_elem(&map_##name_, key) & 0x7fffffff; \
		} \
		return -1001; \
	} \
\
	PROGRAM(name_)

#define LISTED(name_, type_, value_size_, entries_) \
	struct { \
		__uint(type, type_); \
		__uint(value_size, value_size_); \
		__uint(max_entries, entries_); \
	} map_##name_ SEC(".maps"); \
\
	static __always_inline __u32 one_##name_(struct request *request) \
	{ \
		__u8 value[8] __attribute__((aligned(8))) = {}; \
		long missing; \
\
		copy(value, request->value, value_size_); \
		switch (request->op) { \
		case PUSH: \
			return bpf_map_push_elem(&map_##name_, value, request->flags) & 0x7fffffff; \
		case POP: \
			missing = bpf_map_pop_elem(&map_##name_, value); \
			break; \
		case PEEK: \
			missing = bpf_map_peek_elem(&map_##name_, value); \
			break; \
		default: \
			return -1001; \
		} \
		if (IS_TIMED) { \
			*(__u64 *)request->value = *(__u64 *)value; \
			return missing & 0x7fffffff; \
		} \
		return missing ? digest(value, value_size_) & 0x7fffffff : digest(value, value_size_); \
	} \
\
	PROGRAM(name_)
