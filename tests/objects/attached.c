/* Programs whose sections say all: what they are attached to when the object starts. */
#include "bpf.h"

char _license[] SEC("license") = "GPL";

__u64 entries, exits, sum, elsewhere;

SEC("fentry/f") int before(__u64 *ctx)
{
	entries++;
	return 0;
}

SEC("fexit/f") int after(__u64 *ctx)
{
	exits++;
	sum += ctx[2];
	return 0;
}

SEC("?fentry/libonlyhere:f") int named(__u64 *ctx)
{
	elsewhere++;
	return 0;
}
