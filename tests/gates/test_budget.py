"""The gate that counts what runs use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails_mw.budget import Limits
from guardrails_mw.errors import GateError
from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, ToolCall, Where
from guardrails_mw.gate import Cost
from guardrails_mw.gates.budget import BudgetGate
from guardrails_mw.prices import Prices
from guardrails_mw.store import Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Action, Outcome, Remedy, Usage, Verdict

PRICES = Prices({"m": {"input": "1", "output": "1"}})


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "s.db")
    yield opened
    opened.close()


def model(key: str, tokens: int = 10, run: str = "r", name: str = "m", tenant: str = "") -> Event:
    call = ModelCall(name, tokens, 1)
    return Event(Stage.MODEL, Content(""), actor=Actor("u", tenant=tenant), where=Where(run), call=call, key=key)


def call(key: str) -> Event:
    args = {"q": "x"}
    return Event(Stage.TOOL_CALL, Content(args), where=Where("r"), call=ToolCall("search", args), key=key)


def test_budget_blocks_at_the_cap(store: Store) -> None:
    """Calls start while they fit; the one that does not is blocked with the code of its cap and ends the run."""
    gate = BudgetGate("budget", store, Limits(model_calls=2, tool_calls=1), PRICES)
    assert gate.check(model("1")) == gate.check(model("2")) == Verdict.allow()
    assert gate.check(model("3")) == Verdict.block("budget.model_calls", remedy=Remedy.END)
    assert gate.check(call("4")) == Verdict.allow()
    assert gate.check(call("5")) == Verdict.block("budget.tool_calls", remedy=Remedy.END)
    assert gate.check(model("6", run="other")) == Verdict.allow()


def test_budget_settles(store: Store) -> None:
    """What was not used is free for the next call; what was released is as if it had never been."""
    gate = BudgetGate("budget", store, Limits(tokens=20, usd_micro=1000), PRICES)
    gate.check(model("1", tokens=15))
    assert gate.check(model("2", tokens=15)).reason == "budget.tokens"
    gate.settle(model("1", tokens=15), Outcome("done", 0.1, Usage(1, 1)))
    assert gate.check(model("2", tokens=15)).action is Action.ALLOW
    gate.settle(model("2", tokens=15), Outcome("released"))
    assert gate.check(model("3", tokens=17)).action is Action.ALLOW
    gate.settle(model("3", tokens=17), Outcome("unknown"))
    assert gate.check(model("4", tokens=0)).reason == "budget.tokens"


def test_budget_unknown_price() -> None:
    """A model without a price is blocked where money is capped, with a code of its own."""
    gate = BudgetGate("budget", MemoryStore(), Limits(usd_micro=10**9), PRICES)
    assert gate.check(model("1", name="new")) == Verdict.block("budget.unknown_price", remedy=Remedy.END)


def test_budget_warns() -> None:
    """Near the cap the call starts with a flag."""
    gate = BudgetGate("budget", MemoryStore(), Limits(model_calls=2, warn_at=0.8), PRICES)
    assert gate.check(model("1")) == Verdict.allow()
    assert gate.check(model("2")) == Verdict.flag("budget.warn")


def test_budget_by_account_and_prefix() -> None:
    """One budget for a tenant over all its runs, none of it touched by shadow mode or by another gate."""
    store = MemoryStore()
    limits = Limits(model_calls=2)
    tenant = BudgetGate("tenant", store, limits, PRICES, account=lambda event: event.actor.tenant)
    shadow = BudgetGate("tenant", store, limits, PRICES, account=lambda event: event.actor.tenant, prefix="shadow:")
    run = BudgetGate("run", store, limits, PRICES)
    for gate in (tenant, shadow, run):
        assert gate.check(model("1", run="a", tenant="acme")).action is Action.ALLOW
        assert gate.check(model("2", run="b", tenant="acme")).action is Action.ALLOW
    assert tenant.check(model("3", run="c", tenant="acme")).reason == "budget.model_calls"
    assert tenant.check(model("3", run="c", tenant="other")).action is Action.ALLOW
    assert run.check(model("3", run="a", tenant="acme")).action is Action.ALLOW


def test_budget_expires_by_its_clock() -> None:
    """A hold that was never settled is charged when its time is over."""
    times = iter([0.0, 100.0])
    gate = BudgetGate("b", MemoryStore(), Limits(tokens=15), PRICES, ttl=60.0, clock=lambda: next(times))
    gate.check(model("1"))
    assert gate.check(model("2")).reason == "budget.tokens"
    gate.settle(model("1"), Outcome("done", 0.0, Usage(0, 0)))
    assert gate._budget.used("r") == {"tokens": 11}


def test_it_needs_a_call_and_a_key() -> None:
    """What cannot be counted is a gate error, never a free call."""
    gate = BudgetGate("b", MemoryStore(), Limits(), PRICES)
    for event in (model(""), Event(Stage.MODEL, Content(""), key="k")):
        with pytest.raises(GateError):
            gate.check(event)


def test_cost_follows_the_store(tmp_path: Path) -> None:
    """On a store that waits for the disk it runs in a worker thread."""
    slow = SqliteStore(tmp_path / "s.db", "power")
    assert BudgetGate("b", MemoryStore(), Limits(), PRICES).cost is Cost.LINEAR
    assert BudgetGate("b", slow, Limits(), PRICES).cost is Cost.BLOCKING
    slow.close()
