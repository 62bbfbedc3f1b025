/* A tc classifier: marks DNS, gives TCP SYNs a class, shoots what its blocklist names; reads the packet through data/data_end.
 *
 * Maps: blocklist (hash: IPv4 destination -> anything), classes (array: 0 other, 1 dns, 2 syn -> packets).
 */
#include "bpf.h"

#define DNS 53
#define TCP_SYN 0x02
#define MARK_DNS 0x35
#define CLASS_SYN 0x10002

enum class { OTHER, IS_DNS, IS_SYN, CLASSES };

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __be32);
	__type(value, __u32);
} blocklist SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLASSES);
	__type(key, __u32);
	__type(value, __u64);
} classes SEC(".maps");

char _license[] SEC("license") = "Dual BSD/GPL";

static __always_inline void count(enum class class)
{
	__u32 key = class;
	__u64 *seen = bpf_map_lookup_elem(&classes, &key);
	if (seen)
		__sync_fetch_and_add(seen, 1);
}

SEC("tc")
int classify(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = data + sizeof(*eth);

	if ((void *)(ip + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP) || ip->ihl < 5)
		return TC_ACT_OK;
	__be32 destination = ip->daddr;
	if (bpf_map_lookup_elem(&blocklist, &destination))
		return TC_ACT_SHOT;
	void *transport = (void *)ip + ip->ihl * 4;
	if (ip->protocol == IPPROTO_UDP) {
		struct udphdr *udp = transport;
		if ((void *)(udp + 1) <= end && udp->dest == bpf_htons(DNS)) {
			skb->mark = MARK_DNS;
			count(IS_DNS);
			return TC_ACT_OK;
		}
	} else if (ip->protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = transport;
		if ((void *)(tcp + 1) <= end && tcp->flags & TCP_SYN) {
			skb->tc_classid = CLASS_SYN;
			count(IS_SYN);
			return TC_ACT_OK;
		}
	}
	count(OTHER);
	return TC_ACT_OK;
}
