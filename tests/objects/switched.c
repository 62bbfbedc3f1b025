/* Static keys in programs that stand for functions of tests/objects/hooked.c, or run around them. */
#include "bpf.h"
#include "bpfc_static_key.h"

DEFINE_STATIC_KEY(loud);

char _license[] SEC("license") = "GPL";

__u64 entries, exits;

SEC("freplace/g") long replaces_g(long v)
{
	return bpf_static_branch_unlikely(&loud) ? 77 : 33;
}

SEC("freplace/g") long also_replaces_g(long v)
{
	return bpf_static_branch_likely(&loud) ? 7 : 3;
}

SEC("fentry/g") int enters(__u64 *ctx)
{
	entries += bpf_static_branch_unlikely(&loud) ? 1000 : 1;
	return 0;
}

SEC("fexit/g") int leaves(__u64 *ctx)
{
	exits += bpf_static_branch_likely(&loud) ? 1000 : 1;
	return 0;
}
