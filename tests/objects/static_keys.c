/* Static keys: one at three sites, two in a callee, a shared one, a hot loop; with a flag in memory to compare with. */
#include "bpf.h"
#include "bpfc_static_key.h"

DEFINE_STATIC_KEY(debug);
DEFINE_STATIC_KEY(trace);
DEFINE_STATIC_KEY(unused);

__u32 flag;
__u64 counted;

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int unlikely(struct xdp_md *ctx)
{
	return bpf_static_branch_unlikely(&debug) ? 7 : 3;
}

SEC("xdp")
int likely(struct xdp_md *ctx)
{
	return bpf_static_branch_likely(&debug) ? 7 : 3;
}

SEC("xdp")
int three_sites(struct xdp_md *ctx)
{
	int sum = 0;

	sum += bpf_static_branch_likely(&debug) ? 7 : 3;
	sum += bpf_static_branch_unlikely(&debug) ? 7 : 3;
	sum += bpf_static_branch_likely(&debug) ? 7 : 3;
	return sum;
}

static __noinline int callee(int x)
{
	if (bpf_static_branch_unlikely(&debug))
		x += 100;
	if (bpf_static_branch_likely(&trace))
		x += 1000;
	return x;
}

SEC("xdp")
int with_callee(struct xdp_md *ctx)
{
	int x = callee(ctx->ingress_ifindex);

	if (bpf_static_branch_unlikely(&debug))
		x += 10000;
	return x;
}
