/* Dynamic pointers, numeric iterators and string functions; each program answers with one number.
 *
 * packet: ethernet 14 | number 4 | a 16 | b 16 | ...
 */
#include "bpf.h"

#define BPF_MAP_TYPE_RINGBUF 27
#define __ksym SEC(".ksyms")

struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));
struct bpf_iter_num {
	__u64 opaque;
} __attribute__((aligned(8)));

static long (*const bpf_dynptr_from_mem)(void *data, __u32 size, __u64 flags, struct bpf_dynptr *ptr) = (void *)197;
static long (*const bpf_ringbuf_reserve_dynptr)(void *ring, __u32 size, __u64 flags, struct bpf_dynptr *ptr) = (void *)198;
static void (*const bpf_ringbuf_submit_dynptr)(struct bpf_dynptr *ptr, __u64 flags) = (void *)199;
static void (*const bpf_ringbuf_discard_dynptr)(struct bpf_dynptr *ptr, __u64 flags) = (void *)200;
static long (*const bpf_dynptr_read)(void *to, __u32 size, const struct bpf_dynptr *from, __u32 offset, __u64 flags) = (void *)201;
static long (*const bpf_dynptr_write)(const struct bpf_dynptr *to, __u32 offset, void *from, __u32 size, __u64 flags) = (void *)202;
static void *(*const bpf_dynptr_data)(const struct bpf_dynptr *ptr, __u32 offset, __u32 size) = (void *)203;

extern int bpf_dynptr_from_xdp(struct xdp_md *xdp, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 size) __ksym;
extern void *bpf_dynptr_slice_rdwr(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 size) __ksym;
extern int bpf_dynptr_adjust(const struct bpf_dynptr *ptr, __u32 start, __u32 end) __ksym;
extern __u32 bpf_dynptr_size(const struct bpf_dynptr *ptr) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern int bpf_strcmp(const char *a, const char *b) __ksym;
extern int bpf_strlen(const char *s) __ksym;
extern int bpf_strchr(const char *s, char c) __ksym;
extern int bpf_strrchr(const char *s, int c) __ksym;
extern int bpf_strspn(const char *s, const char *accept) __ksym;
extern int bpf_strcspn(const char *s, const char *reject) __ksym;
extern int bpf_strstr(const char *a, const char *b) __ksym;

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__uint(value_size, 64);
} memory SEC(".maps");

struct request {
	__u8 ethernet[14];
	__s32 number;
	char a[16], b[16];
} __packed;

SEC("xdp") int local(struct xdp_md *xdp)
{
	__u32 key = 0, word = 0x01020304, back = 0;
	struct bpf_dynptr ptr;
	__u8 *value = bpf_map_lookup_elem(&memory, &key), *place;

	if (!value)
		return -1;
	if (bpf_dynptr_from_mem(value, 64, 0, &ptr))
		return -2;
	if (bpf_dynptr_write(&ptr, 60, &word, 4, 0) || bpf_dynptr_read(&back, 4, &ptr, 60, 0) || back != word)
		return -3;
	if (bpf_dynptr_write(&ptr, 61, &word, 4, 0) != -7 || bpf_dynptr_read(&back, 4, &ptr, 64, 0) != -7)
		return -4;
	place = bpf_dynptr_data(&ptr, 60, 4);
	if (!place || place != value + 60)
		return -5;
	place[0] = 9;
	if (bpf_dynptr_data(&ptr, 61, 4))
		return -6;
	if (bpf_dynptr_adjust(&ptr, 56, 62) || bpf_dynptr_size(&ptr) != 6)
		return -7;
	if (bpf_dynptr_read(&back, 2, &ptr, 4, 0) || (back & 0xff) != 9)
		return -8;
	return 0;
}

SEC("xdp") int packet(struct xdp_md *xdp)
{
	struct bpf_dynptr ptr;
	__u8 buffer[4], *slice;
	__u32 word = 0xffffffff;

	if (bpf_dynptr_from_xdp(xdp, 0, &ptr))
		return -1;
	if (bpf_dynptr_write(&ptr, 0, &word, 4, 0))
		return -2;
	slice = bpf_dynptr_slice_rdwr(&ptr, 4, buffer, 4);
	if (!slice)
		return -3;
	slice[0] = 0xee;
	slice = bpf_dynptr_slice(&ptr, bpf_dynptr_size(&ptr) - 4, buffer, 4);
	if (!slice)
		return -4;
	return slice[3];
}

SEC("xdp") int reserve(struct xdp_md *xdp)
{
	struct bpf_dynptr ptr;
	__u32 word = 77;

	if (bpf_ringbuf_reserve_dynptr(&ring, 8, 0, &ptr)) {
		bpf_ringbuf_discard_dynptr(&ptr, 0);
		return -1;
	}
	bpf_dynptr_write(&ptr, 4, &word, 4, 0);
	bpf_ringbuf_submit_dynptr(&ptr, 0);
	return 0;
}

SEC("xdp") int iterate(struct xdp_md *xdp)
{
	struct request *request = (void *)(long)xdp->data;
	struct bpf_iter_num it;
	int sum = 0, *number;

	if ((void *)(request + 1) > (void *)(long)xdp->data_end)
		return -1;
	if (bpf_iter_num_new(&it, 3, request->number))
		sum = -100;
	while ((number = bpf_iter_num_next(&it)))
		sum += *number;
	bpf_iter_num_destroy(&it);
	return sum;
}

SEC("xdp") int strings(struct xdp_md *xdp)
{
	struct request *request = (void *)(long)xdp->data;
	char a[17] = {}, b[17] = {};

	if ((void *)(request + 1) > (void *)(long)xdp->data_end)
		return -1000;
	__builtin_memcpy(a, request->a, 16);
	__builtin_memcpy(b, request->b, 16);
	switch (request->number) {
	case 0:
		return bpf_strcmp(a, b);
	case 1:
		return bpf_strlen(a);
	case 2:
		return bpf_strchr(a, b[0]);
	case 3:
		return bpf_strrchr(a, b[0]);
	case 4:
		return bpf_strspn(a, b);
	case 5:
		return bpf_strcspn(a, b);
	case 6:
		return bpf_strstr(a, b);
	}
	return -1001;
}

char _license[] SEC("license") = "GPL";
