# `make` lists what there is to do. Everything runs in a private .venv, made on first use.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
TIME ?= 30m
SEED ?= 1
CLANG ?= clang
BPF_CPU ?= v3
DEBIAN_OBJECTS := $(or $(BPFC_DEBIAN_OBJECTS),.cache/debian)

BIN := $(VENV)/bin
CORE := $(VENV)/.core
DEV := $(VENV)/.dev
FLOORS := ir backends runtime bpfc
BIG_ENDIAN := everything extended extending globals hooked packet_tracers replacements static_keys switched tables tracers \
	xdp_stats
OBJECTS := $(patsubst %.c,%.o,$(wildcard tests/objects/*.c tests/golden/verify/*.c)) $(BIG_ENDIAN:%=tests/objects/%.eb.o)
MICROS := $(patsubst %.c,%.o,$(filter-out %/native.c,$(wildcard benchmarks/programs/*.c))) \
	$(addprefix benchmarks/programs/random_,1k.o 4k.o 16k.o)

.PHONY: help run demo trace test lint check bless objects bench fuzz maps sprinkle plants clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(CORE) ## compile the sample XDP object and run it over the sample capture
	$(BIN)/bpfc run tests/objects/xdp_stats.o --pcap tests/objects/sample.pcap

demo: $(CORE) ## libxdp's dispatcher from Debian's objects: filters attached, swapped and traced while packets flow
	@find $(DEBIAN_OBJECTS) -name xdp-dispatcher.o 2>/dev/null | grep -q . || PYTHON=$(PYTHON) tools/fetch_objects.sh $(DEBIAN_OBJECTS) \
		|| { echo "make demo: wants the objects of Debian's package libxdp1 in $(DEBIAN_OBJECTS); apt could not fetch it" >&2; exit 1; }
	$(BIN)/python -m tools.demo $(DEBIAN_OBJECTS)

trace: $(CORE) ## count what Python's zlib checks: a BPF program around crc32 of the C library's zlib
	$(BIN)/python -m tools.demo_trace

test: $(DEV) ## run every test
	$(BIN)/python -m pytest -n $(JOBS)

lint: $(DEV) ## style, types and floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict $(FLOORS) benchmarks tools
	$(BIN)/lint-imports --no-logo

check: lint test ## what must be clean before a commit: lint, then test

bless: $(DEV) ## rewrite the golden files with what the code says now; read the diff
	$(BIN)/python -m pytest tests/golden --bless

objects: ## recompile the BPF objects of tests and benchmarks with clang (CLANG=clang-19 picks another)
	@command -v $(CLANG) >/dev/null || { echo "make objects: '$(CLANG)' not found; install clang or set CLANG=" >&2; exit 1; }
	$(MAKE) --always-make $(OBJECTS) $(MICROS)

%.o: %.c
	$(CLANG) -target bpf -mcpu=$(BPF_CPU) -O2 -g -Wall -I bpfc/include -ffile-compilation-dir=. -c $< -o $@

%.eb.o: %.c
	$(CLANG) -target bpfeb -mcpu=$(BPF_CPU) -O2 -g -Wall -I bpfc/include -ffile-compilation-dir=. -c $< -o $@

benchmarks/programs/random_%.o:
	$(PYTHON) -m benchmarks.generate .cache/generated
	$(CLANG) -target bpf -mcpu=$(BPF_CPU) -O2 -I benchmarks/programs -c .cache/generated/random_$*.c -o $@

bench: $(DEV) ## measure, as ratios within one run; JSON and a page with charts in .cache/bench, beside the run before
	$(BIN)/python -m benchmarks --out .cache/bench

fuzz: $(DEV) ## run the property tests for long, then a campaign over all oracles (TIME=30m)
	$(BIN)/python -m pytest tests/property -n $(JOBS) --hypothesis-profile=fuzz
	$(BIN)/bpfc fuzz all -j $(JOBS) --time $(TIME) --dir .cache/fuzz-$$(date +%s)

sprinkle: $(DEV) ## every test with static branches to cold code in whatever it compiles or verifies (SEED=1)
	BPFC_SPRINKLE=$(SEED) $(BIN)/python -m pytest -n $(JOBS)

maps: $(DEV) ## a million operations of each type of map: as in the kernel, from programs and the host; in order under threads
	BPFC_MAP_OPERATIONS=1000000 $(BIN)/python -m pytest -q tests/property/test_map_programs.py tests/property/test_map_views.py \
		tests/property/test_map_histories.py

plants: $(DEV) ## plant every bug that campaigns must find, and look for it; then by campaigns on a cluster of two workers
	BPFC_PLANTS=all $(BIN)/python -m pytest -n $(JOBS) --durations=0 --durations-min=1 tests/unit/bpfc/testing/test_plants.py
	BPFC_PLANTS=all $(BIN)/python -m pytest --durations=0 --durations-min=1 tests/unit/bpfc/testing/test_cluster.py

clean: ## remove everything that git does not keep, the .venv included
	rm -rf .venv build dist *.egg-info .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A python without ensurepip (Debian splits it off) makes a venv without pip; then the outer pip fills it.
pip_install = if [ -x $(BIN)/pip ]; then $(BIN)/pip install -q $(1); else $(PYTHON) -m pip --python $(BIN)/python install -q $(1); fi

$(CORE): pyproject.toml tools/wheel_backend.py
	$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	$(call pip_install,-e .)
	touch $@

$(DEV): $(CORE)
	$(call pip_install,-e '.[dev]')
	touch $@
