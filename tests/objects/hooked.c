/* Programs with functions to hook and to replace; main's answer says what its functions returned. */
#include "bpf.h"

#define BPF_MAP_TYPE_PROG_ARRAY 3

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*const bpf_xdp_adjust_head)(void *ctx, int delta) = (void *)44;

char _license[] SEC("license") = "GPL";

const volatile __u32 alive = 1;
const volatile __u32 dead = 0;
volatile __u64 spins;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} jumps SEC(".maps");

struct pair {
	__u64 x, y;
};

__noinline long g(long v)
{
	return v - 122;
}

__noinline int f(int a, __u64 b)
{
	return a + b;
}

__noinline int widths(__u64 a, short b, int c, signed char d, __u16 e)
{
	return a + b + c + d + e;
}

__noinline int takes_pair(struct pair *pair)
{
	return pair ? pair->x + pair->y : 0;
}

__noinline int takes_context(struct xdp_md *ctx)
{
	return ctx->rx_queue_index + 1;
}

__noinline int moves(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 0);
}

static __noinline int hidden(int v)
{
	return v * 3;
}

__noinline int eliminated(int v)
{
	return v * 5;
}

__noinline int sibling(int v)
{
	return v * 7;
}

SEC("xdp") int calls_g(struct xdp_md *ctx)
{
	return g(ctx->ingress_ifindex);
}

SEC("xdp") int calls_f(struct xdp_md *ctx)
{
	return f(ctx->ingress_ifindex, ctx->rx_queue_index);
}

SEC("xdp") int calls_f_and_g(struct xdp_md *ctx)
{
	return 100 * f(ctx->ingress_ifindex, 1) + g(122 + ctx->rx_queue_index);
}

SEC("xdp") int calls_widths(struct xdp_md *ctx)
{
	return widths(1ull << 40, -2, -3, -4, 65535);
}

SEC("xdp") int calls_many(struct xdp_md *ctx)
{
	struct pair pair = {.x = ctx->ingress_ifindex, .y = 2};
	return takes_pair(&pair) + 100 * takes_context(ctx) + 10000 * moves(ctx) + hidden(ctx->ingress_ifindex);
}

SEC("xdp") int calls_siblings(struct xdp_md *ctx)
{
	int sum = 0;
	if (dead)
		sum += eliminated(ctx->ingress_ifindex);
	if (alive)
		sum += sibling(ctx->ingress_ifindex);
	return sum;
}

SEC("xdp") int wrong_context(void *ctx)
{
	return 2;
}

SEC("tc") int classifies(struct __sk_buff *skb)
{
	return g(skb->mark);
}

__noinline int counted(int v)
{
	return v + 1;
}

SEC("xdp") int jumps_on(struct xdp_md *ctx)
{
	spins = counted(spins);
	bpf_tail_call(ctx, &jumps, 0);
	return 77;
}
