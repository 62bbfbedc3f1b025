"""What `bpfc run` says of its runs: one Json, and the text made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from bpfc.cli.contents import SHOWN, describe_map, map_lines
from bpfc.cli.errors import diagnostic_json
from bpfc.cli.terminal import Json, bold, dim, indent, table
from bpfc.cli.values import show_value, type_name
from bpfc.verdicts import name_verdict

if TYPE_CHECKING:
    from bpfc.cli.run import Tally
    from bpfc.loaded import Loaded
    from bpfc.pcap import Packet
    from bpfc.running import Runtime
    from bpfc.running_program import RunningProgram
    from ir.diagnostics import Diagnostic
    from ir.object import Program
    from runtime.execution import RunResult

_UNITS: Final = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns"))


def report_json(loaded: Loaded, runtime: Runtime, running: RunningProgram, tally: Tally) -> Json:
    """Everything, for machines."""
    ordered = sorted(tally.verdicts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "program": tally.program.name,
        "type": tally.program.type.name.lower(),
        "input": tally.source,
        "runs": tally.runs,
        "verdicts": dict(ordered),
        "result": _result_json(tally.program, tally.only) if tally.only is not None else None,
        "traps": [diagnostic_json(one) for one in tally.traps[:SHOWN]],
        "printk": tally.printk,
        **contents_json(loaded, runtime),
        "timing": {
            "level": running.compiled.level,
            "compile_ns": running.compiled.ns,
            "from_cache": running.compiled.from_cache,
            "code_bytes": sum(
                section.size for section in running.compiled.code.sections if section.is_executable
            ),
            "target": running.compiled.code.target,
            "machine_insns": tally.steps or None,
            "run_ns": tally.ns,
            "ns_per_run": round(tally.ns / tally.runs, 1) if tally.runs else 0,
        },
    }


def contents_json(loaded: Loaded, runtime: Runtime) -> Json:
    """What is in the maps and the variables of a running object."""
    btf = loaded.object.btf
    described = {name: describe_map(btf, view) for name, view in runtime.world.maps.items()}
    return {
        "maps": {name: said for name, said in described.items() if said is not None},
        "globals": {
            name: {
                "type": type_name(btf, one.type_id),
                "section": one.section,
                "value": runtime.globals[name],
            }
            for name, one in runtime.globals.variables.items()
        },
    }


def report_text(data: Mapping[str, Any], everything: bool) -> str:
    """The same for people; long lists are cut unless `everything` is wanted."""
    return "\n".join(_lines(data, None if everything else SHOWN))


def packet_json(program: Program, number: int, packet: Packet, result: RunResult | None) -> Json:
    """One run of a traced program."""
    said: dict[str, object] = {"number": number, "length": len(packet.data)}
    return said | (dict(_result_json(program, result)) if result is not None else {"verdict": None})


def packet_lines(
    program: Program, number: int, packet: Packet, result: RunResult | None, trap: Diagnostic | None
) -> Iterator[str]:
    """One run of a traced program, and what it printed."""
    if result is None:
        yield f"{number:6}  {len(packet.data):5} B  trap: {trap}"
        return
    verdict = name_verdict(program.type, result.ret)
    changed = "" if result.data == packet.data else f"  changed, {len(result.data)} B"
    redirect = f"  to {result.redirect[1]}" if result.redirect is not None else ""
    yield f"{number:6}  {len(packet.data):5} B  {verdict}{redirect}{changed}"
    yield from (dim(f"        {line.rstrip()}") for line in result.printk)


def show_ns(ns: float) -> str:
    """A time in the unit that fits."""
    scale, unit = next((pair for pair in _UNITS if ns >= pair[0]), _UNITS[-1])
    return f"{ns / scale:.3g} {unit}"


def _result_json(program: Program, result: RunResult) -> Json:
    return {
        "ret": result.ret,
        "verdict": name_verdict(program.type, result.ret),
        "data": result.data,
        "ctx": dict(result.ctx),
        "ns": result.ns,
        "insns": result.insns,
        "printk": list(result.printk),
        "redirect": list(result.redirect) if result.redirect is not None else None,
    }


def _lines(data: Mapping[str, Any], limit: int | None) -> Iterator[str]:
    source = f" over {data['input']}" if data["input"] else ""
    yield f"{bold(data['program'])} ({data['type']}): {data['runs']} {_plural('run', data['runs'])}{source}"
    rows = [f"{one['function']} by {one['program']} of {one['object']}" for one in data["replaced"]]
    yield from _section("replaced", rows)
    yield from _section("verdicts", _verdicts(data["verdicts"], data["runs"]))
    yield from _section("result", _result(data["result"]))
    yield from _section("traps", [f"{one['message']} [{one['code']}]" for one in data["traps"][:limit]])
    yield from _section("printk", _printk(data["printk"], limit))
    yield from _contents(data, "", limit)
    yield from _section("attached", _attached(data["attached"]))
    for path, contents in data["tracers"].items():
        yield from _contents(contents, f" of {path}", limit)
    yield from _section("timing", [_timing(data["timing"], data["runs"])])


def _contents(data: Mapping[str, Any], of: str, limit: int | None) -> Iterator[str]:
    lines = [line for name, said in data["maps"].items() for line in map_lines(name, said, limit)]
    yield from _section(f"maps{of}", lines)
    yield from _section(f"globals{of}", _globals(data["globals"], limit is None))


def _attached(rows: list[Mapping[str, Any]]) -> list[str]:
    """A line for each program around a function."""
    lines = []
    for one in rows:
        runs, misses = one["run_cnt"], one["recursion_misses"]
        each = f", {show_ns(one['run_time_ns'] / runs)} each" if runs else ""
        missed = f", {misses} skipped inside of itself" if misses else ""
        of = f" of {one['object']}" if one["object"] is not None else ""
        lines.append(
            f"{one['kind']} {one['function']}: {one['program']}{of}, {runs} {_plural('run', runs)}{each}{missed}"
        )
    return lines


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield bold(title)
        yield from indent(lines)


def _verdicts(verdicts: Mapping[str, int], runs: int) -> list[str]:
    rows = [(name, count, f"{100 * count / runs:5.1f} %") for name, count in verdicts.items()]
    return table(rows)


def _result(result: Mapping[str, Any] | None) -> list[str]:
    if result is None:
        return []
    data: bytes = result["data"]
    shown = data[:64].hex(" ") + (f" ... ({len(data)} bytes)" if len(data) > 64 else "")
    return [f"r0 = {result['ret']:#x}", *([f"data: {shown}"] if data else [])]


def _printk(lines: list[str], limit: int | None) -> list[str]:
    shown = [line.rstrip("\n") for line in lines[:limit]]
    rest = len(lines) - len(shown)
    return [*shown, *([dim(f"and {rest} more (-v shows all)")] if rest else [])]


def _globals(globals: Mapping[str, Any], everything: bool) -> list[str]:
    """Variables that a run can change; all of them when everything is wanted."""
    return [
        f"{name} = {show_value(one['value'], one['type'])}"
        for name, one in globals.items()
        if everything or one["section"].startswith((".data", ".bss"))
    ]


def _timing(timing: Mapping[str, Any], runs: int) -> str:
    origin = "from the cache" if timing["from_cache"] else f"compiled at {timing['level']}"
    size = f"{timing['code_bytes']} bytes of code"
    each = f"{show_ns(timing['ns_per_run'])} a run" if runs else "no run"
    if timing["machine_insns"]:
        each = f"{timing['machine_insns'] / runs:.0f} {timing['target']} insns a run, emulated"
    return f"{origin} in {show_ns(timing['compile_ns'])}, {size}; {each}"


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
