/* 128 words of the packet swapped in place, and sums of 16- and 32-bit swaps. */
#include "bench.h"

#define WORDS 128

PROGRAM
{
	__u64 *word = DATA;
	if ((void *)(word + WORDS) > DATA_END)
		return 0;
	__u64 sum = 0;
	for (__u32 i = 0; i < WORDS; i++) {
		__u64 x = word[i];
		sum += __builtin_bswap32((__u32)x);
		sum ^= __builtin_bswap16((__u16)sum);
		word[i] = __builtin_bswap64(x);
	}
	return sum ^ sum >> 32;
}
