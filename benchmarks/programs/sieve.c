/* Primes below a limit near 440 by the sieve of Eratosthenes, on the BPF stack. */
#include "bench.h"

#define SIZE 448

PROGRAM
{
	__u8 *given = DATA;
	if ((void *)(given + 1) > DATA_END)
		return 0;
	__u32 limit = 432 + (*given & 15);
	__u8 composite[SIZE] = {0};
	__u32 count = 0;
	for (__u32 i = 2; i < SIZE; i++) {
		if (i >= limit)
			break;
		if (composite[i])
			continue;
		count++;
		for (__u32 j = i * 2; j < SIZE; j += i)
			composite[j] = 1;
	}
	return count;
}
