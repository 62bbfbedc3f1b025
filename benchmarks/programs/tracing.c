/* Programs around an empty native function: ones that do nothing, and one that counts calls and adds up an argument. */
#include "../../tests/objects/bpf.h"

char _license[] SEC("license") = "GPL";

__u64 calls, total;

SEC("fentry/empty") int at_entry(__u64 *ctx)
{
	return 0;
}

SEC("fexit/empty") int at_exit(__u64 *ctx)
{
	return 0;
}

SEC("fentry/empty") int counts(__u64 *ctx)
{
	calls++;
	total += ctx[1];
	return 0;
}
