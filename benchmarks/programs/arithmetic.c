/* 100 000 iterations of multiply, add, xor and shift over two values. */
#include "bench.h"

PROGRAM
{
	__u64 *seed = DATA;
	if ((void *)(seed + 2) > DATA_END)
		return 0;
	__u64 x = seed[0], y = seed[1];
	for (__u32 i = 0; i < 100000; i++) {
		x = x * 6364136223846793005 + y;
		y ^= x >> 29;
	}
	return x ^ y >> 32;
}
