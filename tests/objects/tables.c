/* Calls through tables of functions in read-only data: what can be proved, and what cannot.
 *
 * proved, masked   an index that a comparison, or a mask, keeps inside of the table
 * by_name          a struct of a number and a function, found by its number
 * strided          rows of 40 bytes with two functions each; handed_on: a table that a function gets as an argument
 * optional         a table with holes, tested before the call
 * nested           a function of one table that calls through another
 * deep             functions of 256 bytes of stack each
 * pointers         functions that get the context and a place on the caller's stack; returned: that give one back
 * The others must be refused: too_far, modified, recursive, half, unaligned, from_map, tail_calls, takes_global,
 * too_deep (its worst function needs more stack than is left), unset (a fifth argument that nobody passes).
 */
#include "bpf.h"


typedef __u64 (*operation)(__u64, __u64);

static __noinline __u64 add(__u64 a, __u64 b) { return a + b; }
static __noinline __u64 subtract(__u64 a, __u64 b) { return a - b; }
static __noinline __u64 multiply(__u64 a, __u64 b) { return a * b; }
static __noinline __u64 modulo(__u64 a, __u64 b) { return a % b; }
static const operation table[4] = { add, subtract, multiply, modulo };

SEC("xdp") int proved(struct xdp_md *ctx)
{
	__u32 i = ctx->ingress_ifindex;

	if (i > 3)
		return 99;
	return table[i](ctx->rx_queue_index, 5);
}

SEC("xdp") int masked(struct xdp_md *ctx)
{
	return table[ctx->ingress_ifindex & 3](ctx->rx_queue_index, 5);
}

struct row {
	__u32 number;
	operation run;
};
static const struct row rows[] = { { 7, add }, { 9, multiply }, { 11, modulo } };

SEC("xdp") int by_name(struct xdp_md *ctx)
{
	__u32 wanted = ctx->ingress_ifindex;

	for (int i = 0; i < 3; i++) {
		const volatile struct row *row = &rows[i];

		if (row->number == wanted)
			return row->run(ctx->rx_queue_index, 5);
	}
	return 99;
}

static const operation holes[4] = { add, 0, multiply, 0 };

SEC("xdp") int optional(struct xdp_md *ctx)
{
	operation run = holes[ctx->ingress_ifindex & 3];

	return run ? run(ctx->rx_queue_index, 5) : 99;
}

static __noinline __u64 once(__u64 a, __u64 b) { return table[a & 3](a, b); }
static __noinline __u64 twice(__u64 a, __u64 b) { return 2 * table[b & 3](a, b); }
static const operation outer[2] = { once, twice };

SEC("xdp") int nested(struct xdp_md *ctx)
{
	return outer[ctx->ingress_ifindex & 1](ctx->rx_queue_index, 5);
}

#define USE_STACK(bytes_) asm volatile("*(u64 *)(r10 - %0) = r1" : : "i"(bytes_))
#define DEEP(name_, bytes_) \
	static __noinline __u64 name_(__u64 a, __u64 b) \
	{ \
		USE_STACK(bytes_); \
		return a + b + (bytes_); \
	}
DEEP(shallow, 16)
DEEP(half_deep, 256)
DEEP(very_deep, 264)
static const operation fitting[2] = { shallow, half_deep };
static const operation unfitting[2] = { shallow, very_deep };

SEC("xdp") int deep(struct xdp_md *ctx)
{
	USE_STACK(256);
	return fitting[ctx->ingress_ifindex & 1](ctx->rx_queue_index, 1);
}

SEC("xdp") int too_deep(struct xdp_md *ctx)
{
	USE_STACK(256);
	return unfitting[ctx->ingress_ifindex & 1](ctx->rx_queue_index, 1);
}

struct wide_row {
	char name[12];
	operation run;
	__u32 cost;
	operation other;
};
static const struct wide_row wide[3] = {
	{ "add", add, 1, multiply }, { "subtract", subtract, 2, modulo }, { "multiply", multiply, 3, add },
};

SEC("xdp") int strided(struct xdp_md *ctx)
{
	__u32 i = ctx->ingress_ifindex;

	if (i >= 3)
		return 99;
	return wide[i].run(ctx->rx_queue_index, 5) * 1000 + wide[i].other(ctx->rx_queue_index, 5);
}

