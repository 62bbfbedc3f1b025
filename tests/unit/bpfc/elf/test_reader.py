"""What the reader makes of our own objects, in both byte orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfc.elf.reader import read_object
from ir.diagnostics import DiagnosticError, RejectedError, UnreadableError
from ir.isa import Callee, Wide
from ir.kinds import AttachType, MapFlag, MapType, ProgramType
from ir.object import FunctionInfo, Object, Reference, ReferenceKind

OBJECTS = Path(__file__).parents[3] / "objects"


@pytest.fixture(params=["everything.o", "everything.eb.o"], scope="module")
def everything(request: pytest.FixtureRequest) -> Object:
    """The object with a bit of everything, little- and big-endian."""
    name: str = request.param
    return read_object((OBJECTS / name).read_bytes(), f"some/where/{name}")


@pytest.fixture(scope="module")
def legacy() -> Object:
    """The object whose maps are definition structs."""
    return read_object((OBJECTS / "legacy_maps.o").read_bytes(), "legacy_maps.o")


def test_programs_are_what_their_sections_say(everything: Object) -> None:
    said = {
        name: (program.section, program.type, program.attach_type, program.attach_target, program.autoload)
        for name, program in everything.programs.items()
    }
    assert said == {
        "classify": ("tc", ProgramType.SCHED_CLS, None, "", True),
        "tail": ("tc", ProgramType.SCHED_CLS, None, "", True),
        "externs": (
            "?fentry.s/do_unlinkat",
            ProgramType.TRACING,
            AttachType.TRACE_FENTRY,
            "do_unlinkat",
            False,
        ),
        "core": ("kprobe/wake_up_process", ProgramType.KPROBE, None, "wake_up_process", True),
    }
    assert everything.programs["externs"].is_sleepable
    assert not everything.programs["core"].is_sleepable


def test_the_object_says_its_license_and_version(everything: Object) -> None:
    assert (everything.name, everything.license, everything.kernel_version) == (
        "everything",
        "Dual MIT/GPL",
        0x60102,
    )


def test_subprograms_follow_in_the_order_in_which_calls_meet_them(everything: Object) -> None:
    functions = everything.programs["classify"].functions
    assert [function.name for function in functions] == ["classify", "each", "leaf", "concealed", "shared"]
    assert [function.name for function in everything.programs["tail"].functions] == ["tail", "shared", "leaf"]
    ends = [function.start + function.slots for function in functions]
    assert [0, *ends] == [
        *(function.start for function in functions),
        everything.programs["classify"].starts[-1],
    ]


def test_hidden_and_static_functions_are_not_global(everything: Object) -> None:
    functions = everything.programs["classify"].functions
    assert {function.name for function in functions if function.is_global} == {"classify", "shared"}


def test_functions_have_their_types(everything: Object) -> None:
    assert everything.btf is not None
    for program in everything.programs.values():
        for function in program.functions:
            assert everything.btf.name(function.btf_id) == function.name


def test_calls_and_function_addresses_lead_to_the_functions_they_name(everything: Object) -> None:
    program = everything.programs["classify"]
    start = {function.name: function.start for function in program.functions}
    calls, addresses = [], []
    for slot, insn in zip(program.starts, program.insns, strict=False):
        caller = program.function_at(slot)
        assert caller is not None
        if insn.opcode == 0x85 and insn.src == Callee.SUBPROGRAM.value:
            calls.append((caller.name, slot + 1 + insn.imm))
        if insn.opcode == 0x18 and insn.src == Wide.FUNC.value:
            addresses.append((caller.name, slot + 1 + insn.imm))
            assert program.references[slot] == Reference(ReferenceKind.FUNCTION, "each", start["each"])
    assert set(calls) == {
        ("classify", start["concealed"]),
        ("each", start["leaf"]),
        ("concealed", start["shared"]),
        ("concealed", start["leaf"]),
        ("shared", start["leaf"]),
    }
    assert set(addresses) == {("classify", start["each"])}


def test_instructions_name_the_maps_and_globals_they_use(everything: Object) -> None:
    used = {
        (reference.kind, reference.name, reference.offset)
        for reference in everything.programs["classify"].references.values()
        if reference.kind is not ReferenceKind.FUNCTION
    }
    value, whole = ReferenceKind.MAP_VALUE, ReferenceKind.MAP
    assert used == {
        (whole, "outer", 0),
        (whole, "pinned", 0),
        (whole, "jumps", 0),
        (value, "everythi.bss", 0),
        (value, "everythi.bss", 8),
        (value, "everythi.data", 0),
        (value, "everythi.data", 4),
        (value, "everythi.data", 8),
        (value, "everythi.rodata", 0),
        (value, ".rodata.table", 0),
        (value, ".data.apart", 0),
    }


def test_loads_of_map_values_carry_the_offset_in_their_second_half(everything: Object) -> None:
    program = everything.programs["classify"]
    for slot, insn in zip(program.starts, program.insns, strict=False):
        reference = program.references.get(slot)
        if reference is not None and reference.kind is ReferenceKind.MAP_VALUE:
            assert (insn.src, insn.imm) == (Wide.MAP_VALUE.value, reference.offset << 32)
        if reference is not None and reference.kind is ReferenceKind.MAP:
            assert (insn.src, insn.imm) == (Wide.MAP_FD.value, 0)


def test_declared_maps_are_read_from_their_types(everything: Object) -> None:
    pinned, outer, jumps = (everything.maps[name] for name in ("pinned", "outer", "jumps"))
    assert (pinned.type, pinned.key_size, pinned.value_size, pinned.max_entries, pinned.is_pinned) == (
        MapType.HASH,
        6,
        16,
        64,
        True,
    )
    assert (outer.type, outer.key_size, outer.value_size, outer.max_entries) == (
        MapType.ARRAY_OF_MAPS,
        4,
        4,
        3,
    )
    assert (jumps.type, jumps.key_size, jumps.value_size, jumps.max_entries) == (MapType.PROG_ARRAY, 4, 4, 2)


def test_values_of_maps_are_named_by_slot(everything: Object) -> None:
    assert everything.maps["outer"].slots == ((0, "first_inner"), (2, "second_inner"))
    assert everything.maps["jumps"].slots == ((1, "tail"),)
    assert everything.maps["anonymous_outer"].slots == ()


def test_inner_maps_are_templates_of_their_own(everything: Object) -> None:
    inner = everything.maps["anonymous_outer"].inner
    assert inner is not None
    assert (inner.name, inner.type, inner.key_size, inner.value_size, inner.max_entries, inner.flags) == (
        "anonymous_outer.inner",
        MapType.HASH,
        4,
        4,
        16,
        1,
    )


def test_global_data_is_named_and_flagged_as_libbpf_does(everything: Object) -> None:
    order = "big" if everything.big_endian else "little"
    found = {
        name: (m.section, m.flags, m.is_read_only, m.value_size)
        for name, m in everything.maps.items()
        if m.initial
    }
    seen, read_only = MapFlag.MMAPABLE, MapFlag.MMAPABLE | MapFlag.RDONLY_PROG
    assert found == {
        "everythi.data": (".data", seen, False, 12),
        "everythi.bss": (".bss", seen, False, 32),
        "everythi.rodata": (".rodata", read_only, True, 4),
        ".data.apart": (".data.apart", seen, False, 8),
        ".rodata.table": (".rodata.table", read_only, True, 8),
        "everyth.kconfig": (".kconfig", read_only, True, 21),
    }
    assert everything.maps[".data.apart"].initial == (7).to_bytes(8, order)  # type: ignore[arg-type]  # a str is one of the two
    assert everything.maps["everythi.bss"].initial == bytes(32)


def test_externs_have_their_section_and_place(everything: Object) -> None:
    externs = {extern.name: extern for extern in everything.externs}
    offsets = {name: extern.offset for name, extern in externs.items() if extern.section == ".kconfig"}
    assert offsets == {
        "CONFIG_HZ": 0,
        "CONFIG_XDP_SOCKETS": 4,
        "LINUX_KERNEL_VERSION": 8,
        "CONFIG_BPF_JIT": 12,
        "CONFIG_CC_VERSION_TEXT": 13,
    }
    symbols = [extern for extern in everything.externs if extern.section == ".ksyms"]
    assert [(extern.name, extern.is_weak, extern.is_function) for extern in symbols] == [
        ("bpf_kernel_function", False, True),
        ("bpf_missing", True, False),
        ("bpf_prog_active", False, False),
    ]


def test_kernel_symbols_and_functions_are_referred_to_by_name(everything: Object) -> None:
    references = everything.programs["externs"].references.values()
    found = {(r.kind, r.name, r.is_weak) for r in references if r.kind is not ReferenceKind.MAP_VALUE}
    assert found == {
        (ReferenceKind.KSYM, "bpf_prog_active", False),
        (ReferenceKind.KSYM, "bpf_missing", True),
        (ReferenceKind.KFUNC, "bpf_kernel_function", False),
    }


def test_kconfig_values_come_from_the_configuration() -> None:
    configuration = {
        "CONFIG_HZ": "0x3e8",
        "CONFIG_BPF_JIT": "y",
        "CONFIG_XDP_SOCKETS": "m",
        "CONFIG_CC_VERSION_TEXT": '"a long text"',
        "LINUX_KERNEL_VERSION": "1",
    }
    found = read_object((OBJECTS / "everything.o").read_bytes(), "everything.o", configuration)
    assert found.maps["everyth.kconfig"].initial == b"\xe8\x03\0\0\x02\0\0\0\x01\0\0\0\x01a long \0"
    assert found.warnings == ()


def test_unset_kconfig_reads_as_zero_and_warns_unless_weak(everything: Object) -> None:
    unset = [warning.message for warning in everything.warnings if warning.code == "kconfig-unset"]
    assert unset == [
        "'CONFIG_HZ' is not configured; it reads as 0",
        "'CONFIG_BPF_JIT' is not configured; it reads as 0",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONFIG_HZ", "y"),
        ("CONFIG_HZ", "0x100000000"),
        ("CONFIG_BPF_JIT", "m"),
        ("CONFIG_CC_VERSION_TEXT", "y"),
    ],
)
def test_a_configured_value_of_the_wrong_type_is_refused(name: str, value: str) -> None:
    with pytest.raises(RejectedError, match="bad-kconfig"):
        read_object((OBJECTS / "everything.o").read_bytes(), "everything.o", {name: value})


def test_lines_of_code_are_found_by_slot(everything: Object) -> None:
    program = everything.programs["classify"]
    assert program.location(0).source is not None
    text = {name: program.location(start).source for name, start in _starts(program.functions)}
    assert {name: line.text.strip() for name, line in text.items() if line is not None} == {
        "classify": 'SEC("tc") int classify(struct __sk_buff *skb)',
        "each": "return leaf(*(int *)value) < 0;",
        "leaf": "return x * 3 + configured_inside;",
        "concealed": "__hidden __noinline int concealed(int x)",
        "shared": "return leaf(x + 1) + configured;",
    }


def test_core_relocations_are_kept_by_slot(everything: Object) -> None:
    asked = [
        (relocation.kind.name, relocation.access) for relocation in everything.programs["core"].core.values()
    ]
    assert ("FIELD_BYTE_OFFSET", "0:1:0:3") in asked
    assert {kind for kind, _ in asked} == {
        "FIELD_BYTE_OFFSET",
        "FIELD_EXISTS",
        "FIELD_LSHIFT_U64",
        "TYPE_SIZE",
        "ENUMVAL_VALUE",
    }


def test_reading_twice_gives_equal_objects() -> None:
    data = (OBJECTS / "everything.o").read_bytes()
    assert read_object(data, "everything.o") == read_object(data, "everything.o")


def test_legacy_maps_are_one_struct_per_symbol(legacy: Object) -> None:
    counters, hosts = legacy.maps["counters"], legacy.maps["hosts"]
    assert (counters.type, counters.key_size, counters.value_size, counters.max_entries) == (
        MapType.PERCPU_ARRAY,
        4,
        8,
        2,
    )
    assert (hosts.flags, hosts.is_pinned, counters.is_pinned) == (1, True, False)


def test_old_section_names_are_understood_with_a_warning(legacy: Object) -> None:
    assert legacy.programs["count"].type is ProgramType.XDP
    assert [warning.code for warning in legacy.warnings] == ["legacy-section-name"]


@pytest.mark.parametrize("size", [0, 3, 16, 63])
def test_what_is_too_short_for_a_header_is_unreadable(size: int) -> None:
    with pytest.raises(UnreadableError):
        read_object((OBJECTS / "everything.o").read_bytes()[:size], "short.o")


def test_an_object_for_another_machine_is_unreadable() -> None:
    data = bytearray((OBJECTS / "everything.o").read_bytes())
    data[18] = 62  # e_machine: EM_X86_64
    with pytest.raises(UnreadableError, match="EM_X86_64"):
        read_object(bytes(data), "x86.o")


def test_every_problem_is_reported_at_once() -> None:
    data = bytearray((OBJECTS / "everything.o").read_bytes())
    places = [place for place in range(0, len(data), 8) if data[place : place + 8] == b"\x95" + bytes(7)]
    for place in places:
        data[place] = 0xFF
    with pytest.raises(RejectedError) as caught:
        read_object(bytes(data), "everything.o")
    assert len(caught.value.diagnostics) == len(places)
    assert {problem.code for problem in caught.value.diagnostics} == {"unknown-opcode"}


def test_errors_name_the_section_and_function() -> None:
    data = bytearray((OBJECTS / "legacy_maps.o").read_bytes())
    place = data.index(b"\x95" + bytes(7))
    data[place] = 0xFF
    with pytest.raises(
        DiagnosticError, match=r"legacy_maps.o: xdp_legacy: count: insn 20: error: opcode 0xff"
    ):
        read_object(bytes(data), "legacy_maps.o")


def _starts(functions: tuple[FunctionInfo, ...]) -> list[tuple[str, int]]:
    return [(function.name, function.start) for function in functions]
