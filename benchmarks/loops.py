"""How many loops are found, and how many false alarms. Run: ``python benchmarks/loops.py FILE.jsonl``.

A line of the file has ``label`` (``loop`` or ``ok``), ``pattern``, ``loop_from`` (step, from 1, at which a loop
begins; a verdict before it is a false alarm) and ``steps`` of ``tool``, ``args`` and ``result``.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

from guardrails_mw.loops import LoopLimits, Step, call_key, find_loop, result_key


def first_stop(steps: list[Step], limits: LoopLimits) -> int | None:
    """The step (from 1) that would be stopped first."""
    return next((i + 1 for i, step in enumerate(steps) if find_loop(steps[:i], step.call, limits)), None)


def main(path: str) -> None:
    """Print figures for several settings, and what was missed at the default."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    start = time.perf_counter()
    runs = [[Step(call_key(s["tool"], s["args"]), result_key(s["result"])) for s in row["steps"]] for row in rows]
    count = sum(map(len, runs))
    print(f"{count} steps, keys {1e6 * (time.perf_counter() - start) / count:.1f} µs per step")
    for repeats in (2, 3, 4, 5, 6):
        limits, missed, false, total = LoopLimits(repeats=repeats), Counter(), Counter(), Counter()
        start = time.perf_counter()
        for row, steps in zip(rows, runs, strict=True):
            total[row["label"]] += 1
            stop = first_stop(steps, limits)
            if row["label"] == "loop" and (stop is None or stop < row["loop_from"]):
                missed[row["pattern"]] += 1
            if stop is not None and stop < row.get("loop_from", len(steps) + 1):
                false[row["pattern"]] += 1
        micros = 1e6 * (time.perf_counter() - start) / count
        print(
            f"repeats={repeats}: {total['loop'] - missed.total()} of {total['loop']} loops, "
            f"{false.total()} false alarms ({total['ok']} ok), find_loop {micros:.1f} µs"
        )
        if repeats == LoopLimits().repeats:
            print("  missed:", dict(missed))
            print("  false: ", dict(false))


if __name__ == "__main__":
    main(sys.argv[1])
