// run_flat of benchmarks/peers/raw.py, around llvmbpf. docs/benchmarks.md says how to build it.
#include <cstdint>
#include <cstdio>
#include <ctime>

#include "llvmbpf.hpp"

static uint32_t random32()
{
	static uint32_t state = 1;
	state ^= state << 13;
	state ^= state >> 17;
	return state ^= state << 5;
}

static double now()
{
	timespec time;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

extern "C" double run_flat(const void *code, size_t size, void *memory, size_t memory_size, uint64_t runs)
{
	bpftime::llvmbpf_vm machine;
	machine.register_external_function(7, "bpf_get_prandom_u32", reinterpret_cast<void *>(random32));
	if (machine.load_code(code, size))
		return -1;
	const auto compiled = machine.compile();
	if (!compiled) {
		fprintf(stderr, "%s\n", machine.get_error_message().c_str());
		return -1;
	}
	const auto run = *compiled;
	run(memory, memory_size);
	const double before = now();
	for (uint64_t i = 0; i < runs; i++)
		run(memory, memory_size);
	return (now() - before) / runs;
}
