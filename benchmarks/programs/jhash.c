/* Bob Jenkins' hash, as in Linux' jhash2, over up to 480 bytes in blocks of 12, each checked against the packet's end. */
#include "bench.h"

#define rotate(x, n) ((x) << (n) | (x) >> (32 - (n)))

PROGRAM
{
	__u32 *at = DATA;
	void *end = DATA_END;
	__u32 a = 0xDEADBEEF, b = a, c = a;
	for (__u32 i = 0; i < 40; i++) {
		if ((void *)(at + 3) > end)
			break;
		a += at[0];
		b += at[1];
		c += at[2];
		a -= c, a ^= rotate(c, 4), c += b;
		b -= a, b ^= rotate(a, 6), a += c;
		c -= b, c ^= rotate(b, 8), b += a;
		a -= c, a ^= rotate(c, 16), c += b;
		b -= a, b ^= rotate(a, 19), a += c;
		c -= b, c ^= rotate(b, 4), b += a;
		at += 3;
	}
	c ^= b, c -= rotate(b, 14);
	a ^= c, a -= rotate(c, 11);
	b ^= a, b -= rotate(a, 25);
	c ^= b, c -= rotate(b, 16);
	a ^= c, a -= rotate(c, 4);
	b ^= a, b -= rotate(a, 14);
	c ^= b, c -= rotate(b, 24);
	return c;
}
