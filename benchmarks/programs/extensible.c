/* 1000 calls of a global function, which an extension may replace; and one that does the same. */
#include "../../tests/objects/bpf.h"

char _license[] SEC("license") = "GPL";

#define STEP(x, y) ({ x ^= y << 7; x ^= x >> 9; x + y; })

__attribute__((weak)) __noinline __u64 step(__u64 x, __u64 y)
{
	return STEP(x, y);
}

SEC("xdp") int bench(struct xdp_md *ctx)
{
	__u64 x = ctx->ingress_ifindex;
	for (__u32 i = 0; i < 1000; i++)
		x = step(x, i);
	return x ^ x >> 32;
}

SEC("freplace/step") __u64 same_step(__u64 x, __u64 y)
{
	return STEP(x, y);
}
