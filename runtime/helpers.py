"""Helpers that run on the host: the call as Python sees it, the user's overrides, and the bridge from native
code.

A program calls `helper.<id>`, a ctypes callback; it finds the Execution by the address of its run state. What
Python raises in a helper ends the run: the trap code is set, native code leaves at once, and the error comes
out of `run`.

    rt.helpers["bpf_ktime_get_ns"] = lambda: 42
    rt.helpers["bpf_probe_read_kernel"] = lambda to, size, address: ...
    rt.helpers["bpf_get_prandom_u32"] = ctypes.CDLL(None).random
    rt.helpers["bpf_get_numa_node_id"] = LlvmHelper("define i64 @helper(ptr %run, i64 %r1, ...) { ... }")

A Python function gets numbers for numbers, memoryviews for memory (writable where the helper writes), and views
for maps. A ctypes function is called natively with the helper's registers, LLVM IR with the run state before them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from errno import EEXIST, EINVAL, ENOENT, ENOSYS, ENOTSUP
from typing import TYPE_CHECKING, Final, Protocol, final

from backends import abi
from ir.diagnostics import Diagnostic, RejectedError, UnsupportedError
from ir.helpers import HELPER_IDS, HELPERS, Argument, ArgumentKind, Helper
from ir.kfuncs import KFUNCS
from runtime.absent import ABSENT
from runtime.execution import Execution
from runtime.platform import Bridge
from runtime.probe import LONGEST_STRING, probe_string
from runtime.timers import Timers

if TYPE_CHECKING:
    from runtime.maps.view import View

Implementation = Callable[["HelperCall"], int | None]
UserHelper = Callable[..., object]
_MASK: Final = (1 << 64) - 1
_C_FUNCTION: Final = ctypes.CFUNCTYPE(None).__mro__[1]  # the base of everything that ctypes can call


class Maps(Protocol):
    """Finds maps by the address that programs know them by, and has the timers in them."""

    timers: Timers

    def map_at(self, address: int) -> View | None:
        """The view of the map whose block is at `address`."""


@final
@dataclass(frozen=True, slots=True)
class HelperCall:
    """One call: which helper, in which run, with which five registers."""

    helper: Helper
    execution: Execution
    registers: tuple[int, ...]
    maps: Maps

    def number(self, index: int) -> int:
        """Argument `index` as an unsigned 64-bit number."""
        return self.registers[index]

    def memory(self, index: int) -> memoryview:
        """The memory that argument `index` points at, as long as the prototype says; empty for null."""
        argument = self.helper.arguments[index]
        address = self.registers[index]
        size = self._size(index, argument) if address else 0
        if not size:
            return memoryview(bytearray())
        # Safe because compiled code checked [address, address + size) before the call.
        view = memoryview((ctypes.c_uint8 * size).from_address(address)).cast("B")
        return view if argument.writes else view.toreadonly()

    def string(self, index: int) -> bytes:
        """The NUL-ended string that argument `index` points at, as far as it can be read."""
        return probe_string(self.registers[index], LONGEST_STRING) or b""

    def map(self, index: int) -> View:
        """The map that argument `index` is. RejectedError when it is none of this object's."""
        found = self.maps.map_at(self.registers[index])
        if found is None:
            said = f"argument {index + 1} of {self.helper.full_name} is no map"
            raise RejectedError([Diagnostic("helper-argument", said, errno=EINVAL)])
        return found

    def python(self) -> list[object]:
        """The arguments as a user's function gets them."""
        return [self._python(index, argument) for index, argument in enumerate(self.helper.arguments)]

    def _python(self, index: int, argument: Argument) -> object:
        match argument.kind:
            case ArgumentKind.MAP:
                return self.map(index)
            case ArgumentKind.MEMORY | ArgumentKind.MAP_KEY | ArgumentKind.MAP_VALUE:
                return self.memory(index)
            case ArgumentKind.CONST_STRING:
                return self.string(index).decode(errors="replace")
            case _:
                return self.registers[index]

    def _size(self, index: int, argument: Argument) -> int:
        if argument.size:
            return argument.size
        if argument.kind in (ArgumentKind.MAP_KEY, ArgumentKind.MAP_VALUE):
            kinds = [one.kind for one in self.helper.arguments]
            declared = self.map(kinds.index(ArgumentKind.MAP)).live.declared
            return declared.key_size if argument.kind is ArgumentKind.MAP_KEY else declared.value_size
        return self.registers[index + 1] & 0xFFFF_FFFF


