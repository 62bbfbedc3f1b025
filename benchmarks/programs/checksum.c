/* The internet checksum (RFC 1071) of a packet of 1500 bytes, whose length is checked once. */
#include "bench.h"

#define LENGTH 1500

PROGRAM
{
	__u16 *words = DATA;
	if ((void *)words + LENGTH > DATA_END)
		return 0;
	__u32 sum = 0;
	for (__u32 i = 0; i < LENGTH / 2; i++)
		sum += words[i];
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return ~sum & 0xFFFF;
}
