/* Programs around XDP programs: what a kernel's struct xdp_buff tells them, whose members this file has elsewhere. */
#include "bpf.h"

#define BPF_MAP_TYPE_PERF_EVENT_ARRAY 4
#define BPF_F_CURRENT_CPU 0xffffffffull
#define __core __attribute__((preserve_access_index))

struct net_device {
	char name[16];
	int ifindex;
} __core;

struct xdp_rxq_info {
	__u64 pad;
	struct net_device *dev;
	__u32 queue_index;
} __core;

struct xdp_buff {
	struct xdp_rxq_info *rxq;
	__u32 frame_sz;
	void *data_end;
	void *data;
} __core;

static long (*const bpf_xdp_output)(void *ctx, void *map, __u64 flags, void *data, __u64 size) = (void *)121;

char _license[] SEC("license") = "GPL";

__u64 length, seen;
__u32 ifindex, queue, frame;
__s32 verdict;

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} events SEC(".maps");

SEC("fexit/any") int looks(__u64 *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	seen++;
	length = xdp->data_end - xdp->data;
	ifindex = xdp->rxq->dev->ifindex;
	queue = xdp->rxq->queue_index;
	verdict = ctx[1];
	return 0;
}

SEC("fentry/any") int sends(__u64 *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];
	__u64 size = xdp->data_end - xdp->data;
	__u32 mark = 0xabcd;

	bpf_xdp_output(xdp, &events, (size & 0xff) << 32 | BPF_F_CURRENT_CPU, &mark, sizeof(mark));
	return 0;
}

SEC("fentry/any") int sends_something(__u64 *ctx)
{
	__u32 mark = 0;

	bpf_xdp_output(ctx, &events, BPF_F_CURRENT_CPU, &mark, sizeof(mark));
	return 0;
}

SEC("fentry/any") int asks_too_much(__u64 *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	frame = xdp->frame_sz;
	return 0;
}

SEC("fentry/any") int stores(__u64 *ctx)
{
	struct xdp_buff *xdp = (void *)ctx[0];

	xdp->data = 0;
	return 0;
}
