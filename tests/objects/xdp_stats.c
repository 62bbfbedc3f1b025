/* The sample of `make run`: an XDP program that counts what it sees, drops a blocked port and echoes UDP port 7.
 *
 *   eth [vlan [vlan]] ipv4|ipv6 tcp|udp      DROP  truncated headers, the blocked port
 *                                            TX    UDP echo (MAC and IP addresses swapped)
 *                                            PASS  everything else
 *
 * Maps: sources (hash: IPv4 source -> packets, bytes), protocols (per-cpu array: IP protocol -> packets).
 * Globals: debug, blocked_port (.rodata, set before start), echo_port (.data), packets, bytes, malformed (.bss).
 */
#include "bpf.h"

#define MAX_VLANS 2
#define FRAGMENT_OFFSET 0x1FFF
#define ECHO 7

struct counters {
	__u64 packets;
	__u64 bytes;
};

struct cursor {
	void *at;
	void *end;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __be32);
	__type(value, struct counters);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} protocols SEC(".maps");

const volatile __u32 debug = 0;
const volatile __u16 blocked_port = 23;
volatile __u16 echo_port = ECHO;
__u64 packets;
__u64 bytes;
__u64 malformed;

char _license[] SEC("license") = "Dual BSD/GPL";

static __noinline void count_source(__be32 source, __u64 length)
{
	struct counters *seen = bpf_map_lookup_elem(&sources, &source);
	if (seen) {
		__sync_fetch_and_add(&seen->packets, 1);
		__sync_fetch_and_add(&seen->bytes, length);
		return;
	}
	struct counters first = {.packets = 1, .bytes = length};
	bpf_map_update_elem(&sources, &source, &first, BPF_ANY);
}

static __always_inline void count_protocol(__u32 protocol)
{
	__u64 *seen = bpf_map_lookup_elem(&protocols, &protocol);
	if (seen)
		*seen += 1;
}

static __always_inline void swap_macs(struct ethhdr *eth)
{
	for (int i = 0; i < 6; i++) {
		__u8 kept = eth->h_dest[i];
		eth->h_dest[i] = eth->h_source[i];
		eth->h_source[i] = kept;
	}
}

/* The Ethernet type after any VLAN tags, in host order; 0 when the packet is too short. */
static __always_inline __u16 parse_eth(struct cursor *cursor)
{
	struct ethhdr *eth = cursor->at;
	if ((void *)(eth + 1) > cursor->end)
		return 0;
	cursor->at = eth + 1;
	__be16 type = eth->h_proto;
	for (int i = 0; i < MAX_VLANS; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		struct vlan_hdr *tag = cursor->at;
		if ((void *)(tag + 1) > cursor->end)
			return 0;
		cursor->at = tag + 1;
		type = tag->h_vlan_encapsulated_proto;
	}
	return bpf_ntohs(type);
}

/* The verdict by ports; `cursor` is at the transport header, which a later fragment does not have. */
static __always_inline int filter_ports(struct cursor *cursor, __u8 protocol)
{
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = cursor->at;
		if ((void *)(tcp + 1) > cursor->end)
			return XDP_ABORTED;
		return bpf_ntohs(tcp->dest) == blocked_port ? XDP_DROP : XDP_PASS;
	}
	if (protocol == IPPROTO_UDP) {
		struct udphdr *udp = cursor->at;
		if ((void *)(udp + 1) > cursor->end)
			return XDP_ABORTED;
		if (bpf_ntohs(udp->dest) == blocked_port)
			return XDP_DROP;
		if (bpf_ntohs(udp->dest) != echo_port)
			return XDP_PASS;
		__be16 kept = udp->dest;
		udp->dest = udp->source;
		udp->source = kept;
		return XDP_TX;
	}
	return XDP_PASS;
}

static __always_inline int filter_ipv4(struct cursor *cursor, __u64 length)
{
	struct iphdr *ip = cursor->at;
	if ((void *)(ip + 1) > cursor->end || ip->ihl < 5)
		return XDP_ABORTED;
	count_source(ip->saddr, length);
	count_protocol(ip->protocol);
	if (ip->frag_off & bpf_htons(FRAGMENT_OFFSET))
		return XDP_PASS;
	cursor->at = (void *)ip + ip->ihl * 4;
	int verdict = filter_ports(cursor, ip->protocol);
	if (verdict == XDP_TX) {
		__be32 kept = ip->daddr;
		ip->daddr = ip->saddr;
		ip->saddr = kept;
	}
	return verdict;
}

static __always_inline int filter_ipv6(struct cursor *cursor)
{
	struct ipv6hdr *ip = cursor->at;
	if ((void *)(ip + 1) > cursor->end)
		return XDP_ABORTED;
	count_protocol(ip->nexthdr);
	cursor->at = ip + 1;
	int verdict = filter_ports(cursor, ip->nexthdr);
	if (verdict == XDP_TX) {
		for (int i = 0; i < 4; i++) {
			__be32 kept = ip->daddr[i];
			ip->daddr[i] = ip->saddr[i];
			ip->saddr[i] = kept;
		}
	}
	return verdict;
}

SEC("xdp")
int xdp_stats(struct xdp_md *ctx)
{
	void *start = (void *)(long)ctx->data;
	struct cursor cursor = {.at = start, .end = (void *)(long)ctx->data_end};
	__u64 length = cursor.end - start;
	int verdict = XDP_PASS;

	__sync_fetch_and_add(&packets, 1);
	__sync_fetch_and_add(&bytes, length);
	__u16 type = parse_eth(&cursor);
	if (type == 0)
		verdict = XDP_ABORTED;
	else if (type == ETH_P_IP)
		verdict = filter_ipv4(&cursor, length);
	else if (type == ETH_P_IPV6)
		verdict = filter_ipv6(&cursor);

	if (verdict == XDP_ABORTED) {
		__sync_fetch_and_add(&malformed, 1);
		verdict = XDP_DROP;
	}
	if (verdict == XDP_TX && start + sizeof(struct ethhdr) <= cursor.end)
		swap_macs(start);
	if (debug)
		bpf_printk("type %x, verdict %d", type, verdict);
	return verdict;
}
