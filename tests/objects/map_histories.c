/* Operations that say when they ran, so that a test can ask whether those of several threads had some order. */
#define IS_TIMED 1
#include "map_ops.h"

KEYED(array, BPF_MAP_TYPE_ARRAY, 4, 8, 16, 0)
KEYED(hash, BPF_MAP_TYPE_HASH, 4, 8, 64, 0)
KEYED(lazy, BPF_MAP_TYPE_HASH, 4, 8, 64, BPF_F_NO_PREALLOC)
KEYED(lru, BPF_MAP_TYPE_LRU_HASH, 4, 8, 4096, 0)
KEYED(trie, BPF_MAP_TYPE_LPM_TRIE, 8, 8, 64, BPF_F_NO_PREALLOC)
LISTED(queue, BPF_MAP_TYPE_QUEUE, 8, 8)
LISTED(stack, BPF_MAP_TYPE_STACK, 8, 8)

char _license[] SEC("license") = "GPL";
