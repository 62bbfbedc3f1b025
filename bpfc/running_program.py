"""A program of a started object: compiled when it is asked for, entered by runs, batches, hooks and tail calls."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from errno import EBADF
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from backends.abi import batch_symbol, hooked_batch_symbol
from backends.native_code import SiteKind
from bpfc.attachable import Attachable
from bpfc.batch import Batch, Packets
from bpfc.compile import Compiled, compile_program
from bpfc.pcap import Packet, PcapWriter, read_pcap
from bpfc.verdicts import is_dropped
from ir.context import layout_of
from ir.diagnostics import Diagnostic, Location, RejectedError, TrapError
from ir.kinds import MapType, ProgramType
from ir.object import Map, Program
from runtime.execution import Execution, RunResult, Segment, trap_error
from runtime.hook import ProgramHooks
from runtime.linker import LinkedImage, link
from runtime.platform import Platform
from runtime.runs import runs

if TYPE_CHECKING:
    from bpfc.links import Link
    from bpfc.running import Runtime
    from bpfc.static_keys import ProgramKeys
    from runtime.static_keys import Branches


_ENTERED_BY_HOOKS: Final = (ProgramType.EXT, ProgramType.TRACING)
_RUN: Final = (ctypes.c_void_p, ctypes.c_uint64)
_RUN_RAW: Final = (*_RUN, ctypes.c_uint64)
_BATCH: Final = (*[ctypes.c_void_p] * 4, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)


@final
class RunningProgram(Attachable):
    """One program as native code. Threads may run it at the same time; each has its own run state."""

    def __init__(self, runtime: Runtime, program: Program) -> None:
        if not runtime.options.hardened and program.type is not ProgramType.EXT:  # those with their target
            runtime.loaded.verify(program.name).raise_for_status()
        self.program = program
        self.runtime = runtime
        self.overridden = runtime.world.overridden
        self.layout = layout_of(program.type)
        super().__init__()
        self._local = threading.local()
        self.is_open = True
        if program.type not in _ENTERED_BY_HOOKS:
            self.prepare()

    @property
    def _platform(self) -> Platform:
        return self.runtime.world.platform

    def prepare(self) -> None:
        """Compile now, so that problems are raised now."""
        is_extensible = self.runtime.options.extensible
        assert bool(self.hooks.functions) is is_extensible, "main at least has an entry slot"
        has_branches = any(site.kind is SiteKind.STATIC for site in self.compiled.code.sites)
        if has_branches:
            assert self.branches.is_open, "taken in just now"
        declared = self.runtime.world.declared
        if any(map_.type is MapType.INSN_ARRAY for map_ in declared.values()):
            from bpfc.insn_sets import bind_arrays  # late: few programs have any

            bind_arrays(self)

    @cached_property
    def compiled(self) -> Compiled:
        """The program by its own type alone."""
        maps: Mapping[str, Map] = self.runtime.world.declared
        target = self.runtime.world.space.compile_target
        return compile_program(self.program, maps, self.runtime.options, self.overridden, target=target)

    @cached_property
    def image(self) -> LinkedImage:
        """The program in memory."""
        world = self.runtime.world
        return link(self.compiled.code, world.resolve, world.pool)

    @cached_property
    def branches(self) -> Branches:
        """The program's static branches, live; those of extensions and tracers are where these are attached."""
        from bpfc.static_keys import take_branches  # late: few programs have any

        image = self.image if self.program.type not in _ENTERED_BY_HOOKS else None
        return take_branches(self.runtime, self.program, image)

    def take_image(self, image: LinkedImage) -> None:
        """One more image of the program, made for what it stands for or runs around: static keys switch it, too."""
        from bpfc.static_keys import has_branches  # late, as above

        if has_branches(image):
            self.runtime.static_keys.add_image(self.branches, image)

    def drop_image(self, image: LinkedImage) -> None:
        """Free such an image, which nobody is in any more."""
        if "branches" in self.__dict__:
            self.runtime.static_keys.drop_image(self.branches, image)
        image.close()

    @property
    def keys(self) -> ProgramKeys:
        """The static keys that the program uses, for itself alone: `prog.keys["debug"].enable()`."""
        from bpfc.static_keys import ProgramKeys  # late, as above

        return ProgramKeys(
            self.runtime.static_keys, self.branches, self.runtime.loaded.static_keys.of(self.program)
        )

    def replace(self, function: str, extension: Attachable, *, instead_of: Link | None = None) -> Link:
        """Let `extension` stand for a global function of this program: `dispatcher.replace("prog0", rt["xdp_filter"])`.

        As `extension.attach_freplace(self, function)`, and raises the same.
        """
        return extension.attach_freplace(self, function, instead_of=instead_of)

    def static_branch_update(self, insn: int, on: int) -> None:
        """Switch the static branch at slot `insn`, as BPF_STATIC_BRANCH_UPDATE would.

        RejectedError: EINVAL, ERANGE, EBADF; UnsupportedError: EOPNOTSUPP.
        """
        self.runtime.static_keys.update(self.branches, insn, on)

    @cached_property
    def is_proved(self) -> bool:
        """Whether the verifier proves it safe; it is asked once."""
        return not self.runtime.options.hardened or self.runtime.loaded.verify(self.program.name).ok

    @cached_property
    def hooks(self) -> ProgramHooks:
        """What is attached to the program's functions."""
        return ProgramHooks(self.program.name, self.image, self.runtime.world.space)

    @property
    def is_hooked(self) -> bool:
        """Whether something is attached to a function of the program."""
        return "hooks" in self.__dict__ and not self.hooks.is_idle

    @property
    def entry_address(self) -> int:
        """Where tail calls go: behind the entry slot, for hooks do not see them."""
        return self.hooks.body(self.program.name)

    @cached_property
    def _native(self) -> Callable[..., int]:
        kinds = _RUN_RAW if self.layout.is_raw else _RUN
        address = self.image.address_of(self.program.name)
        return self._platform.function(address, *kinds)

    @cached_property
    def _batches(self) -> tuple[Callable[..., int], Callable[..., int]]:
        """The native loops over packets: plain, and the one that hooks on main see."""
        name = self.program.name
        plain, hooked = batch_symbol(name), hooked_batch_symbol(name)
        function, address_of = self._platform.function, self.image.address_of
        return function(address_of(plain), *_BATCH), function(address_of(hooked), *_BATCH)

    def run(self, data: object = b"", ctx: Mapping[str, int] | None = None) -> RunResult:
        """Run once over a copy of `data` (bytes or anything with bytes()); `ctx` sets fields of the context.

        `data` is the packet, the memory of a program without a type, or the content of a context without packets.

        Raises TrapError, naming the instruction, when the run ended at a check.
        """
        execution = self._execution()
        with self.runtime.world.entered(execution):
            self._require_open()
            try:
                result = execution.run(self._native, bytes(data), ctx or {})  # type: ignore[call-overload]  # bytes() takes anything with __bytes__
                steps = self._platform.steps()
                return result if steps is None else replace(result, steps=steps)
            except TrapError as error:
                raise self._located(error) from None

    def run_pcap(
        self, path: str | Path, out: str | Path | None = None, ctx: Mapping[str, int] | None = None
    ) -> Iterator[tuple[Packet, RunResult]]:
        """Run over each packet of a pcap file; `out` gets the packets that are not dropped, as the program left them."""
        writer = PcapWriter(out) if out is not None else None
        try:
            for packet in read_pcap(path):
                result = self.run(packet.data, ctx)
                if writer is not None and not self.drops(result):
                    writer.write(replace(packet, data=result.data))
                yield packet, result
        finally:
            if writer is not None:
                writer.close()

    def run_batch(
        self,
        packets: Packets | Batch,
        lengths: Sequence[int] | None = None,
        ctx: Mapping[str, int] | None = None,
    ) -> Sequence[int]:
        """Run over many packets in one native loop, in place, with the GIL released; r0 (u32) for each.

        `packets` and `lengths` are as `Batch` takes them; give a Batch to lay them out once and run many times
        (its results are overwritten). Packets have no head or tail room.
        """
        batch = packets if isinstance(packets, Batch) else Batch(packets, lengths)
        if not self._platform.is_native:
            batch.run_each(lambda packet: self.run(packet, ctx))
            return batch.rets
        execution = self._execution()
        execution.arm(batch.start, batch.span)
        context = execution.prepare_context(ctx or {})
        with self.runtime.world.entered(execution):
            self._require_open()
            batch_loop = self._batches["hooks" in self.__dict__ and self.hooks.main_is_hooked]
            done = batch_loop(
                execution.run_address,
                context,
                batch.addresses.buffer_info()[0],
                batch.lengths.buffer_info()[0],
                0,
                batch.count,
                batch.rets_address,
                execution.limits.fuel,
            )
        if done < batch.count:
            trap = execution.trap()
            assert trap is not None, "the batch loop stops early only at a trap"
            error = self._located(trap_error(trap, Location()))
            note = f"packet {done} of the batch"
            raise TrapError([replace(error.diagnostics[0], notes=(note,))])
        return batch.rets

    def _execution(self) -> Execution:
        """The memory of this thread's run; a run inside of a run has its own."""
        kept: Execution | None = getattr(self._local, "execution", None)
        if kept is not None and kept.run_address not in runs():
            return kept
        segments: tuple[Segment, ...] = self.runtime.world.segments()
        allocate, limits = self._platform.allocate, self.runtime.limits
        execution = Execution(self.layout, segments, self.program.big_endian, limits, allocate)
        if kept is None:
            self._local.execution = execution
        return execution

    def _located(self, error: TrapError) -> TrapError:
        first = error.diagnostics[0]
        slot = first.at.insn
        at = first.at if slot is None else self.program.location(slot)
        return TrapError([replace(first, at=at)])

    def drops(self, result: RunResult) -> bool:
        """Whether the program's answer means that the packet goes nowhere."""
        return is_dropped(self.program.type, result.ret)

    def end(self) -> None:
        """From now on nobody enters: runs are refused (EBADF), static keys forget the program."""
        self.is_open = False
        if "branches" in self.__dict__:
            self.runtime.static_keys.unload(self.branches)

    def _require_open(self) -> None:
        if not self.is_open:
            said = f"the program '{self.program.name}' was unloaded"
            raise RejectedError([Diagnostic("closed", said, errno=EBADF)])

    def close(self) -> None:
        """Free the code, which nobody is in any more; closing twice is fine."""
        self.end()
        self.close_attached()
        if "image" in self.__dict__:
            self.image.close()
