/* Open-coded iterators: how long what they give lasts, and which loops they end.
 *
 * A program is proved safe unless it says REFUSED(code); LINUX(accepts) or LINUX(rejects) where Linux does not say the same.
 */
#include "cases.h"

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

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

char _license[] SEC("license") = "GPL";
