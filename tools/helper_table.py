"""Print docs/helpers.md: what each helper is here. `make docs` keeps the page; a test holds it to the tables."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from backends.helpers.answers import ANSWERS
from backends.helpers.table import EMITTERS
from backends.natives import MAP_OPERATIONS
from ir.helpers import HELPERS, Helper
from ir.kfuncs import KFUNCS
from runtime.absent import ABSENT
from runtime.host_helpers import HOST_HELPERS

HEAD = """# Helpers

Every helper of Linux 6.18, and what it is here. The prototypes are in [`ir/helpers.py`](../ir/helpers.py), the program types
that may call each in [`ir/helper_sets.py`](../ir/helper_sets.py). Anybody can put a function in any helper's place:

```python
rt.helpers["bpf_ktime_get_ns"] = lambda: 42  # Python: numbers, memoryviews, map views
rt.helpers["bpf_get_prandom_u32"] = ctypes.CDLL(None).random  # C: called natively with the registers
rt.helpers["bpf_get_numa_node_id"] = LlvmHelper("define i64 @helper(ptr %run, ...")  # LLVM IR
```

- **native**: LLVM code beside the program, inlined where it is small.
- **host**: a call into Python (microseconds).
- **nothing there**: answers as a kernel does that has no such socket, cgroup, tunnel or device.
- **none**: a program that calls it is refused, with the helper's name, this reason and how to give it a function.

`bpf_get_stackid`, `bpf_get_stack` and `bpf_get_task_stack` answer -EFAULT, as Linux does where a stack can't be walked:
there is no unwinder for native frames. Clocks, random numbers (`Limits(seed=...)`), cpu numbers and printing are helpers
like the others, and what is printed is in `RunResult.printk`.
"""


KFUNC_NOTE = "These are native. A program that calls another is refused, unless `rt.kfuncs[name]` has a function for it."


def main() -> None:
    """Write the page to stdout."""
    sys.stdout.write(page())


def page() -> str:
    """The page's text."""
    lines = [HEAD, "| id | helper | here |", "| ---: | --- | --- |"]
    lines += [f"| {helper.id} | `{helper.full_name}` | {kind(helper)} |" for helper in HELPERS.values()]
    lines += [
        "",
        "## Kernel functions",
        "",
        KFUNC_NOTE,
        "",
    ]
    native = [name for name, kfunc in KFUNCS.items() if kfunc.name in EMITTERS]
    lines.append(", ".join(f"`{name}`" for name in native))
    return "\n".join([*lines, ""])


def kind(helper: Helper) -> str:
    """What a helper is here."""
    if helper.name in ANSWERS:
        return "nothing there"
    if helper.name in EMITTERS or helper.name in MAP_OPERATIONS:
        return "native"
    return "host" if helper.name in HOST_HELPERS else f"none: {ABSENT[helper.name]}"


if __name__ == "__main__":
    main()
