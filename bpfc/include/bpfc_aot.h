/* The C side of programs that bpfc compiled ahead of time: `bpfc compile OBJ --arch ... --emit obj|so`.
 *
 *   BPFC_OBJECT(xdp_stats);                              the object file xdp_stats.o
 *   bpfc_start(&BPFC_NAME(xdp_stats), 0);                fills its maps
 *   const struct bpfc_program *p = bpfc_find_program(&BPFC_NAME(xdp_stats), "xdp_stats");
 *   static struct bpfc_machine machine;                  one for each thread that runs programs
 *   bpfc_prepare(&machine, &BPFC_NAME(xdp_stats), 0);
 *   uint64_t r0 = bpfc_run_packet(&machine, p, data, size);
 *
 * Helpers that have no native form are functions of the host program, BPFC_HELPER(6) { ... }; who links in one that is
 * missing is told its name. Everything here is inline; nothing of bpfc is needed at run time.
 */
#ifndef BPFC_AOT_H
#define BPFC_AOT_H

#include <stdint.h>
#include <string.h>

#define BPFC_AOT_VERSION 2
#define BPFC_STACK_SIZE 65536
#define BPFC_TAIL_CALLS 33
#define BPFC_FRAMES 8
#define BPFC_FUEL (1ull << 30) /* jumps back in loops that nothing bounds */
#define BPFC_MAX_SEGMENTS 64
#define BPFC_CONTEXT_SIZE 4096

/* Addresses have 64 bits for programs everywhere: pointers that they read, and what they are called with. */
#if UINTPTR_MAX > 0xffffffffu
#define BPFC_POINTER(type, name) type *name
typedef void *bpfc_argument;
#define BPFC_ARGUMENT(pointer) ((void *)(pointer))
#else
#define BPFC_POINTER(type, name)         \
	union {                          \
		type *name;              \
		uint64_t name##_address; \
	}
typedef uint64_t bpfc_argument;
#define BPFC_ARGUMENT(pointer) ((uint64_t)(uintptr_t)(pointer))
#endif

/* Why a run ended early: bpfc_run.trap_code. */
enum bpfc_trap {
	BPFC_TRAP_NONE = 0,
	BPFC_TRAP_MEMORY = 1, /* an access outside of what the program may touch */
	BPFC_TRAP_FUEL = 2,   /* too many jumps back */
	BPFC_TRAP_CALL = 3,   /* a call of something that is no function */
	BPFC_TRAP_DEPTH = 4,  /* calls nested too deep */
	BPFC_TRAP_HELPER = 5, /* a helper says so */
};

/* Memory that pointers of unknown origin may reach. */
struct bpfc_segment {
	uint64_t start, end, flags; /* flags 1: writable; and the address of the map whose values are there, if so */
};

/* The state of one run. Programs and helpers get its address first. */
struct bpfc_run {
	uint64_t fuel;
	uint32_t trap_code, trap_insn; /* why a run ended early, and the slot of the instruction */
	uint32_t cpu;                  /* whose values of per-cpu maps it sees: no two runs at a time the same */
	uint32_t tail_calls;
	uint64_t random;
	BPFC_POINTER(struct bpfc_segment, segments);
	uint64_t segment_count;
	uint64_t depth;
	uint64_t insns;
	struct {
		uint32_t kind, index;
		uint64_t flags, map, reserved;
	} redirect; /* what a redirect helper noted */
	BPFC_POINTER(void, host); /* the host program's own */
	BPFC_POINTER(uint8_t, stack);
	uint64_t cookie;
	BPFC_POINTER(void, context);
	uint64_t retval;
	uint64_t reserved[15];
};

/* What r1 points at behind its packet pointers: struct xdp_md, struct __sk_buff, ... */
struct bpfc_context {
	uint64_t data, data_end, data_meta, packet_start, packet_end, reserved[3];
	uint8_t fields[BPFC_CONTEXT_SIZE];
};

enum bpfc_context_kind {
	BPFC_RAW = 0,    /* r1 is memory, r2 its size */
	BPFC_PACKET = 1, /* a context with packet pointers */
	BPFC_PLAIN = 2,  /* a context without */
};

