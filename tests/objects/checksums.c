/* Around zlib's crc32(crc, data, length): how often it is called, over how many bytes, and by size. */
#include "bpf.h"

char _license[] SEC("license") = "GPL";

__u64 calls, bytes, last;

/* Lengths by their number of bits: 0, 1, 2..3, 4..7, ... */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 33);
	__type(key, __u32);
	__type(value, __u64);
} sizes SEC(".maps");

SEC("fexit/crc32") int count(__u64 *ctx)
{
	__u32 length = ctx[2], bits = 0;

	for (__u32 rest = length; rest && bits < 32; rest >>= 1)
		bits++;
	__u64 *size = bpf_map_lookup_elem(&sizes, &bits);
	if (size)
		__sync_fetch_and_add(size, 1);
	__sync_fetch_and_add(&calls, 1);
	__sync_fetch_and_add(&bytes, length);
	last = ctx[3];
	return 0;
}
