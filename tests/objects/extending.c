/* Extensions of the functions of extended.c. */
#include "bpf.h"

#define BPF_MAP_TYPE_PROG_ARRAY 3

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;
static long (*const bpf_xdp_adjust_head)(void *ctx, int delta) = (void *)44;

char _license[] SEC("license") = "GPL";

__u64 turns;

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__uint(key_size, 4);
	__uint(value_size, 4);
} jumps SEC(".maps");

struct bpf_sock_addr {
	__u32 user_family, user_ip4;
};

struct pair {
	__u64 x, y, z;
};

SEC("freplace/narrow") __u64 wide(__u64 v)
{
	return v + 1;
}

SEC("freplace/classify") int loads_bytes(struct __sk_buff *skb)
{
	__u8 first = 0;
	bpf_skb_load_bytes(skb, 0, &first, 1);
	return first;
}

SEC("freplace/classify") int sets_mark(struct __sk_buff *skb)
{
	skb->mark = 5;
	return skb->mark + 1;
}

SEC("freplace/classify") int reads_address(struct __sk_buff *skb)
{
	return skb->remote_ip4;
}

SEC("freplace/decide") int decides(int v)
{
	return 255;
}

SEC("freplace/connects4") int answers_255(struct bpf_sock_addr *ctx)
{
	return 255;
}

SEC("freplace/connects4") int answers_0(struct bpf_sock_addr *ctx)
{
	return 0;
}

SEC("freplace/classifies") int answers_12345(struct __sk_buff *skb)
{
	return 12345;
}

SEC("freplace/keeps_packet") int keeps(struct xdp_md *ctx)
{
	return 3;
}

SEC("freplace/keeps_packet") int moves(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 0) + 4;
}

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

CHAIN(__noinline, under8, 8, v + 100, 1800)
CHAIN(__noinline, under7, 8, under8(v + 100), 1700)
CHAIN(__noinline, under6, 8, under7(v + 100), 1600)
CHAIN(__noinline, under5, 8, under6(v + 100), 1500)
CHAIN(__noinline, under4, 8, under5(v + 100), 1400)
CHAIN(__noinline, under3, 8, under4(v + 100), 1300)
CHAIN(__noinline, under2, 8, under3(v + 100), 1200)
CHAIN(SEC("freplace/deepest"), goes_on, 8, under2(v + 100), 1100)
CHAIN(SEC("freplace/deepest"), goes_528, 10, under2(v + 100), 1100)

#define STEP(linkage, name, next) \
	linkage long name(long v) \
	{ \
		return next + 1; \
	}

STEP(static __noinline, step9, turns)
STEP(static __noinline, step8, step9(v + 1))
STEP(static __noinline, step7, step8(v + 1))
STEP(static __noinline, step6, step7(v + 1))
STEP(static __noinline, step5, step6(v + 1))
STEP(static __noinline, step4, step5(v + 1))
STEP(static __noinline, step3, step4(v + 1))
STEP(static __noinline, step2, step3(v + 1))
STEP(SEC("freplace/deepest"), nine_frames, step2(v))

SEC("freplace/reads_pair") int larger_pair(struct pair *pair)
{
	return pair ? pair->z : 0;
}

SEC("freplace/below_ten") int answers_1000(int v)
{
	return 1000;
}

SEC("freplace/may_move") int jumps_on(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	return 7;
}

SEC("xdp") int for_ever(struct xdp_md *ctx)
{
	turns++;
	bpf_tail_call(ctx, &jumps, 0);
	return 5;
}

SEC("freplace/waits") long waits_too(long v)
{
	return bpf_get_prandom_u32() + v + 1000;
}

SEC("freplace/waits") long far_away(long v)
{
	return v + 1;
}

struct couple {
	__u64 x, y;
};

SEC("freplace/adds") int multiplies(struct couple *couple)
{
	if (!couple)
		return 200;
	couple->x += 1;
	return couple->x * couple->y;
}