static __noinline __u64 through(const operation *operations, __u32 i, __u64 a)
{
	return operations[i & 3](a, 5);
}

SEC("xdp") int handed_on(struct xdp_md *ctx)
{
	return through(table, ctx->ingress_ifindex, ctx->rx_queue_index);
}

typedef int (*handler)(struct xdp_md *ctx, __u64 *sums);

static __noinline int by_length(struct xdp_md *ctx, __u64 *sums)
{
	sums[0] += 5;
	return ctx->data_end - ctx->data;
}
static __noinline int by_queue(struct xdp_md *ctx, __u64 *sums)
{
	__u8 *data = (void *)(long)ctx->data;

	if ((void *)(data + 1) > (void *)(long)ctx->data_end)
		return -1;
	sums[1] += *data;
	return ctx->rx_queue_index + 1000;
}
static const handler handlers[2] = { by_length, by_queue };

SEC("xdp") int pointers(struct xdp_md *ctx)
{
	__u64 sums[2] = { 10, 20 };
	int result = handlers[ctx->ingress_ifindex & 1](ctx, sums);

	return result * 100 + sums[0] + sums[1];
}

typedef __u64 *(*finder)(__u64 *words);

static __noinline __u64 *first_of(__u64 *words) { return words; }
static __noinline __u64 *second_of(__u64 *words) { return words + 1; }
static const finder finders[2] = { first_of, second_of };

SEC("xdp") int returned(struct xdp_md *ctx)
{
	__u64 words[2] = { 7, 8 };

	return *finders[ctx->ingress_ifindex & 1](words);
}

SEC("xdp") int too_far(struct xdp_md *ctx)
{
	__u32 i = ctx->ingress_ifindex;

	if (i > 4)
		return 99;
	return table[i](ctx->rx_queue_index, 5);
}

SEC("xdp") int modified(struct xdp_md *ctx)
{
	__u64 run = (__u64)table[ctx->ingress_ifindex & 3];

	asm volatile("%0 += 8" : "+r"(run));
	return ((operation)run)(ctx->rx_queue_index, 5);
}

static __noinline __u64 again(__u64 a, __u64 b);
static const operation looping[2] = { add, again };
static __noinline __u64 again(__u64 a, __u64 b) { return a ? looping[b & 1](a - 1, b) : 0; }

SEC("xdp") int recursive(struct xdp_md *ctx)
{
	return looping[ctx->ingress_ifindex & 1](ctx->rx_queue_index, 1);
}

SEC("xdp") int half(struct xdp_md *ctx)
{
	const volatile __u32 *words = (const volatile __u32 *)table;
	__u64 run = words[0] | (__u64)words[1] << 32;

	return ((operation)run)(ctx->rx_queue_index, 5);
}

SEC("xdp") int unaligned(struct xdp_md *ctx)
{
	__u64 run;

	asm volatile("%0 = *(u64 *)(%1 + 4)" : "=r"(run) : "r"(table));
	return ((operation)run)(ctx->rx_queue_index, 5);
}

operation stored = add;

SEC("xdp") int from_map(struct xdp_md *ctx)
{
	return stored(ctx->rx_queue_index, 5);
}

#define BPF_MAP_TYPE_PROG_ARRAY 3

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} programs SEC(".maps");

static long (*const bpf_tail_call)(void *ctx, void *map, __u32 index) = (void *)12;

static __noinline __u64 leaves(__u64 a, __u64 b)
{
	bpf_tail_call((void *)a, &programs, 0);
	return b;
}
static const operation leaving[2] = { add, leaves };

SEC("xdp") int tail_calls(struct xdp_md *ctx)
{
	return leaving[ctx->ingress_ifindex & 1]((__u64)ctx, 5);
}

__noinline __u64 everyones(__u64 a, __u64 b) { return a ^ b; }
static const operation global_one[2] = { add, everyones };

SEC("xdp") int takes_global(struct xdp_md *ctx)
{
	return global_one[ctx->ingress_ifindex & 1](ctx->rx_queue_index, 5);
}

static __noinline __u64 of_five(__u64 a, __u64 b, __u64 c, __u64 d, __u64 e) { return a + b + e; }
static const operation five[2] = { add, (operation)of_five };

SEC("xdp") int unset(struct xdp_md *ctx)
{
	return five[ctx->ingress_ifindex & 1](ctx->rx_queue_index, 5);
}

