/* Packet helpers on operands from the packet itself, so that a test can compare each with a kernel's.
 *
 * packet: ethernet 14 | op 1 | size 1 | padding 2 | offset 4 (signed) | a 8 | b 8 | data ...
 */
#include "bpf.h"

static long (*const bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 size, __u64 flags) = (void *)9;
static long (*const bpf_l3_csum_replace)(void *skb, __u32 offset, __u64 from, __u64 to, __u64 size) = (void *)10;
static long (*const bpf_l4_csum_replace)(void *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*const bpf_csum_diff)(void *from, __u32 from_size, void *to, __u32 to_size, __u32 seed) = (void *)28;
static long (*const bpf_xdp_adjust_head)(void *xdp, int delta) = (void *)44;
static long (*const bpf_xdp_adjust_meta)(void *xdp, int delta) = (void *)54;
static long (*const bpf_xdp_adjust_tail)(void *xdp, int delta) = (void *)65;
static long (*const bpf_xdp_get_buff_len)(void *xdp) = (void *)188;
static long (*const bpf_xdp_load_bytes)(void *xdp, __u32 offset, void *to, __u32 size) = (void *)189;
static long (*const bpf_xdp_store_bytes)(void *xdp, __u32 offset, void *from, __u32 size) = (void *)190;

static long (*const bpf_skb_vlan_push)(void *skb, __be16 proto, __u16 tci) = (void *)18;
static long (*const bpf_skb_vlan_pop)(void *skb) = (void *)19;
static long (*const bpf_skb_change_tail)(void *skb, __u32 size, __u64 flags) = (void *)38;
static long (*const bpf_skb_change_head)(void *skb, __u32 room, __u64 flags) = (void *)43;
static long (*const bpf_skb_adjust_room)(void *skb, __s32 difference, __u32 mode, __u64 flags) = (void *)50;
static long (*const bpf_skb_load_bytes_relative)(void *skb, __u32 offset, void *to, __u32 size, __u32 start) = (void *)68;
static long (*const bpf_strtol)(const char *text, __u64 size, __u64 flags, __s64 *result) = (void *)105;
static long (*const bpf_strtoul)(const char *text, __u64 size, __u64 flags, __u64 *result) = (void *)106;

enum op { HEAD, TAIL, META, LOAD, STORE, LENGTH, DIFF, L3, L4, STRTOL, STRTOUL, GROW, ROOM, VLAN, RELATIVE };

struct request {
	__u8 ethernet[14], op, size;
	__u8 padding[2];
	__s32 offset;
	__u64 a, b;
} __packed;

static __always_inline __u32 hash(const __u8 *bytes, int size)
{
	__u32 sum = 2166136261u;

	for (int i = 0; i < size; i++)
		sum = (sum ^ bytes[i]) * 16777619u;
	return sum;
}

SEC("xdp") int on_xdp(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	__u8 buffer[32] = {};
	__u64 a, b;
	__s32 offset;
	__u32 size, op;
	long result;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return -1000;
	op = request->op;
	size = request->size & 31;
	offset = request->offset;
	a = request->a;
	b = request->b;
	switch (op) {
	case HEAD:
		return bpf_xdp_adjust_head(ctx, offset);
	case TAIL:
		return bpf_xdp_adjust_tail(ctx, offset);
	case META:
		result = bpf_xdp_adjust_meta(ctx, offset);
		if (a & 1)
			result = result << 8 | (bpf_xdp_adjust_head(ctx, (int)b) & 0xff);
		return result << 8 | ((ctx->data - ctx->data_meta) & 0xff);
	case LOAD:
		result = bpf_xdp_load_bytes(ctx, offset, buffer, size + 1);
		return result ? result : hash(buffer, 32) & 0x7fffffff;
	case STORE:
		__builtin_memcpy(buffer, &a, 8);
		__builtin_memcpy(buffer + 8, &b, 8);
		return bpf_xdp_store_bytes(ctx, offset, buffer, size + 1);
	case LENGTH:
		return bpf_xdp_get_buff_len(ctx);
	case DIFF:
		return bpf_csum_diff(&a, size & 12 ? 8 : 0, &b, size & 3 ? 8 : 0, offset);
	case STRTOL:
	case STRTOUL:
		__builtin_memcpy(buffer, &a, 8);
		__builtin_memcpy(buffer + 8, &b, 8);
		a = 0x5a5a5a5a5a5a5a5a;
		result = op == STRTOL ? bpf_strtol((char *)buffer, 16, offset, (__s64 *)&a)
				      : bpf_strtoul((char *)buffer, 16, offset, &a);
		return result < 0 ? result : result << 24 | (hash((__u8 *)&a, 8) & 0xffffff);
	}
	return -1001;
}

SEC("tc") int on_tc(struct __sk_buff *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	__u8 buffer[32] = {};
	__u64 a, b;
	__s32 offset;
	__u32 size, op;
	long result;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return -1000;
	op = request->op;
	size = request->size;
	offset = request->offset;
	a = request->a;
	b = request->b;
	switch (op) {
	case LOAD:
		result = bpf_skb_load_bytes(ctx, offset, buffer, (size & 31) + 1);
		return result << 24 | (hash(buffer, 32) & 0xffffff);
	case STORE:
		__builtin_memcpy(buffer, &a, 8);
		__builtin_memcpy(buffer + 8, &b, 8);
		return bpf_skb_store_bytes(ctx, offset, buffer, (size & 31) + 1, a & 3);
	case DIFF:
		return bpf_csum_diff(&a, size & 12 ? 8 : 0, &b, size & 3 ? 8 : 0, offset);
	case L3:
		return bpf_l3_csum_replace(ctx, offset, a, b, size);
	case L4:
		return bpf_l4_csum_replace(ctx, offset, a, b, size);
	case TAIL:
		return bpf_skb_change_tail(ctx, offset, a & 1);
	case GROW:
		return bpf_skb_change_head(ctx, offset, a & 1);
	case ROOM:
		return bpf_skb_adjust_room(ctx, offset, size & 3, a & 1 ? 1 << 9 : 0);
	case RELATIVE:
		result = bpf_skb_load_bytes_relative(ctx, offset, buffer, (size & 31) + 1, size >> 5 & 3);
		return result << 24 | (hash(buffer, 32) & 0xffffff);
	}
	return -1001;
}

SEC("tc") int on_vlan(struct __sk_buff *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	__u32 size, a, result = 0;
	__s32 offset;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return -1000;
	size = request->size;
	offset = request->offset;
	a = request->a;
	for (int i = 0; i < 4; i++)
		if (size & (1 << i))
			result = result << 4 | (bpf_skb_vlan_pop(ctx) & 15);
		else
			result = result << 4 | (bpf_skb_vlan_push(ctx, offset, a + i) & 15);
	return result << 13 | ctx->vlan_present << 12 | (ctx->vlan_tci & 0xfff);
}

char _license[] SEC("license") = "GPL";
