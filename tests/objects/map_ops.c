/* Operations on maps of every sort, so that a test can play the same sequence here and in a kernel. */
#define IS_TIMED 0
#include "map_ops.h"

KEYED(array, BPF_MAP_TYPE_ARRAY, 4, 8, 8, 0)
KEYED(array13, BPF_MAP_TYPE_ARRAY, 4, 13, 8, 0)
KEYED(percpu_array, BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 8, 0)
KEYED(hash4, BPF_MAP_TYPE_HASH, 4, 8, 8, 0)
KEYED(hash7, BPF_MAP_TYPE_HASH, 7, 5, 8, 0)
KEYED(hash16, BPF_MAP_TYPE_HASH, 16, 16, 8, 0)
KEYED(hash_lazy, BPF_MAP_TYPE_HASH, 8, 8, 8, BPF_F_NO_PREALLOC)
KEYED(percpu_hash, BPF_MAP_TYPE_PERCPU_HASH, 4, 8, 8, 0)
KEYED(lru_hash, BPF_MAP_TYPE_LRU_HASH, 4, 8, 4096, 0)
KEYED(lru_percpu_hash, BPF_MAP_TYPE_LRU_PERCPU_HASH, 4, 8, 4096, 0)
KEYED(lpm4, BPF_MAP_TYPE_LPM_TRIE, 8, 8, 8, BPF_F_NO_PREALLOC)
KEYED(lpm6, BPF_MAP_TYPE_LPM_TRIE, 10, 8, 8, BPF_F_NO_PREALLOC)
KEYED(lpm16, BPF_MAP_TYPE_LPM_TRIE, 20, 4, 8, BPF_F_NO_PREALLOC)
LISTED(queue, BPF_MAP_TYPE_QUEUE, 8, 4)
LISTED(stack, BPF_MAP_TYPE_STACK, 6, 4)

char _license[] SEC("license") = "GPL";
