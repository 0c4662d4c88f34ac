"""What it costs to start: the import, and a policy at work with its first decision, each in a fresh process."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shutil import copytree

from benchmarks.measure import Table

__all__ = ["table"]

POLICY = Path("configs/default.yaml")
TEXT = "Please send the invoice to ann.miller@example.com, thank you."
_REPORT = """
import time
began = time.perf_counter()
{work}
took = time.perf_counter() - began
try:  # the high-water mark of this process; rusage would carry over its parent's
    lines = open("/proc/self/status").read().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
except OSError:
    import resource
    import sys
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(took * 1000, peak)
"""
_FIRST = """
from guardrails_mw import Guard
decision = Guard.from_yaml({path!r}).check({text!r})
assert decision.edited and "@" not in decision.content.value, decision.verdict
"""
_LANGCHAIN = "from langchain.agents import create_agent\nfrom langchain.agents.middleware import PIIMiddleware"


def _run(work: str) -> tuple[float, float]:
    """Milliseconds of some code and the peak memory in MB of the process that ran it."""
    code = _REPORT.format(work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    milliseconds, peak = done.stdout.split()[-2:]
    return float(milliseconds), float(peak)


def _environment() -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}


def table(rounds: int, policy: Path = POLICY) -> Table:
    """Measure. Every process runs once before the clock counts, so that files are read from memory."""
    rounds = max(7, rounds)
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(copytree(policy.parent, Path(folder) / "configs")) / policy.name  # its store must not stay
        works = {
            "bare Python": ("pass", ""),
            "`import guardrails_mw`": ("import guardrails_mw", "80 ms, 30 MB"),
            "`from guardrails_mw import Guard`": ("from guardrails_mw import Guard", ""),
            f'`Guard.from_yaml("{policy}")` and a first decision': (
                _FIRST.format(path=str(copied), text=TEXT),
                "1,500 ms, 160 MB in all",
            ),
            "LangChain: `create_agent` and `PIIMiddleware`, imported": (_LANGCHAIN, ""),
        }
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
        for number in range(rounds + 1):
            for name, (work, _) in works.items():
                sample = _run(work)
                if number:
                    samples[name].append(sample)
    middle = {
        name: tuple(statistics.median(column) for column in zip(*taken, strict=True)) for name, taken in samples.items()
    }
    bare = middle["bare Python"]
    rows = [
        [name, f"{ms:,.0f}", f"{peak:.0f}", f"{peak - bare[1]:.0f}", works[name][1]]
        for name, (ms, peak) in middle.items()
    ]
    return Table(
        "Starting",
        ["in a fresh process", "ms", "peak RSS MB", "MB over bare Python", "target"],
        rows,
        f"Medians of {rounds} fresh processes each, interleaved; milliseconds from the first line of code on.",
        [f"The first decision is on a text with a mailbox, and is checked: {TEXT!r}"],
    )
