/* Ethernet, one VLAN tag, IPv4 with options, TCP or UDP: a class by protocol and port. */
#include "bench.h"

struct eth {
	__u8 destination[6], source[6];
	__u16 type;
};

struct vlan {
	__u16 tag, type;
};

struct ip {
	__u8 version_length, tos;
	__u16 length, id, fragment;
	__u8 ttl, protocol;
	__u16 check;
	__u32 source, destination;
};

struct tcp {
	__u16 source, destination;
	__u32 sequence, acknowledged;
	__u8 offset, flags;
	__u16 window, check, urgent;
};

PROGRAM
{
	void *at = DATA;
	void *end = DATA_END;
	struct eth *eth = at;
	if ((void *)(eth + 1) > end)
		return 1;
	__u16 type = eth->type;
	at = eth + 1;
	if (type == bpf_htons(0x8100)) {
		struct vlan *vlan = at;
		if ((void *)(vlan + 1) > end)
			return 1;
		type = vlan->type;
		at = vlan + 1;
	}
	if (type != bpf_htons(0x0800))
		return 2;
	struct ip *ip = at;
	if ((void *)(ip + 1) > end)
		return 1;
	__u32 length = (ip->version_length & 15) * 4;
	if (length < sizeof(*ip) || ip->fragment & bpf_htons(0x1FFF))
		return 3;
	if (ip->protocol != 6 && ip->protocol != 17)
		return 4;
	struct tcp *tcp = at + length;
	if (ip->protocol == 17) {
		if ((void *)tcp + 8 > end)
			return 1;
		return tcp->destination == bpf_htons(53) ? 5 : 6;
	}
	if ((void *)(tcp + 1) > end)
		return 1;
	if (tcp->destination == bpf_htons(443) || tcp->destination == bpf_htons(80))
		return tcp->flags & 2 ? 7 : 8;
	if ((ip->destination ^ bpf_htonl(0xC0000200)) & bpf_htonl(0xFFFFFF00))
		return 9;
	return 10 + (tcp->flags & 7);
}
