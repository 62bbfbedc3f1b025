/* Maps as they were declared before BTF: definition structs in section "maps", with the loader's own fields behind. */
#include "bpf.h"

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags;
	__u32 id, pinning, inner_id, inner_idx;
};

struct bpf_map_def SEC("maps") counters = { BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 2, 0 };
struct bpf_map_def SEC("maps") hosts = { BPF_MAP_TYPE_HASH, 4, 16, 256, 1, .id = 7, .pinning = 2 };

SEC("xdp_legacy") int count(struct xdp_md *context)
{
	__u32 key = context->ingress_ifindex & 1;
	__u64 *value = bpf_map_lookup_elem(&counters, &key);

	if (value)
		__sync_fetch_and_add(value, 1);
	return bpf_map_lookup_elem(&hosts, &key) ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "GPL";
