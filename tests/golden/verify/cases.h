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

struct bpf_spin_lock { __u32 val; };
struct bpf_list_head { __u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { __u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_rb_root { __u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_rb_node { __u64 opaque[4]; } __attribute__((aligned(8)));
struct bpf_refcount { __u32 opaque[1]; } __attribute__((aligned(4)));

struct bpf_res_spin_lock { __u32 val; } __attribute__((aligned(4)));
struct bpf_timer { __u64 opaque[2]; } __attribute__((aligned(8)));
struct task_struct;
struct bpf_wq { __u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_iter_num { __u64 opaque; } __attribute__((aligned(8)));
struct bpf_iter_task { __u64 opaque[3]; } __attribute__((aligned(8)));

#define __contains(type, node) __attribute__((btf_decl_tag("contains:" #type ":" #node)))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#define private(name) SEC(".data." #name) __attribute__((aligned(8)))
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - __builtin_offsetof(type, member)))
#define type_id(type) __builtin_btf_type_id(*(type *)0, 0)

static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static long (*const bpf_copy_from_user)(void *to, __u32 size, const void *from) = (void *)148;
static long (*const bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)113;
static long (*const bpf_timer_init)(struct bpf_timer *timer, void *map, __u64 flags) = (void *)169;
static long (*const bpf_timer_set_callback)(struct bpf_timer *timer, void *done) = (void *)170;
static long (*const bpf_timer_start)(struct bpf_timer *timer, __u64 ns, __u64 flags) = (void *)171;
static long (*const bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static long (*const bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;
static void *(*const bpf_kptr_xchg)(void *place, void *pointer) = (void *)194;
static void *(*const bpf_this_cpu_ptr)(const void *pointer) = (void *)154;

/* The legacy load of a byte of the packet. */
#define load_byte(skb, offset) \
	({ \
		__u64 loaded; \
		asm volatile("r6 = %1; r0 = *(u8 *)skb[" #offset "]; %0 = r0" \
			     : "=r"(loaded) : "r"(skb) : "r0", "r1", "r2", "r3", "r4", "r5", "r6"); \
		loaded; \
	})

#endif
