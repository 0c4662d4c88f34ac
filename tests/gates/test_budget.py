"""The gate that counts what runs, people and tenants use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails_mw.account import Limits
from guardrails_mw.budget import Budget
from guardrails_mw.errors import GateError
from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, ToolCall, Where
from guardrails_mw.gate import Cost
from guardrails_mw.gates.budget import BudgetGate
from guardrails_mw.ledger import Ledger
from guardrails_mw.prices import Prices
from guardrails_mw.spend import Spend, spend
from guardrails_mw.store import Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Action, Check, Decision, Outcome, Remedy, Usage, Verdict

PRICES = Prices({"m": {"input": "1", "output": "1"}})


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "s.db")
    yield opened
    opened.close()


def gate_of(*limits: Limits, store: Store | None = None, **options: object) -> BudgetGate:
    return BudgetGate("budget", Budget(store or MemoryStore(), limits, PRICES), **options)


def model(key: str, *, tokens: int = 10, run: str = "r", name: str = "m", tenant: str = "", most: int = 1) -> Event:
    call = ModelCall(name, tokens, most, limitable=most > 1)
    return Event(Stage.MODEL, Content(""), actor=Actor("u", tenant=tenant), where=Where(run), call=call, key=key)


def call(key: str, tool: str = "search") -> Event:
    args = {"q": "x"}
    return Event(Stage.TOOL_CALL, Content(args), where=Where("r"), call=ToolCall(tool, args), key=key)


def test_it_blocks_at_the_cap(store: Store) -> None:
    """Calls start while they fit; the one that does not is blocked with the code of its cap and ends the run."""
    gate = gate_of(Limits("run", model_calls=2, tool_calls=1), store=store)
    assert gate.check(model("1")) == gate.check(model("2")) == Verdict.allow()
    third = gate.check(model("3"))
    assert (third.action, third.reason, third.remedy) == (Action.BLOCK, "budget.run.model_calls", Remedy.END)
    assert dict(third.facts) == {"cap": 2, "used": 2, "left": 0, "asked": 1}
    assert gate.check(call("4")) == Verdict.allow()
    assert gate.check(call("5")).reason == "budget.run.tool_calls"
    assert gate.check(model("6", run="other")) == Verdict.allow()


def test_it_settles(store: Store) -> None:
    """What was not used is free for the next call; what was released is as if it had never been."""
    gate = gate_of(Limits("run", tokens=20, usd_micro=1000), store=store)
    gate.check(model("1", tokens=15))
    assert gate.check(model("2", tokens=15)).reason == "budget.run.tokens"
    gate.settle(model("1", tokens=15), Outcome("done", 0.1, Usage(1, 1)))
    assert gate.check(model("2", tokens=15)).action is Action.ALLOW
    gate.settle(model("2", tokens=15), Outcome("released"))
    assert gate.check(model("3", tokens=17)).action is Action.ALLOW
    gate.settle(model("3", tokens=17), Outcome("unknown"))
    assert gate.check(model("4", tokens=0)).reason == "budget.run.tokens"


def test_unknown_price() -> None:
    """A model without a price is blocked where money is capped, with a code of its own."""
    gate = gate_of(Limits("run", usd_micro=10**9))
    assert gate.check(model("1", name="new")) == Verdict.block("budget.unknown_price", remedy=Remedy.END)


def test_it_warns_once() -> None:
    """The first call near the cap starts with a flag, the next without."""
    gate = gate_of(Limits("run", model_calls=10, warn_at=0.5))
    verdicts = [gate.check(model(str(number))) for number in range(1, 8)]
    assert [verdict.action for verdict in verdicts].count(Action.FLAG) == 1
    assert verdicts[4] == Verdict.flag("budget.run.model_calls")


def test_it_shortens_answers() -> None:
    """A call whose caller can limit the answer is let through with a limit."""
    gate = gate_of(Limits("run", tokens=200))
    assert gate.check(model("1", tokens=50, most=1000)) == Verdict(max_tokens=150)


@pytest.mark.parametrize(
    ("then", "action", "remedy"),
    [
        ("end", Action.BLOCK, Remedy.END),
        ("block", Action.BLOCK, Remedy.REFUSE),
        ("cheaper", Action.BLOCK, Remedy.CHEAPER),
        ("ask", Action.ASK, Remedy.REFUSE),
    ],
)
def test_what_exhaustion_means(then: str, action: Action, remedy: Remedy) -> None:
    """The policy says what follows: the end, a block, a cheaper model, or a question that raises the cap once."""
    gate = gate_of(Limits("run", model_calls=1, then=then), asks=then == "ask")
    gate.check(model("1"))
    verdict = gate.check(model("2"))
    assert (verdict.action, verdict.remedy) == (action, remedy)
    assert gate.may(Stage.MODEL) == ({"block", "ask"} if then == "ask" else {"block"})
    if then == "ask":
        gate.grant(model("2"), verdict.reason, "approval")
        assert gate.check(model("2")) == Verdict.allow()
        assert gate.check(model("3")).action is Action.ASK


def test_verdicts_cost_points_once() -> None:
    """A flag elsewhere in the run costs its points, also when it is observed twice; the gate's own verdicts do not."""
    gate = gate_of(Limits("run", risk=3), points={Action.FLAG: 2, Action.BLOCK: 5})
    event = Event(Stage.INPUT, Content("x"), where=Where("r"), key="i")

    def decided(action: Action, key: str, gate_name: str = "injection") -> Decision:
        verdict = Verdict(action, "code")
        checks = (Check(gate_name, verdict),)
        mine = Event(event.stage, event.content, where=event.where, key=key)
        return Decision("d", mine, action, verdict, checks, event.content, event.content, "p", 0.0)

    for _ in range(2):
        gate.observe(decided(Action.FLAG, "1"))
    gate.observe(decided(Action.ALLOW, "2"))
    gate.observe(decided(Action.BLOCK, "3", "budget"))
    assert gate.check(call("4")) == Verdict.allow()
    gate.observe(decided(Action.FLAG, "5"))
    assert gate.check(call("6")).reason == "budget.run.risk"


