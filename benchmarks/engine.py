"""What one decision costs apart from what its gates look for."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from benchmarks.measure import Call, Table, interleaved, micros, repeated, repeated_async
from guardrails_mw.engine import Engine, Settings, Step
from guardrails_mw.event import Content, Event, Stage, Where
from guardrails_mw.gate import Cost, Gate
from guardrails_mw.gates.python import PythonGate, Recipe
from guardrails_mw.ledger import Ledger
from guardrails_mw.recorder import LedgerRecorder
from guardrails_mw.redaction import Redactor
from guardrails_mw.stores import open_store
from guardrails_mw.verdict import Action, Verdict
from guardrails_mw.workers import IsolatedWorker

__all__ = ["table"]

TEXT = "Where is my order, and when will it arrive?"
_PER_SAMPLE = {"4 trivial gates, no recorder": 200, "one isolated gate, no recorder": 20}
_TARGETS = {"4 trivial gates, no recorder": "10", "one blocking gate, no recorder": "100"}


def trivial(_event: object) -> Verdict:
    """A check that looks at nothing."""
    return Verdict.allow()


class Trivial(Gate):
    """A linear gate that looks at nothing."""

    def check(self, event: Event) -> Verdict:
        """Nothing to say."""
        return Verdict.allow()


def _engine(recorder: LedgerRecorder | None = None, cost: Cost | None = None) -> Engine:
    if cost is None:
        steps = [Step(Trivial(f"gate-{number}"), 0.3, Action.BLOCK) for number in range(4)]
    else:
        recipe = Recipe("benchmarks.engine:trivial")
        process = IsolatedWorker(recipe.load) if cost is Cost.ISOLATED else None
        if process is not None:
            process.start()
        steps = [Step(PythonGate("gate", recipe, cost), 2.0, Action.BLOCK, process)]
    return Engine({Stage.INPUT: steps}, Settings("1:benchmark"), recorder)


def _recorder(url: str, base: Path, durability: str = "process") -> LedgerRecorder:
    store = open_store(url, base, durability)  # type: ignore[arg-type]
    return LedgerRecorder(Ledger(store), Redactor([]), b"benchmark", content=True, blocking=store.blocking)


def _event(key: str = "") -> Event:
    return Event(Stage.INPUT, Content(TEXT), where=Where(run="benchmark"), key=key)


def _samples(engines: dict[str, Engine], loop: asyncio.AbstractEventLoop) -> dict[str, Call]:
    ready = _event("the same")
    calls: dict[str, Call] = {}
    for name, engine in engines.items():
        count = _PER_SAMPLE.get(name, 50)
        event = (lambda: ready) if "no recorder" in name else _event
        calls[f"{name}|sync"] = repeated(lambda engine=engine, event=event: engine.decide(event()), count)
        calls[f"{name}|async"] = repeated_async(lambda engine=engine, event=event: engine.adecide(event()), count, loop)
    return calls


def table(rounds: int) -> Table:
    """Measure, and check that every engine answers without an error."""
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        engines = {
            "4 trivial gates, no recorder": _engine(),
            "4 trivial gates, memory ledger": _engine(_recorder("memory:", Path(folder))),
            "4 trivial gates, SQLite `process`": _engine(_recorder("sqlite:///process.db", Path(folder))),
            "4 trivial gates, SQLite `power`": _engine(_recorder("sqlite:///power.db", Path(folder), "power")),
            "one blocking gate, no recorder": _engine(cost=Cost.BLOCKING),
            "one isolated gate, no recorder": _engine(cost=Cost.ISOLATED),
        }
        for name, engine in engines.items():
            decision = engine.decide(_event())
            assert decision.action is Action.ALLOW, (name, decision.verdict)
            assert not any(check.error for check in decision.checks), (name, decision.checks)
        took = interleaved(_samples(engines, loop), rounds)
        for engine in engines.values():
            engine.close()
    loop.close()
    rows = [
        [name, micros(took[f"{name}|sync"]), micros(took[f"{name}|async"]), _TARGETS.get(name, "")] for name in engines
    ]
    return Table(
        "One decision through the engine",
        ["configuration", "sync us", "async us", "target us"],
        rows,
        f"Median microseconds of one decision on a text of {len(TEXT)} characters, {rounds} interleaved rounds.",
        [
            "Without a recorder the event is made beforehand; with one, every decision is of a new event.",
            "`power` waits for the disk at every decision: its figure is the disk's.",
            "A blocking gate crosses to a worker thread and back, an isolated one to another process.",
        ],
    )
