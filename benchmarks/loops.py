"""How many loops are found, how late, and how many false alarms: ``python benchmarks/loops.py [FILE.jsonl ...]``.

A line of a file has ``label`` (``loop`` or ``ok``), ``pattern``, ``loop_from`` (the step, from 1, at which a loop
begins; a verdict before it is a false alarm) and ``steps`` of ``tool``, ``args``, ``result`` and ``ok``. Without a file
it takes those beside this module, all of them written, none recorded. ``loops_varied`` was frozen before the rules were
made general, the others each after they were, to see what they do at first sight.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from benchmarks.measure import Table, wilson
from guardrails_mw.loops import LoopLimits, first_loop
from guardrails_mw.loops.likeness import step_of

__all__ = ["OWN", "Found", "judged", "main", "table"]

OWN = sorted(Path(__file__).parent.glob("loops*.jsonl"))


class Call(TypedDict):
    """A step of a sequence."""

    tool: str
    args: dict[str, object]
    result: str
    ok: bool


class Row(TypedDict, total=False):
    """A line of a file."""

    id: str
    label: str
    pattern: str
    loop_from: int
    steps: list[Call]


@dataclass
class Found:
    """What was found in a file: patterns of loops that were missed and of false alarms, and steps until a verdict."""

    loops: int = 0
    fine: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    after: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    @property
    def delays(self) -> list[int]:
        """Steps from the beginning of each loop that was found to its verdict."""
        return sorted(delay for delays in self.after.values() for delay in delays)


def judged(rows: Sequence[Row], limits: LoopLimits) -> Found:
    """Judge every sequence."""
    found = Found()
    for row in rows:
        verdict = first_loop((step_of(s["tool"], s["args"], s["result"], s["ok"]) for s in row["steps"]), limits)
        begins = row["loop_from"] if row["label"] == "loop" else len(row["steps"]) + 1
        early = verdict is not None and verdict[0] < begins
        found.false[row["pattern"]] += early
        if row["label"] != "loop":
            found.fine += 1
            continue
        found.loops += 1
        if verdict is None or early:
            found.missed[row["pattern"]] += 1
        else:
            found.after[verdict[1].kind].append(verdict[0] - begins + 1)
    return found


def rows_of(path: Path) -> list[Row]:
    """The lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _micros(rows: Sequence[Row], rounds: int) -> float:
    """Microseconds of processor time per step, hashes included: the best of some rounds."""
    count, best = sum(len(row["steps"]) for row in rows), float("inf")
    for _ in range(rounds):
        began = time.process_time()
        judged(rows, LoopLimits())
        best = min(best, time.process_time() - began)
    return 1e6 * best / count


def table(rounds: int, paths: Sequence[Path] = ()) -> Table:
    """What the loop breaker finds at its defaults."""
    lines: list[list[str]] = []
    notes: list[str] = []
    for path in paths or OWN:
        rows = rows_of(path)
        found = judged(rows, LoopLimits())
        caught, false, delays = found.loops - found.missed.total(), found.false.total(), found.delays or [0]
        low, high = wilson(caught, max(1, found.loops))
        lines.append(
            [
                path.name,
                f"{caught} of {found.loops} ({low:.0%} to {high:.0%})",
                f"{false} of {found.fine}",
                f"{statistics.median(delays):g}, at most {delays[-1]}",
                f"{_micros(rows, rounds):.1f}",
            ]
        )
        for name, patterns in (("missed", found.missed), ("false alarms", found.false)):
            if patterns.total():
                notes.append(f"{path.name}, {name}: {', '.join(f'{what} ({n})' for what, n in patterns.items() if n)}")
        kinds = ", ".join(f"{kind} {len(d)} (step {min(d)} to {max(d)})" for kind, d in sorted(found.after.items()))
        notes.append(f"{path.name}, found as: {kinds}")
    head = ["sequences", "loops found (95 % interval)", "false alarms", "steps from its beginning", "CPU µs per step"]
    return Table("Loops", head, lines, notes=notes)


def main(argv: Sequence[str]) -> None:
    """Print the table, and how it shifts with the limit on repetitions."""
    paths = [Path(name) for name in argv] or OWN
    print(table(3, paths).markdown())
    for path in paths:
        rows = rows_of(path)
        for repeats in (3, 4, 5, 6):
            found = judged(rows, LoopLimits(repeats=repeats))
            caught = found.loops - found.missed.total()
            print(f"{path.name} repeats={repeats}: {caught} of {found.loops} found, {found.false.total()} false alarms")


if __name__ == "__main__":
    main(sys.argv[1:])
