/* A host for programs compiled ahead of time: runs one over the packets of a pcap file, says what it answered and what is
 * in its maps. docs/aot.md builds it.
 *
 *   cc -DOBJECT=xdp_stats -Ibpfc/include docs/aot_host.c xdp_stats.aot.o -o stats && ./stats xdp_stats sample.pcap
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bpfc_aot.h"

BPFC_OBJECT(OBJECT);

enum { ROOM = 256, MOST = 65536, ANSWERS = 16 };

static struct bpfc_machine machine;
static uint8_t buffer[ROOM + MOST + ROOM];

/* bpf_trace_printk, which is called only by programs compiled with debugging on: the text as it stands, a line each. */
BPFC_HELPER(6)
{
	(void)run, (void)r3, (void)r4, (void)r5;
	return (uint64_t)fprintf(stderr, "%.*s\n", (int)r2, (const char *)(uintptr_t)r1);
}

static uint32_t little(const uint8_t *bytes)
{
	return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int run_file(const struct bpfc_program *program, const char *path, uint64_t answers[ANSWERS])
{
	uint8_t header[24];
	FILE *file = fopen(path, "rb");
	if (!file || fread(header, sizeof(header), 1, file) != 1 || little(header) != 0xa1b2c3d4) {
		fprintf(stderr, "%s is no little-endian pcap file\n", path);
		return 1;
	}
	for (uint8_t record[16]; fread(record, sizeof(record), 1, file) == 1;) {
		uint32_t size = little(record + 8);
		uint8_t *packet = buffer + ROOM;
		if (size > MOST || fread(packet, 1, size, file) != size)
			break;
		uint32_t answer = bpfc_run_in_room(&machine, program, packet, size, ROOM, ROOM);
		if (machine.run.trap_code) {
			fprintf(stderr, "trap %u at insn %u\n", machine.run.trap_code, machine.run.trap_insn);
			return 1;
		}
		answers[answer < ANSWERS ? answer : 0]++;
	}
	fclose(file);
	return 0;
}

/* Arrays are shown by the sum of their bytes: what the numbers mean is for a host that knows the program. */
static void show_map(const struct bpfc_map *map)
{
	uint64_t sum = 0;
	for (uint32_t key = 0; map->key_size == 4 && key < map->max_entries; key++) {
		const uint8_t *value = bpfc_value(map, &key, 0);
		for (uint32_t i = 0; value && i < map->value_size; i++)
			sum += value[i];
	}
	printf("map %s: type %u, bytes add up to %" PRIu64 "\n", map->name, map->type, sum);
}

int main(int count, char **arguments)
{
	const struct bpfc_object *object = &BPFC_NAME(OBJECT);
	uint64_t answers[ANSWERS] = {0};
	if (count != 3 || bpfc_start(object, 1))
		return 2;
	const struct bpfc_program *program = bpfc_find_program(object, arguments[1]);
	if (!program)
		return 2;
	bpfc_prepare(&machine, object, 0);
	if (run_file(program, arguments[2], answers))
		return 1;
	for (uint32_t answer = 0; answer < ANSWERS; answer++)
		if (answers[answer])
			printf("%s answered %u: %" PRIu64 "\n", program->name, answer, answers[answer]);
	for (uint32_t i = 0; i < object->map_count; i++)
		show_map(&object->maps[i]);
	return 0;
}
