"""The results as one self-contained page: a chart of ratios, a chart of costs against targets, and the numbers.

arithmetic           |                    a bar from 1x to bpfc's ratio: left of the line is faster than native
checksum       ======|      o             circles: the other contestants; a short stroke: an earlier run
classifier           |==
               .5x   1x    2x    4x
"""

from __future__ import annotations

from html import escape
from typing import Any, Final

from benchmarks.report import GEOMEAN_TARGET, RATIO_TARGET
from benchmarks.speed import BPFC, NATIVE
from benchmarks.svg import LogScale, drawing, element

Json = dict[str, Any]

WIDTH: Final = 900.0
LEFT: Final = 200.0  # of the scale; names and ratios stand before it
LONG_LEFT: Final = 310.0  # where names are long
RIGHT: Final = 880.0
ROW: Final = 26.0
TOP: Final = 34.0
COLORS: Final = ("#8a8f98", "#b07aa1", "#76b7b2", "#9c755f")  # of peers, in order

STYLE: Final = """
:root { --ink: #1b1f24; --quiet: #6a737d; --line: #d0d7de; --good: #2da44e; --fair: #bf8700; --bad: #cf222e;
  --ground: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #8d96a0; --line: #3d444d; --good: #3fb950;
  --fair: #d29922; --bad: #f85149; --ground: #0d1117; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 2rem auto;
  max-width: 920px; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p, dl { color: var(--quiet); max-width: 46rem; } dl { display: grid; grid-template-columns: max-content 1fr;
  gap: 0 1rem; } dd { margin: 0; }
svg { width: 100%; height: auto; font: 13px system-ui, sans-serif; } svg text { fill: var(--ink); }
svg .quiet { fill: var(--quiet); } svg .grid { stroke: var(--line); } svg .one { stroke: var(--ink); }
svg .limit { stroke: var(--bad); stroke-dasharray: 4 4; } svg .strong { font-weight: 600; }
.good { fill: var(--good); } .fair { fill: var(--fair); } .bad { fill: var(--bad); }
.was { stroke: var(--ink); stroke-width: 2; }
table { border-collapse: collapse; margin-bottom: 2rem; } th, td { padding: .15rem .8rem; text-align: right;
  border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
td.missed { color: var(--bad); }
"""


def page(report: Json, earlier: Json | None = None) -> str:
    """The page for a report (as `to_json` makes it), with strokes where `earlier` was."""
    mean = report["geomean"]
    head = f"{mean:.2f}x the time of native code" if mean is not None else "without native code"
    parts = [f"<h1>bpfc: {head}</h1>", _host(report["host"])]
    if mean is not None:
        parts += ["<h2>Code speed</h2>", _legend(report, earlier), _ratio_chart(report, earlier)]
    beside = [cost for cost in report["costs"] if cost.get("kernel")]
    if beside:
        parts += [
            "<h2>Operations, beside the running kernel's</h2>",
            "<p>Time of one operation over the kernel's for the same; left of 1x is faster than the kernel.</p>",
            _kernel_chart(beside),
        ]
    if any(cost["target"] for cost in report["costs"]):
        parts += ["<h2>Costs, of their targets</h2>", _cost_chart(report["costs"])]
    parts += ["<h2>Numbers</h2>", _speed_table(report)]
    for section in dict.fromkeys(cost.get("section", "") for cost in report["costs"]):
        costs = [cost for cost in report["costs"] if cost.get("section", "") == section]
        parts += [f"<h3>{escape(section)}</h3>", _cost_table(costs)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>bpfc benchmarks</title>\n'
        f"<style>{STYLE}</style>\n{body}\n</html>\n"
    )


