/* What the C cases of the verifier need besides bpf.h. */
#ifndef CASES_H
#define CASES_H

#include "../../objects/bpf.h"

#define __ksym SEC(".ksyms")
#define REFUSED(code) __attribute__((btf_decl_tag("refused:" #code)))
#define LINUX(does) __attribute__((btf_decl_tag("linux:" #does)))

#define BPF_MAP_TYPE_PROG_ARRAY 3
#define BPF_MAP_TYPE_RINGBUF 27

static long (*const bpf_tail_call)(void *context, void *programs, __u32 index) = (void *)12;
static void *(*const bpf_ringbuf_reserve)(void *ring, __u64 size, __u64 flags) = (void *)131;
static void (*const bpf_ringbuf_discard)(void *record, __u64 flags) = (void *)133;
static long (*const bpf_loop)(__u32 times, void *function, void *context, __u64 flags) = (void *)181;

/* The legacy load of a byte of the packet. */
#define load_byte(skb, offset) \
	({ \
		__u64 loaded; \
		asm volatile("r6 = %1; r0 = *(u8 *)skb[" #offset "]; %0 = r0" \
			     : "=r"(loaded) : "r"(skb) : "r0", "r1", "r2", "r3", "r4", "r5", "r6"); \
		loaded; \
	})

#endif
