"""What the budget gate takes for a model call: reserve it, settle it, and keep what it cost in the ledger."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Call, Table, interleaved, micros, repeated
from guardrails_mw.account import Limits
from guardrails_mw.budget import Budget
from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, Where
from guardrails_mw.gates.budget import BudgetGate
from guardrails_mw.ledger import Ledger
from guardrails_mw.prices import Prices
from guardrails_mw.store import Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Outcome, Usage

__all__ = ["table"]

COUNT = 20
"""Calls in one sample."""
TARGET = 150
"""Microseconds on SQLite."""
_MUCH = 10**15
_LIMITS: Mapping[str, Sequence[Limits]] = {
    "one account, calls": [Limits("run", model_calls=_MUCH)],
    "one account, money, tokens, calls, seconds": [
        Limits("run", usd_micro=_MUCH, tokens=_MUCH, model_calls=_MUCH, milliseconds=_MUCH)
    ],
    "three nested accounts, money": [
        Limits("run", usd_micro=_MUCH),
        Limits("actor", per="day", usd_micro=_MUCH),
        Limits("tenant", per="month", usd_micro=_MUCH),
    ],
    "three nested accounts, money and calls": [
        Limits("run", usd_micro=_MUCH, model_calls=_MUCH),
        Limits("actor", per="day", usd_micro=_MUCH, model_calls=_MUCH),
        Limits("tenant", per="month", usd_micro=_MUCH, model_calls=_MUCH),
    ],
}


def table(rounds: int) -> Table:
    """Microseconds per model call, both ends of it together."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        calls: dict[str, Call] = {}
        for name, limits in _LIMITS.items():
            for kind in ("memory", "SQLite"):
                file = Path(folder) / f"{len(calls)}.db"
                store: Store = MemoryStore() if kind == "memory" else SqliteStore(file)
                stack.callback(store.close)
                calls[f"{name}/{kind}"] = _calls(store, limits)
        found = interleaved(calls, rounds)
    rows = [[name, micros(found[f"{name}/memory"]), micros(found[f"{name}/SQLite"]), str(TARGET)] for name in _LIMITS]
    return Table(
        "Budget gate",
        ["limits", "memory µs", "SQLite µs", "target µs"],
        rows,
        "A model call: reserve, settle, and an entry in the ledger; one caller.",
    )


def _calls(store: Store, limits: Sequence[Limits]) -> Call:
    prices = Prices({"m": {"input": "2.50", "output": "10"}})
    gate, numbers = BudgetGate("budget", Budget(store, limits, prices), ledger=Ledger(store)), itertools.count()
    where, actor = Where(run="t1/1f2e3d4c", thread="t1", task="model:1"), Actor("u1", tenant="acme")
    ended = Outcome("done", 0.8, Usage(900, 120), "m")

    def call() -> None:
        asked = ModelCall("m", 1000, 500)
        event = Event(Stage.MODEL, Content(None), actor=actor, where=where, call=asked, key=f"t1|{next(numbers)}")
        if gate.check(event).action.word != "allow":
            raise RuntimeError("not admitted")
        gate.settle(event, ended)

    return repeated(call, COUNT)