def _host(host: dict[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in host.items())
    return f"<dl>{items}</dl>"


def _peers(report: Json) -> list[str]:
    names = {name for program in report["programs"] for name in program["timings"]}
    return sorted(names - {NATIVE, BPFC})


def _legend(report: Json, earlier: Json | None) -> str:
    said = (
        "Time of a run over the time of the same C compiled natively, least of many short batches taken in turns; "
        f"left of 1x is faster than native. Dashed: {RATIO_TARGET:g}x, the most that a program may take."
    )
    dots = "".join(
        f' <span style="color:{color}">●</span> {escape(name)}'
        for name, color in zip(_peers(report), COLORS, strict=False)
    )
    was = " A stroke is the earlier run." if earlier is not None else ""
    return f"<p>{escape(said)}{escape(was)}{dots}</p>"


def _ratio_chart(report: Json, earlier: Json | None) -> str:
    rows = [program for program in report["programs"] if program["ratios"].get(BPFC) is not None]
    before = {
        program["name"]: program["ratios"].get(BPFC) for program in (earlier or {"programs": []})["programs"]
    }
    every = [ratio for program in rows for ratio in program["ratios"].values() if ratio]
    scale = LogScale(min(0.5, *every, 1) / 1.1, max(2.0, *every, 1) * 1.1, LEFT, RIGHT)
    bottom = TOP + ROW * (len(rows) + 1)
    parts = [*_grid(scale, bottom), _rule(scale, RATIO_TARGET, bottom, "limit")]
    for number, program in enumerate(rows):
        y = TOP + ROW * number
        parts += _ratio_row(scale, y, program["name"], program["ratios"][BPFC], RATIO_TARGET)
        parts += [
            element("circle", cx=scale.x(ratio), cy=y + ROW / 2, r=5, fill=color, opacity="0.85")
            for peer, color in zip(_peers(report), COLORS, strict=False)
            if (ratio := program["ratios"].get(peer))
        ]
        was = before.get(program["name"])
        if was:
            x = scale.x(was)
            parts.append(element("line", x1=x, x2=x, y1=y + 3, y2=y + ROW - 3, class_="was"))
    parts += _ratio_row(
        scale, TOP + ROW * len(rows), "geometric mean", report["geomean"], GEOMEAN_TARGET, "strong"
    )
    parts.append(_rule(scale, 1.0, bottom, "one"))
    return drawing(WIDTH, bottom + 8, "time of bpfc's code over the time of native code, by program", parts)


def _kernel_chart(costs: list[Json]) -> str:
    ratios = {cost["name"]: max(cost["value"], 0.01) / cost["kernel"] for cost in costs}
    scale = LogScale(min(0.5, *ratios.values()) / 1.1, max(2.0, *ratios.values()) * 1.1, LONG_LEFT, RIGHT)
    bottom = TOP + ROW * len(ratios)
    parts = _grid(scale, bottom)
    for number, (name, ratio) in enumerate(ratios.items()):
        parts += _ratio_row(scale, TOP + ROW * number, name, ratio, 1.5)
    parts.append(_rule(scale, 1.0, bottom, "one"))
    return drawing(WIDTH, bottom + 8, "time of an operation over that of the same in the kernel", parts)


def _ratio_row(
    scale: LogScale, y: float, name: str, ratio: float, limit: float, weight: str = ""
) -> list[str]:
    one, end = scale.x(1.0), scale.x(ratio)
    left, right = min(one, end), max(one, end)
    grade = "good" if ratio <= 1.1 else "fair" if ratio <= limit else "bad"
    middle = y + ROW / 2 + 4.5
    return [
        element("text", name, x=scale.left - 76, y=middle, text_anchor="end", class_=weight),
        element("rect", x=left, y=y + 6, width=max(right - left, 2.0), height=ROW - 12, class_=grade, rx=2),
        element("text", f"{ratio:.2f}x", x=scale.left - 20, y=middle, text_anchor="end", class_=weight),
    ]


def _grid(scale: LogScale, bottom: float) -> list[str]:
    parts = []
    for tick in scale.ticks():
        x = scale.x(tick)
        parts.append(element("line", x1=x, x2=x, y1=TOP - 6, y2=bottom, class_="grid"))
        parts.append(element("text", f"{tick:g}x", x=x, y=TOP - 14, text_anchor="middle", class_="quiet"))
    return parts


def _rule(scale: LogScale, value: float, bottom: float, kind: str) -> str:
    x = scale.x(value)
    return element("line", x1=x, x2=x, y1=TOP - 6, y2=bottom, class_=kind)


def _cost_chart(costs: list[Json]) -> str:
    rows = [cost for cost in costs if cost["target"]]
    left, full = 300.0, 300.0  # a full bar is the target
    parts = []
    for number, cost in enumerate(rows):
        y, part = 8 + ROW * number, cost["value"] / cost["target"]
        grade = "good" if part <= 1 else "bad"
        width = max(min(part, 1.6) * full, 2.0)
        said = f"{_short(max(cost['value'], 0.0))} of {cost['target']:g} {cost['unit']}"
        middle = y + ROW / 2 + 4.5
        parts += [
            element("text", cost["name"], x=left - 12, y=middle, text_anchor="end"),
            element("rect", x=left, y=y + 6, width=width, height=ROW - 12, class_=grade, rx=2),
            element("text", said, x=left + max(width, full) + 10, y=middle),
        ]
    bottom = 8 + ROW * len(rows)
    parts.append(element("line", x1=left + full, x2=left + full, y1=4, y2=bottom, class_="limit"))
    return drawing(WIDTH, bottom + 8, "measured costs as parts of their targets", parts)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _speed_table(report: Json) -> str:
    peers = _peers(report)
    head = ["program", "native ns", "bpfc ns", "bpfc", "by rounds", *peers]
    lines = []
    for program in report["programs"]:
        timings, ratios = program["timings"], program["ratios"]
        cells = [
            program["name"],
            *(f"{timings[name]['best']:.1f}" if name in timings else "" for name in (NATIVE, BPFC)),
            *(f"{ratio:.2f}x" if ratio else "" for ratio in (ratios.get(BPFC), program["paired"])),
            *(f"{ratios[peer]:.2f}x" if ratios.get(peer) else "" for peer in peers),
        ]
        lines.append(_row(cells, title=program["summary"]))
    return _table(head, lines)


def _cost_table(costs: list[Json]) -> str:
    lines = [
        _row(
            [
                cost["name"],
                f"{cost['value']:.2f} {cost['unit']}",
                f"{cost['target']:g}" if cost["target"] else "",
                f"{cost['kernel']:.2f} {cost['unit']}" if cost.get("kernel") else "",
            ]
        )
        for cost in costs
    ]
    return _table(["cost", "least", "target", "kernel"], lines) if lines else ""


def _row(cells: list[str], title: str = "") -> str:
    said = f' title="{escape(title)}"' if title else ""
    return f"<tr{said}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _table(head: list[str], lines: list[str]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f"<table><tr>{names}</tr>\n" + "\n".join(lines) + "\n</table>"
