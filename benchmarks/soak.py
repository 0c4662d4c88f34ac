"""A guard that works for a long time: latency and memory of each tenth of a million events.

Every event is a model or tool call that is decided by two budgets and the loop breaker, recorded in SQLite and
settled; runs have 20 events each, so that a million events are 50,000 runs of 500 tenants.

    python -m benchmarks.soak --events 1000000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

from guardrails_mw.document import Document
from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, ToolCall, Where
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.verdict import Outcome, Usage

POLICY = """version: 1
store: sqlite:///soak.db
budgets:
  run: {model_calls: 1000, tool_calls: 1000, usd: 100}
  tenant: {per: day, usd: 1000000, tokens: 1000000000}
prices: {"*": {input: "1", output: "2"}}
loops: {repeats: 5}
"""


def events(number: int) -> Event:
    """The event with a number: two calls of a model, then one of a tool."""
    run = f"run-{number // 20}"
    where, actor = Where(run=run, thread=run), Actor(f"u{number % 5000}", tenant=f"t{number % 500}")
    if number % 3 < 2:
        call = ModelCall("m", 200, 100)
        return Event(Stage.MODEL, Content(None), actor=actor, where=where, call=call, key=f"{run}|{number}")
    args = {"query": f"word {number}"}
    tool = ToolCall("search", args, id=str(number))
    return Event(Stage.TOOL_CALL, Content(args), actor=actor, where=where, call=tool, key=f"{run}|{number}")


def rss() -> float:
    """Resident memory now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def main() -> None:
    """Print a line per tenth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    total = parser.parse_args().events
    outcome = Outcome("done", 0.5, Usage(180, 60), "m")
    with tempfile.TemporaryDirectory() as folder:
        policy = Policy.load(Document(POLICY), base=Path(folder))
        with Guard(policy) as guard:
            print(f"{'events':>10} {'p50 µs':>8} {'p99 µs':>8} {'RSS MiB':>8} {'file MiB':>9}")
            for tenth in range(10):
                times = []
                for number in range(tenth * total // 10, (tenth + 1) * total // 10):
                    event, began = events(number), time.perf_counter()
                    guard.settle(guard.decide(event), outcome)
                    times.append(time.perf_counter() - began)
                times.sort()
                size = sum(file.stat().st_size for file in Path(folder).iterdir()) / 2**20
                figures = (median(times) * 1e6, times[len(times) * 99 // 100] * 1e6, rss(), size)
                p50, p99, memory, disk = (f"{figure:.0f}" for figure in figures)
                print(f"{(tenth + 1) * total // 10:>10,} {p50:>8} {p99:>8} {memory:>8} {disk:>9}", flush=True)


if __name__ == "__main__":
    main()
