/* 1000 calls of a subprogram that is not to be inlined. */
#include "bench.h"

static __noinline __u64 step(__u64 x, __u64 y)
{
	x ^= y << 7;
	x ^= x >> 9;
	return x + y;
}

PROGRAM
{
	__u64 *given = DATA;
	if ((void *)(given + 1) > DATA_END)
		return 0;
	__u64 x = *given;
	for (__u32 i = 0; i < 1000; i++)
		x = step(x, i);
	return x ^ x >> 32;
}
