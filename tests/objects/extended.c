/* Programs whose global functions the extensions of extending.c replace, and what verification says of such functions. */
#include "bpf.h"

#define __weak __attribute__((weak)) /* so that clang, too, concludes nothing from a body */

static long (*const bpf_xdp_adjust_head)(void *ctx, int delta) = (void *)44;

char _license[] SEC("license") = "GPL";

const volatile __u32 dead = 0;
__u8 table[16];

struct bpf_sock_addr {
	__u32 user_family, user_ip4;
};

struct pair {
	__u64 x, y;
};

/* FR-02: results of another size */

__noinline __weak __u32 narrow(__u64 v)
{
	return v + 1;
}

SEC("xdp") int calls_narrow(struct xdp_md *ctx)
{
	__u64 given = 0x100000000ull + ctx->ingress_ifindex;
	return narrow(given) == ctx->ingress_ifindex + 1 ? 1 : 2;
}

/* FR-07, FR-08: what only tc has */

__noinline __weak int classify(struct __sk_buff *skb)
{
	return skb->len;
}

SEC("tc") int classifies(struct __sk_buff *skb)
{
	return classify(skb);
}

/* FR-14, FR-21: two attach types of one program type, each with numbers that main may answer */

__noinline __weak int decide(int v)
{
	return v;
}

SEC("cgroup/connect4") int connects4(struct bpf_sock_addr *ctx)
{
	return decide(1) == 1;
}

SEC("cgroup/connect6") int connects6(struct bpf_sock_addr *ctx)
{
	return decide(1) == 1;
}

/* FR-15: mains that change packet data and do not */

SEC("xdp") int keeps_packet(struct xdp_md *ctx)
{
	return 1;
}

SEC("xdp") int moves_packet(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 0) + 2;
}

/* FR-18: 8 frames of 64 bytes, each with a pattern that must still be there when the functions below have returned */

#define CHAIN(linkage, name, words, next, seed) \
	linkage long name(long v) \
	{ \
		volatile __u64 canary[words]; \
		for (int i = 0; i < words; i++) \
			canary[i] = seed + i; \
		long answer = next; \
		for (int i = 0; i < words; i++) \
			if (canary[i] != seed + i) \
				return -seed; \
		return answer; \
	}

CHAIN(__noinline __weak, deepest, 8, v + 1, 800)
CHAIN(static __noinline, deep7, 8, deepest(v + 1), 700)
CHAIN(static __noinline, deep6, 8, deep7(v + 1), 600)
CHAIN(static __noinline, deep5, 8, deep6(v + 1), 500)
CHAIN(static __noinline, deep4, 8, deep5(v + 1), 400)
CHAIN(static __noinline, deep3, 8, deep4(v + 1), 300)
CHAIN(static __noinline, deep2, 8, deep3(v + 1), 200)
CHAIN(static __always_inline, deep1, 8, deep2(v + 1), 100)

SEC("xdp") int goes_deep(struct xdp_md *ctx)
{
	return deep1(ctx->ingress_ifindex);
}

/* FR-19: verified once, for all that the types allow, but only when called */

__noinline __weak int reads_pair(struct pair *pair)
{
	return pair->x;
}

SEC("xdp") int gives_pair(struct xdp_md *ctx)
{
	struct pair pair = {.x = ctx->ingress_ifindex, .y = 1};
	return reads_pair(&pair);
}

SEC("xdp") int gives_no_pair(struct xdp_md *ctx)
{
	struct pair pair = {.x = 1, .y = 1};
	return dead ? reads_pair(&pair) : 4;
}

/* FR-20, FR-21: what a global function returns is anything */

__noinline __weak int below_ten(int v)
{
	return (__u32)v % 10;
}

SEC("xdp") int relies(struct xdp_md *ctx)
{
	return table[below_ten(ctx->ingress_ifindex)];
}

SEC("xdp") int rechecks(struct xdp_md *ctx)
{
	__u32 place = below_ten(ctx->ingress_ifindex);
	return place < 10 ? table[place] : 99;
}

/* FR-22: a function that may end in a tail call, called twice */

__noinline __weak int may_move(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 0);
}

SEC("xdp") int calls_mover(struct xdp_md *ctx)
{
	int first = may_move(ctx);
	return 1000 * first + may_move(ctx);
}

/* FR-24: a function that a test can stop in */

__noinline __weak long waits(long v)
{
	return bpf_get_prandom_u32() + v;
}

SEC("xdp") int calls_waits(struct xdp_md *ctx)
{
	return waits(ctx->ingress_ifindex);
}

/* An argument that points into a hash, which only the verifier knows to be memory */

struct couple {
	__u64 x, y;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, struct couple);
} couples SEC(".maps");

__noinline __weak int adds(struct couple *couple)
{
	return couple ? couple->x + couple->y : 100;
}

SEC("xdp") int adds_value(struct xdp_md *ctx)
{
	__u32 key = ctx->ingress_ifindex;
	return adds(bpf_map_lookup_elem(&couples, &key));
}
