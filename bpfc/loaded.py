"""A loaded object: parsed and checked, nothing compiled yet."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from errno import EINVAL, ENOENT
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, final

from bpfc.kernel_types import KERNEL_TYPES, running_kernel
from bpfc.options import Options
from ir.diagnostics import Diagnostic, Location, RejectedError, UnreadableError, known_names
from ir.encoding import decode
from ir.functions import discover_functions
from ir.isa import Insn
from ir.kinds import MapType, ProgramType
from ir.map_loads import bind_maps
from ir.object import Map, Object, Program
from ir.self_compares import lower_self_compares
from ir.static_keys import StaticKeyTable, declare, read_static_keys
from runtime.limits import Limits

if TYPE_CHECKING:
    from bpfc.compile import Compiled
    from bpfc.globals import Globals
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram
    from bpfc.static_keys import DeclaredKey
    from bpfc.verification import ObjectReport
    from ir.btf import Btf
    from runtime.maps.gather import Sources
    from runtime.platform import Platform

ELF_MAGIC = b"\x7fELF"
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


@final
class Loaded:
    """What `bpfc.load` gives: an Object, and the way to run it. `source` is the ELF file that it was read from."""

    def __init__(
        self, object: Object, static_keys: StaticKeyTable | None = None, source: bytes = b""
    ) -> None:
        self.object, self.source = object, source
        self.kernel: Btf | None = None
        self.static_keys = static_keys or read_static_keys(object)

    @cached_property
    def keys(self) -> Mapping[str, DeclaredKey]:
        """The static keys; what they are told is how things start that are started afterwards."""
        from bpfc.static_keys import declared_keys  # late: few objects have any

        return declared_keys(self, self.static_keys)

    @property
    def programs(self) -> Mapping[str, Program]:
        """The programs by name."""
        return self.object.programs

    @property
    def maps(self) -> Mapping[str, Map]:
        """The maps by name, global-data sections included."""
        return self.object.maps

    @property
    def globals(self) -> Globals:
        """The global variables of all sections; set ones are the initial values of what is started afterwards."""
        return self._globals(("rodata", "data", "bss", "kconfig"))

    @property
    def rodata(self) -> Globals:
        """The constants: `obj.rodata["debug"] = 1` before the start decides branches when the program is compiled."""
        return self._globals(("rodata",))

    @property
    def data(self) -> Globals:
        """The initialized variables."""
        return self._globals(("data",))

    @property
    def bss(self) -> Globals:
        """The variables that start as zero."""
        return self._globals(("bss",))

    @property
    def kconfig(self) -> Globals:
        """The variables declared __kconfig."""
        return self._globals(("kconfig",))

    def program(self, name: str) -> Program:
        """The program called `name`, or the only one in a section of that name. Raises RejectedError when there is none."""
        found = self.programs.get(name)
        if found is not None:
            return found
        matching = [program for program in self.programs.values() if program.section == name]
        if len(matching) == 1:
            return matching[0]
        known = known_names(self.programs)
        said = f"no program '{name}' (programs: {known})"
        raise RejectedError(
            [Diagnostic("no-such-program", said, Location(file=self.object.name), errno=ENOENT)]
        )

    def resize(self, name: str, max_entries: int | None = None, value_size: int | None = None) -> None:
        """Give map `name` room for `max_entries` of `value_size` bytes, before `start`; None leaves a number as it is.

        Raises RejectedError when there is no such map.
        """
        sizes = {"max_entries": max_entries, "value_size": value_size}
        self._declare(name, **{field: size for field, size in sizes.items() if size is not None})

    def set_inner(self, name: str, inner: Map) -> None:
        """Let the maps that map of maps `name` holds be like `inner`, where the object does not say it.

        Raises RejectedError when there is no such map, or it holds no maps.
        """
        if self._map(name).type not in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS):
            said = f"map '{name}' is no map of maps"
            raise RejectedError(
                [Diagnostic("no-map-of-maps", said, Location(file=self.object.name), errno=EINVAL)]
            )
        self._declare(name, inner=replace(inner, name=f"{name}.inner"))

    def set_type(self, name: str, type: ProgramType) -> None:
        """Say what type of program `name` is, where its section's name does not. Raises RejectedError when there is none."""
        program = replace(self.program(name), type=type)
        self.object = replace(self.object, programs={**self.programs, program.name: program})

    def _declare(self, name: str, **changes: Any) -> None:
        declared = replace(self._map(name), **changes)
        self.object = replace(self.object, maps={**self.maps, name: declared})

    def _map(self, name: str) -> Map:
        found = self.maps.get(name)
        if found is None:
            said = f"no map '{name}' (maps: {known_names(self.maps)})"
            raise RejectedError(
                [Diagnostic("no-such-map", said, Location(file=self.object.name), errno=ENOENT)]
            )
        return found

    def fit(self, types: Source = KERNEL_TYPES) -> None:
        """Fit every program to a kernel's structures (CO-RE): `types` is BTF, raw or in an ELF file; by default this kernel's.

        Where a program asks for something that `types` does not have, compiling it says so if that instruction can be
        reached. Raises UnreadableError for bad BTF, RejectedError for relocations that do not fit.
        """
        from bpfc.elf.types import read_types  # late: only objects with relocations need it
        from ir.core_relocation import relocate

        local = self.object.btf
        if local is None:
            return
        target = running_kernel() if types == KERNEL_TYPES else None
        if target is None:
            data, name = _read(types, "")
            target = read_types(data, name)
        programs = {name: relocate(program, local, target) for name, program in self.programs.items()}
        self.object = replace(self.object, programs=programs)
        self.kernel = target

    def verify(self, name: str | None = None, unprivileged: bool = False) -> ObjectReport:
        """Verify every program, or the one called `name`, against the kernel types of `fit`, else of the running kernel.

        `unprivileged`: by the stricter rules for loaders without CAP_BPF and CAP_PERFMON. Never raises for what a program
        does.
        """
        from bpfc.verification import verify_object  # late: only who asks pays for it

        chosen = self.programs if name is None else {name: self.program(name)}
        return verify_object(self.object, chosen, self.kernel, unprivileged)

    def emit_bpf(self, names: Sequence[str] | None = None, options: Options | None = None) -> bytes:
        """The object with its programs (or those named) optimized as bytecode, for Linux to load: an ELF file.

        Constants are final: what they decide against is left out. Raises RejectedError, UnsupportedError.
        """
        from bpfc.bpf_output import emit_bpf  # late: few write objects

        return emit_bpf(self, "bpfeb" if self.object.big_endian else "bpfel", names, options)

    def start(
        self,
        options: Options | None = None,
        limits: Limits | None = None,
        target: str | Platform | None = None,
        *,
        counts: bool = False,
        maps: Mapping[str, Any] | None = None,
        pins: str | os.PathLike[str] | None = None,
        replaces: RunningProgram | None = None,
        traces: object = None,
    ) -> Runtime:
        """Make it run: a context manager that owns maps and code.

        `maps` are live maps of other objects to use instead of own ones, by the name they have here; `pins` is the
        folder of the maps that the object declares pinned. RejectedError when a map is unlike its declaration.

        With `replaces`, the object's extensions are attached to that program, each to the function that its section names,
        until the runtime is closed (`runtime.links`); RejectedError when one may not. With `traces` so are its fentry, fexit,
        fsession and fmod_ret programs: to functions of that running program, or of a loaded library (as `bpfc.native`
        takes it; `SEC("fentry/libz.so:crc32")` names its own).

        With `target`, on an emulated machine: a new one, or one that `bpfc.emulate` made; `counts` then gives results
        their machine instructions. UnsupportedError
        for programs in the other byte order, and where the emulator is not installed.
        """
        from bpfc.running import Runtime  # late: it brings the runtime in

        options, limits = options or Options(), limits or Limits()
        sources = _sources(maps, pins)
        if target is None:
            return Runtime(self, options, limits, sources=sources, replaces=replaces, traces=traces)
        from bpfc.emulation import platform_of  # late: few emulate

        platform = platform_of(self.object, target, limits, counts)
        return Runtime(self, options, limits, platform, sources, replaces, traces)

    def compile(
        self, targets: Iterable[str], program: str | None = None, options: Options | None = None
    ) -> Mapping[str, Compiled]:
        """Native code of a program (the only one, if not said) for several targets, by their names.

        It is checked and optimized once. Raises RejectedError, UnsupportedError for targets of the other byte order.
        """
        from bpfc.compile import compile_for  # late: the front door starts without

        chosen = self.program(program if program is not None else next(iter(self.programs)))
        return compile_for(chosen, self.maps, options or Options(), targets)

    def _globals(self, kinds: tuple[str, ...]) -> Globals:
        from bpfc.globals import Globals, find_variables, with_content  # late: values of BTF types

        def read(map: str) -> bytes:
            return self.object.maps[map].initial or b""

        def write(map: str, offset: int, data: bytes) -> None:
            self.object = with_content(self.object, map, offset, data)

        return Globals(find_variables(self.object, kinds), self.object, read, write)

    def __repr__(self) -> str:
        lines = [f"<bpfc object '{self.object.name}'>"]
        lines += [
            f"  program {program.name}: {program.type.name.lower()}, section {program.section!r}, {program.starts[-1]} insns"
            for program in self.programs.values()
        ]
        lines += [
            f"  map {map_.name}: {map_.type.name.lower()}, key {map_.key_size} B, value {map_.value_size} B, "
            f"{map_.max_entries} entries"
            for map_ in self.maps.values()
        ]
        return "\n".join(lines)