struct bpfc_program {
	const char *name;
	uint64_t (*entry)(struct bpfc_run *run, bpfc_argument context, ...);
	uint64_t (*batch)(struct bpfc_run *run, struct bpfc_context *context, uint8_t *const *packets,
			  const uint32_t *sizes, uint64_t first, uint64_t count, uint32_t *answers, uint64_t fuel);
	uint32_t type; /* enum bpf_prog_type */
	uint32_t kind; /* enum bpfc_context_kind */
	uint32_t context_size;
	int32_t length_offset; /* of the field that holds the packet's size, -1 when there is none */
};

/* A map. Operations are NULL where its type has none; results are 0 or -errno. */
struct bpfc_map {
	const char *name;
	void *block;
	uint32_t type; /* enum bpf_map_type */
	uint32_t key_size, value_size, max_entries, flags, cpus;
	uint64_t values_offset, values_end; /* end 0: none that pointers may reach */
	uint64_t value_stride, cpu_stride, size;
	void *(*locate)(void *block, const void *key); /* the value (of cpu 0), or NULL */
	int64_t (*update)(struct bpfc_run *run, void *block, const void *key, const void *value, uint64_t flags);
	int64_t (*erase)(struct bpfc_run *run, void *block, const void *key);
	int64_t (*push)(struct bpfc_run *run, void *block, const void *value, uint64_t flags);
	int64_t (*pop)(struct bpfc_run *run, void *block, void *value);
	int64_t (*peek)(struct bpfc_run *run, void *block, void *value);
	int64_t (*put)(void *block, uint64_t index, uint64_t handle, uint64_t content);
};

struct bpfc_object {
	uint32_t version, program_count, map_count, cpus;
	const struct bpfc_program *programs;
	const struct bpfc_map *maps;
	void (*init)(uint64_t seed); /* makes every map as new */
};

#define BPFC_PASTE(name) bpfc_object_##name
#define BPFC_NAME(name) BPFC_PASTE(name)
#define BPFC_OBJECT(name) extern const struct bpfc_object BPFC_NAME(name)
#define BPFC_HELPER(id) \
	uint64_t bpfc_helper_##id(struct bpfc_run *run, uint64_t r1, uint64_t r2, uint64_t r3, uint64_t r4, uint64_t r5)

/* One for each thread that runs programs. */
struct bpfc_machine {
	struct bpfc_run run;
	struct bpfc_context context;
	struct bpfc_segment segments[BPFC_MAX_SEGMENTS];
	uint64_t segment_count;
	uint8_t stack[BPFC_STACK_SIZE];
};

/* Fill the object's maps; -1 when it was compiled for another version of this file. */
static inline int bpfc_start(const struct bpfc_object *object, uint64_t seed)
{
	if (object->version != BPFC_AOT_VERSION)
		return -1;
	object->init(seed);
	return 0;
}

static inline const struct bpfc_program *bpfc_find_program(const struct bpfc_object *object, const char *name)
{
	for (uint32_t i = 0; i < object->program_count; i++)
		if (!strcmp(object->programs[i].name, name))
			return &object->programs[i];
	return 0;
}

static inline const struct bpfc_map *bpfc_find_map(const struct bpfc_object *object, const char *name)
{
	for (uint32_t i = 0; i < object->map_count; i++)
		if (!strcmp(object->maps[i].name, name))
			return &object->maps[i];
	return 0;
}

/* The value of a key as `cpu` sees it, or NULL. */
static inline void *bpfc_value(const struct bpfc_map *map, const void *key, uint32_t cpu)
{
	uint8_t *value = map->locate ? (uint8_t *)map->locate(map->block, key) : 0;
	return value ? value + cpu * map->cpu_stride : 0;
}

/* The variables of a section (.data, .bss, .rodata), or an array's values. */
static inline void *bpfc_values(const struct bpfc_map *map)
{
	return (uint8_t *)map->block + map->values_offset;
}

static inline int64_t bpfc_update(struct bpfc_machine *machine, const struct bpfc_map *map, const void *key,
				  const void *value, uint64_t flags)
{
	return map->update ? map->update(&machine->run, map->block, key, value, flags) : -95;
}

static inline int64_t bpfc_erase(struct bpfc_machine *machine, const struct bpfc_map *map, const void *key)
{
	return map->erase ? map->erase(&machine->run, map->block, key) : -95;
}

