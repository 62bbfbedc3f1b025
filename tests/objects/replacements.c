/* Extensions: functions that stand for global functions of tests/objects/hooked.c. */
#include "bpf.h"

static long (*const bpf_xdp_adjust_head)(void *ctx, int delta) = (void *)44;
static long (*const bpf_skb_change_type)(void *skb, __u32 type) = (void *)32;

char _license[] SEC("license") = "GPL";

__u64 calls;

struct pair {
	__u64 x, y;
};

struct other {
	__u64 x, y;
};

SEC("freplace/g") long returns_five(long v)
{
	__sync_fetch_and_add(&calls, 1);
	return 5;
}

SEC("freplace/g") long returns_six(long v)
{
	return 6;
}

SEC("freplace/g") long two_arguments(long v, long w)
{
	return 5;
}

SEC("freplace/g") long takes_struct(struct pair *pair)
{
	return 5;
}

SEC("freplace/g") long takes_u32(__u32 v)
{
	return 5;
}

SEC("freplace/g") __u32 returns_u32(long v)
{
	return -1;
}

SEC("freplace/takes_pair") int takes_other(struct other *other)
{
	return 5;
}

SEC("freplace/takes_pair") int product(struct pair *pair)
{
	return pair ? pair->x * pair->y : 0;
}

SEC("freplace/f") int difference(int a, __u64 b)
{
	return a - b;
}

SEC("freplace/takes_context") int reads_context(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + 1 > end)
		return 0;
	return *(__u8 *)data;
}

SEC("freplace/takes_context") int moves_head(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 1);
}

SEC("freplace/takes_context") int beyond_context(struct xdp_md *ctx)
{
	return *(volatile __u32 *)((void *)ctx + 64);
}

SEC("freplace/takes_context") int uses_skb_helper(struct xdp_md *ctx)
{
	return bpf_skb_change_type(ctx, 0);
}

SEC("freplace/moves") int moves_too(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 0) + 3;
}

SEC("freplace/moves") int stays(struct xdp_md *ctx)
{
	return 4;
}

SEC("freplace/sibling") int sibling_replaced(int v)
{
	return v * 1000;
}

SEC("freplace/hidden") int hidden_replaced(int v)
{
	return v;
}

SEC("freplace/calls_g") int whole_program(struct xdp_md *ctx)
{
	calls++;
	return 1;
}