@final
@dataclass(frozen=True, slots=True)
class LlvmHelper:
    """A helper as LLVM IR: a module that defines `i64 @helper(ptr run, i64 r1, ..., i64 r5)`."""

    text: str


@final
class HelperTable(MutableMapping[str, "UserHelper | LlvmHelper"]):
    """The user's own helpers by name (`bpf_ktime_get_ns`); deleting one brings ours back.

    `calls` counts the uses of Python functions by name.
    """

    def __init__(self) -> None:
        self._own: dict[int, UserHelper | LlvmHelper] = {}
        self.calls: dict[str, int] = {}

    @property
    def ids(self) -> frozenset[int]:
        """The numbers of the overridden helpers."""
        return frozenset(self._own)

    def of(self, id: int) -> UserHelper | LlvmHelper | None:
        """What the user has for helper `id`."""
        return self._own.get(id)

    def count(self, helper: Helper) -> None:
        """Note a call."""
        self.calls[helper.full_name] = self.calls.get(helper.full_name, 0) + 1

    def __getitem__(self, name: str) -> UserHelper | LlvmHelper:
        return self._own[_id_of(name)]

    def __setitem__(self, name: str, function: UserHelper | LlvmHelper) -> None:
        self._own[_id_of(name)] = function

    def __delitem__(self, name: str) -> None:
        del self._own[_id_of(name)]

    def __iter__(self) -> Iterator[str]:
        return (HELPERS[id].full_name for id in sorted(self._own))

    def __len__(self) -> int:
        return len(self._own)


class KfuncTable(dict[str, "UserHelper | LlvmHelper"]):
    """The user's kernel functions by name; they get the registers as numbers.

    RejectedError for one that we have, and for bpf_throw: programs are proved safe because it does not return.
    """

    def __setitem__(self, name: str, function: UserHelper | LlvmHelper) -> None:
        if name in KFUNCS:
            said = f"kernel function '{name}' is native here and can't be another"
            raise RejectedError([Diagnostic("native-kfunc", said, errno=EEXIST)])
        if name == "bpf_throw":
            said = "'bpf_throw' never returns, and nothing that is given for it can do that"
            raise RejectedError([Diagnostic("native-kfunc", said, errno=ENOTSUP)])
        super().__setitem__(name, function)


class CallbackMaker(Protocol):
    """What gives Python functions addresses: a Platform."""

    @property
    def is_native(self) -> bool: ...

    def callback(self, bridge: Bridge) -> int: ...

    def drop_callback(self, address: int) -> None: ...