def load(source: Source, name: str = "") -> Loaded:
    """Load an eBPF object: a path, the bytes of an ELF file, or an open file.

    Raises UnreadableError when it is not one, RejectedError when it asks for what cannot be.
    """
    data, called = _read(source, name)
    if not data.startswith(ELF_MAGIC):
        said = f"not an ELF object (it starts with {data[:4].hex(' ') or 'nothing'})"
        raise UnreadableError([Diagnostic("not-elf", said, Location(file=called, offset=0))])
    from bpfc.elf.reader import read_object  # late: pyelftools

    return Loaded(read_object(data, called), source=data)


def from_insns(
    insns: tuple[Insn, ...],
    name: str = "main",
    type: ProgramType = ProgramType.UNSPEC,
    maps: Mapping[int, Map] | None = None,
    fd_array: Sequence[int] | None = None,
    keys: Mapping[str, Sequence[int]] | None = None,
    big_endian: bool = False,
) -> Loaded:
    """A program of bare instructions. Type UNSPEC runs over raw memory: r1 points at it, r2 is its length.

    `maps` by the descriptors that wide loads name them by, `fd_array` descriptors by index; `keys`: the slots of
    each static key's branches. Functions that are only called through tables are found by `function_table`
    (ir/functions) among the maps. Raises RejectedError.
    """
    tables = [table for map in (maps or {}).values() for table in map.tables]
    tokens = {word.token: word.place // 8 for table in tables for word in table.words if not word.section}
    functions = discover_functions(insns, name, tokens.values())
    program = Program(name, "", type, insns, functions, tokens=tokens, big_endian=big_endian)
    bound = bind_maps(program, maps or {}, fd_array)
    table = declare((bound,), {key: {name: slots} for key, slots in (keys or {}).items()})
    declared = {map.name: map for map in (maps or {}).values()}
    return Loaded(Object(name, {name: bound}, declared, big_endian=big_endian), table)


def from_bytes(
    code: bytes,
    name: str = "main",
    type: ProgramType = ProgramType.UNSPEC,
    big_endian: bool = False,
    maps: Mapping[int, Map] | None = None,
    fd_array: Sequence[int] | None = None,
    keys: Mapping[str, Sequence[int]] | None = None,
    self_compares: bool = False,
) -> Loaded:
    """A program of raw bytecode, without an ELF file around it.

    `self_compares`: `r11 = N ll; if r11 == r11 goto` is a static branch (ir/self_compares).
    """
    code = lower_self_compares(code, big_endian) if self_compares else code
    return from_insns(decode(code, big_endian), name, type, maps, fd_array, keys, big_endian)


def assemble(
    text: str,
    name: str = "main",
    type: ProgramType = ProgramType.UNSPEC,
    maps: Mapping[int, Map] | None = None,
    fd_array: Sequence[int] | None = None,
    keys: Mapping[str, Sequence[int]] | None = None,
    big_endian: bool = False,
) -> Loaded:
    """A program of assembly text in the kernel's syntax (`r0 = 1`, `r1 = map_fd(3)`, `exit`)."""
    from ir.asm import assemble as parse  # late: only who writes assembly needs it

    return from_insns(parse(text), name, type, maps, fd_array, keys, big_endian)


def _sources(maps: Mapping[str, Any] | None, pins: str | os.PathLike[str] | None) -> Sources | None:
    """Where maps come from, when somebody says."""
    if maps is None and pins is None:
        return None
    from runtime.maps.gather import Sources  # late: most maps are new ones

    return Sources(maps or {}, Path(pins) if pins is not None else None)


def _read(source: Source, name: str) -> tuple[bytes, str]:
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), name or "<bytes>"
    if isinstance(source, io.IOBase) or hasattr(source, "read"):
        return source.read(), name or str(getattr(source, "name", "<file>"))
    path = Path(source)
    try:
        return path.read_bytes(), name or str(source)
    except OSError as error:
        said = f"cannot read '{path}': {error.strerror}"
        raise UnreadableError(
            [Diagnostic("cannot-read", said, Location(file=str(path)), errno=error.errno or 0)]
        ) from None
