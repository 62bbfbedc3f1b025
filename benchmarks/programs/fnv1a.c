/* FNV-1a over up to 1024 bytes of the packet, each checked against the packet's end. */
#include "bench.h"

PROGRAM
{
	__u8 *at = DATA;
	__u8 *end = DATA_END;
	__u64 hash = 0xCBF29CE484222325;
	for (__u32 i = 0; i < 1024; i++) {
		if (at + 1 > end)
			break;
		hash = (hash ^ *at++) * 0x100000001B3;
	}
	return hash ^ hash >> 32;
}