@final
class Callbacks:
    """The addresses of `helper.<id>` and the user's `kfunc.<name>`: one callback for each that is called."""

    def __init__(
        self,
        table: HelperTable,
        host: Mapping[str, Implementation],
        maps: Maps,
        find: Callable[[int], Execution],
        maker: CallbackMaker,
        compile: Callable[[str], int],
    ) -> None:
        self._table, self._host, self._maps, self._find = table, host, maps, find
        self._maker, self._compile = maker, compile
        self._made: dict[int | str, int] = {}
        self._native: dict[str, int] = {}
        self._kept: list[object] = []

    def address(self, id: int) -> int:
        """The address of the callback for helper `id`. UnsupportedError when nobody implements it."""
        helper = HELPERS[id]
        if id not in self._table.ids and helper.name not in self._host:
            raise UnsupportedError([missing_helper(helper)])
        own = self._table.of(id)
        return self._native_address(own) or self._callback(id, lambda: self._bridge(helper))

    def kfunc(self, name: str, own: UserHelper | LlvmHelper | None, parameters: int) -> int:
        """The address of the user's kernel function `name`. UnsupportedError when there is none."""
        if own is None:
            said = f"kernel function '{name}' has no meaning outside a kernel, or none here yet"
            note = f'give it one: rt.kfuncs["{name}"] = function({", ".join(f"r{n + 1}" for n in range(parameters))})'
            raise UnsupportedError([Diagnostic("missing-kfunc", said, notes=(note,), errno=ENOSYS)])
        native = self._native_address(own)
        if native is not None or isinstance(own, LlvmHelper):
            return native or 0
        function = _of_registers(own) if isinstance(own, _C_FUNCTION) else own
        return self._callback(
            name, lambda: self._guarded(lambda _, registers: function(*registers[:parameters]))
        )

    def _native_address(self, own: UserHelper | LlvmHelper | None) -> int | None:
        """Where LLVM IR or a ctypes function of the user is called natively; None for Python functions.

        A ctypes function is code of this machine, so emulated programs come to it as to a Python function.
        """
        is_here = self._maker.is_native
        text = own.text if isinstance(own, LlvmHelper) else _thunk(own) if is_here else None
        if text is None:
            return None
        if text not in self._native:
            self._native[text] = self._compile(text)
            self._kept.append(own)
        return self._native[text]

    def _callback(self, key: int | str, make: Callable[[], Bridge]) -> int:
        if key not in self._made:
            self._made[key] = self._maker.callback(make())
        return self._made[key]

    def close(self) -> None:
        """Give the callbacks up; nobody calls them any more."""
        while self._made:
            self._maker.drop_callback(self._made.popitem()[1])

    def _bridge(self, helper: Helper) -> Bridge:
        def call(execution: Execution, registers: tuple[int, ...]) -> object:
            given = HelperCall(helper, execution, registers, self._maps)
            own = self._table.of(helper.id)
            if own is None or isinstance(own, LlvmHelper):
                return self._implementation(helper)(given)
            self._table.count(helper)
            return _of_registers(own)(*registers) if isinstance(own, _C_FUNCTION) else own(*given.python())

        return self._guarded(call)

    def _guarded(self, call: Callable[[Execution, tuple[int, ...]], object]) -> Bridge:
        """`call` as compiled code calls it: what it raises ends the run, and comes out there."""

        def called(run: int, *registers: int) -> int:
            execution = self._find(run)
            try:
                result = call(execution, registers)
                return 0 if result is None else int(result) & _MASK  # type: ignore[call-overload]  # anything like a number
            except BaseException as error:  # noqa: BLE001  # nothing may unwind through native code
                execution.raised = error
                trap = int(abi.Trap.HELPER).to_bytes(4, execution.order)
                # Safe because `run` is the address of the run state that compiled code called us with.
                ctypes.memmove(run + abi.TRAP_CODE, trap, 4)
                return 0

        return called

    def _implementation(self, helper: Helper) -> Implementation:
        found = self._host.get(helper.name)
        if found is None:
            raise UnsupportedError([missing_helper(helper)])
        return found


def _of_registers(function: object) -> Callable[..., int]:
    """A ctypes function as one of five registers, which is how compiled code calls it."""
    # Safe because Callbacks keeps the function, and a C function with fewer parameters leaves the other registers alone.
    return ctypes.cast(function, ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5))  # type: ignore[arg-type]  # a ctypes function


def _thunk(function: object) -> str | None:
    """IR that calls a ctypes function with the registers alone; None for what is no ctypes function."""
    if not isinstance(function, _C_FUNCTION):
        return None
    # Safe because Callbacks keeps the function as long as code may call it.
    address = ctypes.cast(function, ctypes.c_void_p).value  # type: ignore[arg-type]  # a ctypes function
    registers = ", ".join(f"i64 %r{number}" for number in range(1, 6))
    call = f"%r0 = tail call i64 inttoptr (i64 {address} to ptr)({registers})"
    return f"define i64 @helper(ptr %run, {registers}) {{\n  {call}\n  ret i64 %r0\n}}\n"


def missing_helper(helper: Helper) -> Diagnostic:
    """What to say about a helper that nobody implements."""
    reason = ABSENT.get(helper.name, "nothing here does what it does")
    said = f"{helper.full_name} ({helper.id}) has no meaning outside a kernel: {reason}"
    note = f'give it one: rt.helpers["{helper.full_name}"] = function({", ".join(_words(helper))})'
    return Diagnostic("missing-helper", said, notes=(note,), errno=ENOSYS)


def _words(helper: Helper) -> list[str]:
    return [f"{argument.kind.value}{number}" for number, argument in enumerate(helper.arguments, 1)]


def _id_of(name: str) -> int:
    found = HELPER_IDS.get(name if name.startswith("bpf_") else f"bpf_{name}")
    if found is None:
        said = f"no helper is called '{name}'"
        raise RejectedError([Diagnostic("unknown-helper", said, errno=ENOENT)])
    return found
