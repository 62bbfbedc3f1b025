/* One C source, compiled twice: for BPF, and as the native function that bpfc's code is measured against.
 *
 *   PROGRAM { ... }          int bench(context): an XDP program, or a function of the packet
 *   DATA, DATA_END           the packet's bounds
 *   lookup(map, key)         a map value; natively the element of an array
 *   random32()               a helper; natively a call through a pointer to the same generator in another file
 *
 * The native side ends with the loop over packets that bpfc has too; both see program and loop in one unit.
 */
#ifndef BENCH_H
#define BENCH_H

#ifdef __bpf__

#include "../../tests/objects/bpf.h"

char _license[] SEC("license") = "GPL";

#ifdef FLAT /* for runtimes that know no contexts: r1 points at the packet's two bounds */
struct bounds {
	void *data;
	void *data_end;
};
#define PROGRAM SEC("flat") int bench(struct bounds *ctx)
#define DATA (ctx->data)
#define DATA_END (ctx->data_end)
#else
#define PROGRAM SEC("xdp") int bench(struct xdp_md *ctx)
#define DATA ((void *)(long)ctx->data)
#define DATA_END ((void *)(long)ctx->data_end)
#endif
#define random32() bpf_get_prandom_u32()
#define ARRAY(name, count, kind) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, count); \
		__type(key, __u32); \
		__type(value, kind); \
	} name SEC(".maps")
#define lookup(map, key) bpf_map_lookup_elem(&map, key)

#else

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
#ifndef __noinline /* -D__noinline=inline: what the calls cost */
#define __noinline __attribute__((noinline))
#endif
#define __always_inline inline __attribute__((always_inline))
#define bpf_htons(x) __builtin_bswap16(x)
#define bpf_htonl(x) __builtin_bswap32(x)

struct packet {
	void *data;
	void *data_end;
};

extern __u32 (*random32)(void);

static int bench(struct packet *restrict ctx);

void bench_batch(struct packet *restrict ctx, void *const *restrict addresses, const __u32 *restrict lengths,
		 __u64 count, __u32 *restrict rets)
{
	for (__u64 i = 0; i < count; i++) {
		ctx->data = addresses[i];
		ctx->data_end = addresses[i] + lengths[i];
		rets[i] = bench(ctx);
	}
}

#define PROGRAM static int bench(struct packet *restrict ctx)
#define DATA (ctx->data)
#define DATA_END (ctx->data_end)
#define ARRAY(name, count, kind) static kind name[count]
#define lookup(map, key) (*(key) < sizeof(map) / sizeof(map[0]) ? &map[*(key)] : (void *)0)

#endif
#endif
