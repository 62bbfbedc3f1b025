/* Iterators and callbacks: how long what they give lasts, and which loops iterators end.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

static long (*const bpf_for_each_map_elem)(void *map, void *each, void *context, __u64 flags) = (void *)164;
static void *(*const bpf_dynptr_data)(const void *dynptr, __u32 offset, __u32 size) = (void *)203;
static long (*const bpf_user_ringbuf_drain)(void *map, void *each, void *context, __u64 flags) = (void *)209;

struct {
	__uint(type, 31); /* BPF_MAP_TYPE_USER_RINGBUF */
	__uint(max_entries, 4096);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, int);
	__type(value, long);
} values SEC(".maps");

#define hide(x) asm volatile("" : "+r"(x))

SEC("tc") int an_element(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	int *element, n = 0;
	bpf_iter_num_new(&it, 0, 3);
	element = bpf_iter_num_next(&it);
	if (element)
		n = *element;
	bpf_iter_num_destroy(&it);
	return n;
}

SEC("tc") REFUSED(not-a-pointer) int an_element_after_its_iterator(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	int *element;
	bpf_iter_num_new(&it, 0, 3);
	element = bpf_iter_num_next(&it);
	bpf_iter_num_destroy(&it);
	return element ? *element : 0;
}

SEC("tc") int left_when_there_are_no_more(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	unsigned long n = 0;
	bpf_iter_num_new(&it, 0, 1000000);
	while (bpf_iter_num_next(&it))
		n += skb->len;
	bpf_iter_num_destroy(&it);
	return n;
}

SEC("tc") int left_when_there_are_no_more_or_before(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	unsigned long n = 0;
	bpf_iter_num_new(&it, 0, 1000000);
	while (n < 10 && bpf_iter_num_next(&it)) {
		n += skb->len;
		hide(n);
	}
	bpf_iter_num_destroy(&it);
	return n;
}

SEC("tc") REFUSED(unbounded-loop) int not_left_when_there_are_no_more(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	unsigned long n = 0;
	bpf_iter_num_new(&it, 0, 3);
	while (n < 10) {
		if (bpf_iter_num_next(&it))
			n += skb->len;
		hide(n);
	}
	bpf_iter_num_destroy(&it);
	return n;
}

SEC("tc") REFUSED(unbounded-loop) LINUX(accepts) int started_over_on_each_trip(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	for (;;) {
		bpf_iter_num_new(&it, 0, 3);
		if (!bpf_iter_num_next(&it))
			break;
		bpf_iter_num_destroy(&it);
	}
	bpf_iter_num_destroy(&it);
	return 0;
}

SEC("tc") int another_started_on_each_trip(struct __sk_buff *skb)
{
	struct bpf_iter_num outer, inner;
	int n = 0;
	bpf_iter_num_new(&outer, 0, 1000);
	while (bpf_iter_num_next(&outer)) {
		bpf_iter_num_new(&inner, 0, 1000);
		while (bpf_iter_num_next(&inner))
			n++;
		bpf_iter_num_destroy(&inner);
	}
	bpf_iter_num_destroy(&outer);
	return n;
}

static __noinline int start_over(struct bpf_iter_num *it)
{
	bpf_iter_num_destroy(it);
	return bpf_iter_num_new(it, 0, 3);
}

SEC("tc") REFUSED(unbounded-loop) int started_over_by_a_function(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	bpf_iter_num_new(&it, 0, 3);
	while (bpf_iter_num_next(&it))
		start_over(&it);
	bpf_iter_num_destroy(&it);
	return 0;
}

static int read_record(void *record, unsigned long *sum)
{
	unsigned long *word = bpf_dynptr_data(record, 0, sizeof(*word));
	if (word)
		*sum += *word;
	return 0;
}

static int keep_record(void *record, void **kept)
{
	*kept = bpf_dynptr_data(record, 0, 8);
	return 0;
}

static int read_key(void *map, int *key, long *value, long *sum)
{
	*sum += *key;
	return 0;
}

static int keep_key(void *map, int *key, long *value, void **kept)
{
	*kept = key;
	return 0;
}

static int keep_value(void *map, int *key, long *value, void **kept)
{
	*kept = value;
	return 0;
}

SEC("tc") int a_record_in_its_callback(struct __sk_buff *skb)
{
	unsigned long sum = 0;
	bpf_user_ringbuf_drain(&records, read_record, &sum, 0);
	return sum;
}

SEC("tc") REFUSED(not-a-pointer) int a_record_after_its_callback(struct __sk_buff *skb)
{
	long *kept = 0;
	bpf_user_ringbuf_drain(&records, keep_record, &kept, 0);
	return kept ? *(volatile long *)kept : 0;
}

SEC("tc") int a_key_in_its_callback(struct __sk_buff *skb)
{
	long sum = 0;
	bpf_for_each_map_elem(&values, read_key, &sum, 0);
	return sum;
}

SEC("tc") REFUSED(not-a-pointer) LINUX(accepts) int a_key_after_its_callback(struct __sk_buff *skb)
{
	int *kept = 0;
	bpf_for_each_map_elem(&values, keep_key, &kept, 0);
	return kept ? *(volatile int *)kept : 0;
}

SEC("tc") int a_value_after_its_callback(struct __sk_buff *skb)
{
	long *kept = 0;
	bpf_for_each_map_elem(&values, keep_value, &kept, 0);
	return kept ? *(volatile long *)kept : 0;
}

char _license[] SEC("license") = "GPL";
