/* A socket filter as tcpdump's compiler would write "udp or icmp", with the legacy packet loads, and a cut to 96 bytes. */
#include "bpf.h"

#define SNAP 96
#define ETH_LENGTH 14
#define TYPE_AT 12
#define PROTOCOL_AT (ETH_LENGTH + 9)

unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long offset) asm("llvm.bpf.load.half");

__u64 accepted;

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("socket")
int udp_or_icmp(struct __sk_buff *skb)
{
	if (load_half(skb, TYPE_AT) != ETH_P_IP)
		return 0;
	__u64 protocol = load_byte(skb, PROTOCOL_AT);
	if (protocol != IPPROTO_UDP && protocol != IPPROTO_ICMP)
		return 0;
	__sync_fetch_and_add(&accepted, 1);
	return skb->len < SNAP ? skb->len : SNAP;
}
