"""Measuring side by side: every candidate once a round, in an order that turns, and the median of the rounds.

What a machine does meanwhile then hits all candidates alike, so ratios hold where single figures do not.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = [
    "Call",
    "Table",
    "interleaved",
    "machine",
    "micros",
    "quiet_collector",
    "quoted",
    "repeated",
    "repeated_async",
    "share",
    "times",
    "wilson",
]

Call = Callable[[], object]
"""One sample: what runs between two readings of the clock, or gives back the seconds it took itself."""

_LIBRARIES = (
    "google-re2", "pydantic", "presidio-analyzer", "spacy", "regex", "phonenumbers", "langchain", "langchain-core",
    "langgraph", "langgraph-checkpoint",
)  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of the report, with what to know about it above and how to read it below."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    about: str = ""
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """The table as GitHub shows it; the first column is text, the others are figures."""
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in (self.head, rule, *self.rows)]
        parts = [f"## {self.title}", self.about, "\n".join(lines), "\n".join(f"- {note}" for note in self.notes)]
        return "\n\n".join(part for part in parts if part) + "\n"


def quoted(pages: Sequence[Path], name: str, table: Table, below: str = "") -> None:
    """Put a table where the pages quote it: between ``<!-- figures: NAME -->`` and ``<!-- figures:end -->``."""
    body = "\n\n".join(part for part in (table.markdown().partition("\n")[2].strip(), below) if part)
    pattern = re.compile(rf"(<!-- figures: {re.escape(name)} -->\n).*?(<!-- figures:end -->)", re.DOTALL)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(pattern.sub(lambda found: f"{found[1]}{body}\n{found[2]}", text), encoding="utf-8")


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927), as fractions.

    >>> [round(bound, 3) for bound in wilson(0, 100)]
    [0.0, 0.037]
    """
    share, spread = hits / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(found: Sequence[bool]) -> str:
    """A share with its Wilson 95 % interval, in percent.

    >>> share([True, True, True, False])
    '75.0 % (30.1 to 95.4)'
    """
    if not found:
        return "-"
    low, high = wilson(sum(found), len(found))
    return f"{sum(found) / len(found):.1%} ({low * 100:.1f} to {high * 100:.1f})".replace("%", " %")


def interleaved(calls: Mapping[str, Call], rounds: int, warm: int = 2) -> dict[str, float]:
    """Median seconds of each call. A call that returns a float has timed itself, without its set-up."""
    names, samples = list(calls), {name: list[float]() for name in calls}
    for name in names * warm:
        calls[name]()
    with quiet_collector():
        for number in range(rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                began = time.perf_counter()
                own = calls[name]()
                took = time.perf_counter() - began
                samples[name].append(own if isinstance(own, float) else took)
            gc.collect(0)
    return {name: statistics.median(taken) for name, taken in samples.items()}


@contextmanager
def quiet_collector() -> Iterator[None]:
    """No garbage collection in the middle of a sample; what exists is put aside first."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def repeated(call: Callable[[], object], count: int) -> Call:
    """A sample of `count` calls that returns seconds per call."""

    def sample() -> float:
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count

    return sample


def repeated_async(call: Callable[[], Awaitable[object]], count: int, loop: asyncio.AbstractEventLoop) -> Call:
    """A sample of `count` awaited calls, one after the other in a running loop; seconds per call."""

    async def sample() -> float:
        began = time.perf_counter()
        for _ in range(count):
            await call()
        return (time.perf_counter() - began) / count

    return lambda: loop.run_until_complete(sample())


def micros(seconds: float) -> str:
    """Seconds as microseconds, with three significant digits or none after the point.

    >>> micros(0.0000123), micros(0.012345)
    ('12.3', '12,345')
    """
    value = seconds * 1e6
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def times(ours: float, theirs: float) -> str:
    """How often `ours` fits into `theirs`."""
    return f"{theirs / ours:.2f}x" if ours > 0 else "-"


def machine() -> str:
    """What the figures were measured on, and with what."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [f"guardrails-mw {_version('guardrails-mw')}", *(f"{name} {_version(name)}" for name in _LIBRARIES)]
    system = f"{platform.system()} {platform.machine()}"
    return f"{system}, {cores} cores, {_cpu()}, Python {platform.python_version()}; " + ", ".join(found)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    except OSError:
        return platform.processor() or "?"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
