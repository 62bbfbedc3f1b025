/* 1000 atomic additions, half of them to a global and half, with the old value used, to an element of an array map. */
#include "bench.h"

ARRAY(totals, 4, __u64);
__u64 total;

PROGRAM
{
	__u64 *given = DATA;
	if ((void *)(given + 1) > DATA_END)
		return 0;
	__u32 key = 1;
	__u64 *slot = lookup(totals, &key);
	if (!slot)
		return 0;
	__u64 seen = 0;
	for (__u32 i = 0; i < 500; i++) {
		__sync_fetch_and_add(&total, *given);
		seen ^= __sync_fetch_and_add(slot, i);
	}
	return seen;
}
