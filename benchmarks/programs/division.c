/* 1000 divisions and remainders, each waiting for the one before. */
#include "bench.h"

PROGRAM
{
	__u64 *given = DATA;
	if ((void *)(given + 2) > DATA_END)
		return 0;
	__u64 x = given[0], y = given[1];
	for (__u32 i = 0; i < 500; i++) {
		x = (x | 1ULL << 62) / ((y & 0xFFFF) + 3);
		y += x % 1021 + i / ((__u32)x | 1);
	}
	return x ^ y;
}