/* Put a program into a tail-call table; NULL takes it out. */
static inline int64_t bpfc_put_program(const struct bpfc_map *table, uint32_t index, const struct bpfc_program *program)
{
	if (!table->put || index >= table->max_entries)
		return table->put ? -7 : -95;
	return table->put(table->block, index, program ? (uint64_t)(uintptr_t)program->entry : 0, program != 0);
}

/* Make a machine ready to run programs of an object, as `cpu`. Again for another object. */
static inline void bpfc_prepare(struct bpfc_machine *machine, const struct bpfc_object *object, uint32_t cpu)
{
	memset(&machine->run, 0, sizeof(machine->run));
	memset(&machine->context, 0, sizeof(machine->context));
	machine->run.cpu = cpu;
	machine->run.random = 0x9e3779b97f4a7c15ull + cpu;
	machine->segment_count = 2;
	machine->segments[1].start = (uint64_t)(uintptr_t)machine->stack;
	machine->segments[1].end = machine->segments[1].start + BPFC_STACK_SIZE;
	machine->segments[1].flags = 1;
	for (uint32_t i = 0; i < object->map_count && machine->segment_count < BPFC_MAX_SEGMENTS; i++) {
		const struct bpfc_map *map = &object->maps[i];
		struct bpfc_segment *row = &machine->segments[machine->segment_count];
		if (!map->values_end)
			continue;
		row->start = (uint64_t)(uintptr_t)map->block + map->values_offset;
		row->end = (uint64_t)(uintptr_t)map->block + map->values_end;
		row->flags = (uint64_t)(uintptr_t)map->block | !(map->flags & 1u << 7); /* BPF_F_RDONLY_PROG */
		machine->segment_count++;
	}
}

/* Before a run over memory at [start, start + size). */
static inline void bpfc_arm(struct bpfc_machine *machine, const void *start, uint64_t size)
{
	struct bpfc_run *run = &machine->run;
	run->fuel = BPFC_FUEL;
	run->trap_code = run->trap_insn = 0;
	run->tail_calls = BPFC_TAIL_CALLS;
	run->depth = BPFC_FRAMES;
	run->retval = 0;
	memset(&run->redirect, 0, sizeof(run->redirect));
	run->stack = machine->stack + BPFC_STACK_SIZE;
	run->segments = machine->segments;
	run->segment_count = machine->segment_count;
	machine->segments[0].start = (uint64_t)(uintptr_t)start;
	machine->segments[0].end = machine->segments[0].start + size;
	machine->segments[0].flags = 1;
}

/* Run over a packet that has `head` bytes free before it and `tail` behind: r0, and machine->run.trap_code. Fields of the
 * context other than the packet's are as machine->context.fields has them.
 */
static inline uint64_t bpfc_run_in_room(struct bpfc_machine *machine, const struct bpfc_program *program, uint8_t *packet,
					uint32_t size, uint32_t head, uint32_t tail)
{
	struct bpfc_context *context = &machine->context;
	bpfc_arm(machine, packet, size);
	if (program->kind == BPFC_RAW)
		return program->entry(&machine->run, BPFC_ARGUMENT(packet), (uint64_t)size);
	if (program->kind == BPFC_PACKET) {
		context->data = context->data_meta = (uint64_t)(uintptr_t)packet;
		context->data_end = context->data + size;
		context->packet_start = context->data - head;
		context->packet_end = context->data_end + tail;
		if (program->length_offset >= 0)
			memcpy(context->fields + program->length_offset, &size, sizeof(size));
	}
	return program->entry(&machine->run, BPFC_ARGUMENT(context));
}

static inline uint64_t bpfc_run_packet(struct bpfc_machine *machine, const struct bpfc_program *program, uint8_t *packet,
				       uint32_t size)
{
	return bpfc_run_in_room(machine, program, packet, size, 0, 0);
}

/* Run over many packets; 32 bits of r0 for each in `answers`. How many were done: fewer than `count` after a trap. */
static inline uint64_t bpfc_run_batch(struct bpfc_machine *machine, const struct bpfc_program *program,
				      uint8_t *const *packets, const uint32_t *sizes, uint64_t count, uint32_t *answers)
{
	bpfc_arm(machine, 0, 0);
	return program->batch(&machine->run, &machine->context, packets, sizes, 0, count, answers, BPFC_FUEL);
}

#endif
