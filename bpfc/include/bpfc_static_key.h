/* Static keys: branches that cost a nop until somebody flips them, live.
 *
 *	DEFINE_STATIC_KEY(debug);
 *	...
 *	if (bpf_static_branch_unlikely(&debug))
 *		bpf_printk("seen");
 *
 * A key starts off. bpfc switches it: rt.static_keys["debug"].enable(), bpfc run --static-key debug=on.
 *
 *	unlikely   nop_or_gotol YES      off: falls through      on: jumps
 *	likely     gotol_or_nop NO       off: jumps              on: falls through
 *
 * For clang 16 and newer, optimizing. The instruction is given as bytes, because no LLVM has its mnemonic. Each branch
 * has an entry in .static_keys: the branch, where it goes, and the key with flag bits (1: likely, 2: the first-named
 * form is off). clang writes the two distances as places in the program's section.
 */
#ifndef BPFC_STATIC_KEY_H
#define BPFC_STATIC_KEY_H

#ifndef __OPTIMIZE__
#error "bpfc_static_key.h: static branches name their key in assembly, for which clang must optimize (-O1 or more)"
#endif

struct bpf_static_key {
	unsigned long long unused; /* what stands here switches nothing */
};

#define DEFINE_STATIC_KEY(name) struct bpf_static_key name __attribute__((section(".data.static_keys"), used))

#define __BPFC_BRANCH(second_byte, flags) \
	"1:\n\t" \
	".byte 0x06, " second_byte ", 0, 0\n\t" \
	".long (%l[target] - 1b - 8) / 8\n\t" \
	".pushsection .static_keys, \"aw\"\n\t" \
	".balign 8\n\t" \
	".long 1b - .\n\t" \
	".long %l[target] - .\n\t" \
	".quad %c0 + " flags " - .\n\t" \
	".popsection"

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define __BPFC_NOP_OR_GOTOL "0x30"
#define __BPFC_GOTOL_OR_NOP "0x10"
#else
#define __BPFC_NOP_OR_GOTOL "0x03"
#define __BPFC_GOTOL_OR_NOP "0x01"
#endif

static inline __attribute__((always_inline)) _Bool bpf_static_branch_unlikely(const struct bpf_static_key *key)
{
	asm goto(__BPFC_BRANCH(__BPFC_NOP_OR_GOTOL, "2") : : "i"(key) : : target);
	return 0;
target:
	return 1;
}

static inline __attribute__((always_inline)) _Bool bpf_static_branch_likely(const struct bpf_static_key *key)
{
	asm goto(__BPFC_BRANCH(__BPFC_GOTOL_OR_NOP, "3") : : "i"(key) : : target);
	return 1;
target:
	return 0;
}

#endif
