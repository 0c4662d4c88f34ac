"""The report: ``python -m benchmarks``; ``--help`` says what it takes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import agent, budgets, deadlines, engine, loops, scan, startup, stores, streaming, texts
from benchmarks.measure import Table, machine, quoted

TABLES: dict[str, Callable[[int], Table]] = {
    "engine": engine.table,
    "injection": texts.injection_table,
    "pii": texts.pii_table,
    "scan": scan.table,
    "agent": agent.table,
    "streaming": streaming.table,
    "startup": startup.table,
    "deadlines": deadlines.table,
    "stores": stores.table,
    "budgets": budgets.table,
    "loops": loops.table,
}
ROUNDS = {
    "engine": 60, "injection": 20, "pii": 20, "scan": 5, "agent": 200, "startup": 7, "stores": 60, "loops": 20,
    "streaming": 7, "deadlines": 20, "budgets": 60,
}  # fmt: skip


def main() -> None:
    """Print every table as soon as it is measured; write them all at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the guard costs, next to others.")
    parser.add_argument("--out", type=Path, help="also write the report here")
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="these tables")
    parser.add_argument("--scale", type=float, default=1.0, help="rounds, as a factor: 0.2 is a quick look")
    parser.add_argument("--data", type=Path, nargs="+", help="files for the table of loops; its own if left out")
    parser.add_argument("--into", type=Path, nargs="+", default=[], help="pages that quote the tables")
    asked = parser.parse_args()
    began = time.perf_counter()
    parts = [f"# Benchmarks\n\n{machine()}\n"]
    print(parts[0], flush=True)
    for name in asked.only:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rounds = max(5, round(ROUNDS[name] * asked.scale))
        measured = loops.table(rounds, asked.data) if name == "loops" and asked.data else TABLES[name](rounds)
        parts.append(measured.markdown())
        print(parts[-1], flush=True)
        quoted(asked.into, f"time of {name}", measured, machine())
    parts.append(f"Measured in {time.perf_counter() - began:.0f} s.\n")
    print(parts[-1])
    if asked.out:
        asked.out.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