def test_every_call_is_in_the_ledger(store: Store) -> None:
    """What a call cost is kept once, with what is an estimate marked as one, and added up by whatever is asked for."""
    ledger = Ledger(store)
    gate = gate_of(Limits("run", model_calls=10), store=store, ledger=ledger, tools={"search"})
    for event, outcome in (
        (model("1", tenant="acme"), Outcome("done", 1.0, Usage(100, 50), "m")),
        (model("1", tenant="acme"), Outcome("done", 1.0, Usage(100, 50), "m")),
        (model("2", tenant="acme", name="new"), Outcome("done", 0.5, Usage(7, 3, estimated=True))),
        (model("3", tenant="b", run="s"), Outcome("unknown", 0.25)),
        (model("4", tenant="b", run="s"), Outcome("released")),
        (call("5"), Outcome("done", 2.0)),
        (call("6", "my secret: hunter2"), Outcome("done", 2.0)),
    ):
        gate.check(event)
        gate.settle(event, outcome)
    assert spend(ledger, "tenant") == [
        Spend("acme", 150, 107, 53, 2, seconds=1.5, unpriced=1, estimated=1),
        Spend("b", 11, 10, 1, 1, seconds=0.25, estimated=1, unknown=1),
        Spend("", tool_calls=2, seconds=4.0),
    ]
    assert [(each.name, each.usd_micro) for each in spend(ledger, "model")] == [("m", 161), ("new", 0)]
    assert {each.name for each in spend(ledger, "tool")} == {"search", ""}
    assert [(each.name, each.usd_micro) for each in spend(ledger, "run", runs=["s"])] == [("s", 11)]
    assert spend(ledger, "day", since=9e9) == []
    with pytest.raises(ValueError, match="costs add up by"):
        spend(ledger, "colour")


def test_it_needs_a_call_and_a_key() -> None:
    """What cannot be counted is a gate error, never a free call."""
    gate = gate_of(Limits("run", model_calls=1))
    for event in (model(""), Event(Stage.MODEL, Content(""), key="k")):
        with pytest.raises(GateError):
            gate.check(event)


def test_cost_follows_the_store() -> None:
    """On a store that waits for a disk or a network it runs in a worker thread."""
    assert gate_of(Limits("run", tokens=1)).cost is Cost.LINEAR
    assert gate_of(Limits("run", tokens=1), blocking=True).cost is Cost.BLOCKING
