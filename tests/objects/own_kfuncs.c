/* Kernel functions that nobody has heard of: whoever runs the object says what they do. */
#include "bpf.h"

extern long mix(__u64 first, __u32 second, __u64 third) SEC(".ksyms");
extern void note(__u64 what) SEC(".ksyms");

SEC("tc") int mixed(struct __sk_buff *skb)
{
	return mix(skb->len, skb->mark, 0x100000002ull);
}

SEC("tc") int noted(struct __sk_buff *skb)
{
	note(skb->mark);
	note(skb->mark + 1ull);
	return 5;
}

char _license[] SEC("license") = "GPL";
