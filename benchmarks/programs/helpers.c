/* 1000 calls of bpf_get_prandom_u32; natively through a pointer to a generator of the same make. */
#include "bench.h"

PROGRAM
{
	__u32 sum = 0;
	for (__u32 i = 0; i < 1000; i++)
		sum += random32();
	return sum;
}
