// run_flat of benchmarks/peers/raw.py, around uBPF's JIT. docs/benchmarks.md says how to build it.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <ubpf.h>

static uint64_t random32(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	static uint32_t state = 1;
	(void)a, (void)b, (void)c, (void)d, (void)e;
	state ^= state << 13;
	state ^= state >> 17;
	return state ^= state << 5;
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static double refuse(const char *why)
{
	fprintf(stderr, "%s\n", why ? why : "no reason given");
	return -1;
}

double run_flat(const void *code, size_t size, void *memory, size_t memory_size, uint64_t runs)
{
	char *why = NULL;
	struct ubpf_vm *machine = ubpf_create();
	if (!machine)
		return refuse("no memory");
	ubpf_register(machine, 7, "bpf_get_prandom_u32", as_external_function_t(random32));
	if (ubpf_load(machine, code, size, &why) < 0)
		return refuse(why);
	const ubpf_jit_fn run = ubpf_compile(machine, &why);
	if (!run)
		return refuse(why);
	run(memory, memory_size);
	const double before = now();
	for (uint64_t i = 0; i < runs; i++)
		run(memory, memory_size);
	const double took = (now() - before) / runs;
	ubpf_destroy(machine);
	return took;
}
