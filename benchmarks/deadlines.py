"""How exactly deadlines hold: gates that never answer, while both cores are busy."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Table
from guardrails_mw.document import Document
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.stores import open_store
from guardrails_mw.testing.faults import Fault, failing
from guardrails_mw.verdict import Decision

__all__ = ["BUSY", "allowed", "busy", "overruns", "table"]

BUSY = 2
"""Processes that do nothing but use up time."""
CASES = (
    ("blocking", Fault.OVERRUNS, "sync"),
    ("blocking", Fault.OVERRUNS, "async"),
    ("isolated", Fault.HOLDS_LOCK, "sync"),
    ("isolated", Fault.HOLDS_LOCK, "async"),
)


def _spin(parent: int) -> None:
    while os.getppid() == parent:  # ends with whoever is measuring
        sum(range(10_000))


@contextmanager
def busy(number: int = BUSY) -> Iterator[None]:
    """So many cores are busy while the block runs."""
    context = multiprocessing.get_context("spawn")
    spinning = [context.Process(target=_spin, args=(os.getpid(),), daemon=True) for _ in range(number)]
    for each in spinning:
        each.start()
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.join()


def allowed(milliseconds: float) -> float:
    """The time within which an overrun is a block, in milliseconds: 10 % and 20 ms more than the deadline."""
    return 1.1 * milliseconds + 20


def overruns(cost: str, fault: Fault, world: str, milliseconds: int, rounds: int) -> list[float]:
    """How long decisions on a gate took that does not answer, in milliseconds."""
    source = f"""
version: 1
deadline_ms: {milliseconds}
gates: {{mine: {{type: python, call: "guardrails_mw.verdict:Verdict.block", cost: {cost}}}}}
stages: {{input: [mine]}}
"""
    taken = []
    policy = Policy.load(Document(source))
    with Guard(policy, store=open_store("memory:", Path())) as guard, failing(guard, "mine", fault):
        for number in range(rounds):
            guard.engine.start()  # a process that was killed has to load again, which is nobody's deadline
            event = Event(Stage.INPUT, Content(f"hello {number}"))
            began = time.perf_counter()
            decision = guard.decide(event) if world == "sync" else asyncio.run(_timed(guard, event))
            taken.append((time.perf_counter() - began) * 1000)
            assert decision.verdict.reason == "error.deadline", decision.verdict
    return taken


async def _timed(guard: Guard, event: Event) -> Decision:
    return await guard.adecide(event)


def table(rounds: int) -> Table:
    """Gates by cost, with their deadline."""
    rows = []
    with busy():
        for cost, fault, world in CASES:
            for milliseconds in (50, 300, 1000):
                taken = sorted(overruns(cost, fault, world, milliseconds, rounds))
                within = sum(each <= allowed(milliseconds) for each in taken) / len(taken)
                p50, worst = statistics.median(taken), taken[-1]
                rows.append(
                    [f"{cost}, {fault}, {world}", f"{milliseconds}", f"{p50:.0f}", f"{worst:.0f}", f"{within:.0%}"]
                )
    return Table(
        "Deadlines, with two cores busy", ["gate", "deadline ms", "p50 ms", "worst ms", "within 10 % + 20 ms"], rows
    )
