/* Programs that run around functions; what they saw is in global variables. */
#include "bpf.h"

static long (*const bpf_get_func_arg)(void *ctx, __u32 n, __u64 *value) = (void *)183;
static long (*const bpf_get_func_ret)(void *ctx, __u64 *value) = (void *)184;
static long (*const bpf_get_func_arg_cnt)(void *ctx) = (void *)185;
static __u64 (*const bpf_get_func_ip)(void *ctx) = (void *)173;
static __u64 (*const bpf_get_attach_cookie)(void *ctx) = (void *)174;

char _license[] SEC("license") = "GPL";

__u64 entries, exits, overrides, order;
__u64 slots[13], result, count, cookie, address, missing, early;
__s64 answer, before;

SEC("fentry/f") int on_entry(__u64 *ctx)
{
	__sync_fetch_and_add(&entries, 1);
	slots[0] = ctx[0];
	slots[1] = ctx[1];
	count = bpf_get_func_arg_cnt(ctx);
	cookie = bpf_get_attach_cookie(ctx);
	address = bpf_get_func_ip(ctx);
	missing = bpf_get_func_arg(ctx, 12, &slots[12]);
	early = bpf_get_func_ret(ctx, &slots[12]);
	return 0;
}

SEC("fexit/f") int on_exit(__u64 *ctx)
{
	__sync_fetch_and_add(&exits, 1);
	slots[0] = ctx[0];
	slots[1] = ctx[1];
	result = ctx[2];
	bpf_get_func_ret(ctx, &slots[12]);
	return 0;
}

SEC("fentry/empty") int empty(__u64 *ctx)
{
	return 0;
}

SEC("fexit/empty") int empty_exit(__u64 *ctx)
{
	return 0;
}

#define SLOT(n) \
	if (have > n) \
		bpf_get_func_arg(ctx, n, &slots[n]);

SEC("fexit/any") int all_slots(__u64 *ctx)
{
	__u64 have = bpf_get_func_arg_cnt(ctx);
	count = have;
	SLOT(0) SLOT(1) SLOT(2) SLOT(3) SLOT(4) SLOT(5)
	SLOT(6) SLOT(7) SLOT(8) SLOT(9) SLOT(10) SLOT(11)
	bpf_get_func_ret(ctx, &result);
	exits++;
	return 0;
}

SEC("fentry/any") int all_at_entry(__u64 *ctx)
{
	__u64 have = bpf_get_func_arg_cnt(ctx);
	count = have;
	SLOT(0) SLOT(1) SLOT(2) SLOT(3) SLOT(4) SLOT(5)
	SLOT(6) SLOT(7) SLOT(8) SLOT(9) SLOT(10) SLOT(11)
	entries++;
	return 0;
}

SEC("fexit/unknown") int unknown_exit(__u64 *ctx)
{
	result = ctx[5];
	exits++;
	return 0;
}

SEC("fentry/any") int entry_a(__u64 *ctx)
{
	order = order * 10 + 1;
	return 0;
}

SEC("fentry/any") int entry_b(__u64 *ctx)
{
	order = order * 10 + 2;
	return 0;
}

SEC("fentry/any") int entry_c(__u64 *ctx)
{
	order = order * 10 + 3;
	return 0;
}

SEC("fexit/any") int exit_a(__u64 *ctx)
{
	order = order * 10 + 4;
	return 0;
}

SEC("fexit/any") int exit_b(__u64 *ctx)
{
	order = order * 10 + 5;
	return 0;
}

SEC("fexit/any") int exit_c(__u64 *ctx)
{
	order = order * 10 + 6;
	return 0;
}

/* modify_return(int, int *): 0 lets the function run, `answer` does not. */
SEC("fmod_ret/modify") int override(__u64 *ctx)
{
	overrides++;
	before = ctx[2];
	order = order * 10 + 2;
	return answer;
}

SEC("fmod_ret/modify") int override_older(__u64 *ctx)
{
	overrides++;
	return 5;
}

SEC("fmod_ret/modify") int override_newer(__u64 *ctx)
{
	overrides++;
	before = ctx[2];
	return 0;
}

SEC("fexit/modify") int after_override(__u64 *ctx)
{
	order = order * 10 + 3;
	result = ctx[2];
	return 0;
}

SEC("fentry/modify") int before_override(__u64 *ctx)
{
	order = order * 10 + 1;
	return 0;
}

SEC("fentry/f") int returns_one(__u64 *ctx)
{
	return ctx[0] == 7;
}

SEC("fentry/f") int reads_beyond(__u64 *ctx)
{
	result = ctx[2];
	return 0;
}

SEC("fentry/f") int writes_slot(__u64 *ctx)
{
	ctx[0] = 1;
	return 0;
}

SEC("fentry/f") int triggers(__u64 *ctx)
{
	entries++;
	bpf_trace_printk("x", 2);
	return 0;
}

SEC("fentry/f") int second_level(__u64 *ctx)
{
	exits++;
	return 0;
}

/* A session: what it saw at entry is there at exit. */
extern __u64 *bpf_session_cookie(void *ctx) __attribute__((section(".ksyms")));
extern _Bool bpf_session_is_return(void *ctx) __attribute__((section(".ksyms")));

__u64 kept, sum, returned;

static __always_inline int session(__u64 *ctx)
{
	__u64 *cookie = bpf_session_cookie(ctx);

	if (!bpf_session_is_return(ctx)) {
		kept += *cookie == 0;
		*cookie = 1000 + ctx[0];
		return 0;
	}
	sum += *cookie;
	returned = ctx[2];
	return 0;
}

SEC("fsession/f") int keeps(__u64 *ctx)
{
	return session(ctx);
}

SEC("fsession/f") int keeps_too(__u64 *ctx)
{
	return session(ctx);
}


struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} per_cpu SEC(".maps");

/* Adds without a lock: a processor's value is nobody else's meanwhile. */
SEC("fentry/any") int counts_by_cpu(__u64 *ctx)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&per_cpu, &key);

	if (value)
		*value += 1;
	return 0;
}
