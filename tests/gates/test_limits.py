"""The gates that count."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails_mw.budget import Limits
from guardrails_mw.errors import GateError
from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, ToolCall, Where
from guardrails_mw.gate import Cost
from guardrails_mw.gates.limits import BudgetGate, LoopsGate
from guardrails_mw.loops import LoopLimits
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


def call(
    key: str, args: dict[str, object] | None = None, tool: str = "search", run: str = "r", call_id: str = ""
) -> Event:
    args = {"q": "x"} if args is None else args
    return Event(Stage.TOOL_CALL, Content(args), where=Where(run), call=ToolCall(tool, args, call_id), key=key)


def result(
    key: str,
    value: object,
    args: dict[str, object] | None = None,
    *,
    tool: str = "search",
    run: str = "r",
    call_id: str = "",
) -> Event:
    args = {"q": "x"} if args is None else args
    return Event(Stage.TOOL_RESULT, Content(value), where=Where(run), call=ToolCall(tool, args, call_id), key=key)


# budget


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


def test_gates_need_a_call_and_a_key() -> None:
    """What cannot be counted is a gate error, never a free call."""
    budget, loops = BudgetGate("b", MemoryStore(), Limits(), PRICES), LoopsGate("l", MemoryStore())
    for gate, event in (
        (budget, model("")),
        (budget, Event(Stage.MODEL, Content(""), key="k")),
        (loops, Event(Stage.TOOL_CALL, Content(""), key="k")),
    ):
        with pytest.raises(GateError):
            gate.check(event)


def test_cost_follows_the_store(tmp_path: Path) -> None:
    """Gates on a store that waits for the disk run in a worker thread."""
    slow = SqliteStore(tmp_path / "s.db", "power")
    assert LoopsGate("l", MemoryStore()).cost is Cost.LINEAR
    assert LoopsGate("l", slow).cost is BudgetGate("b", slow, Limits(), PRICES).cost is Cost.BLOCKING
    slow.close()


# loops


def repeat(gate: LoopsGate, count: int, value: object = "nothing", start: int = 0) -> list[Verdict]:
    """Call with the same arguments `count` times; a call that is allowed runs and gives `value`."""
    verdicts = []
    for index in range(start, start + count):
        verdicts.append(gate.check(call(f"c{index}")))
        if verdicts[-1].action is Action.ALLOW:
            gate.check(result(f"r{index}", value))
    return verdicts


def test_loops_ladder(store: Store) -> None:
    """Three calls run, then a hint, a question and the end, once each, and it stays the end."""
    verdicts = repeat(LoopsGate("loops", store), 7)
    assert [v.action for v in verdicts] == [Action.ALLOW] * 3 + [Action.BLOCK, Action.ASK, Action.BLOCK, Action.BLOCK]
    assert [v.remedy for v in verdicts[3:]] == [Remedy.NUDGE, Remedy.REFUSE, Remedy.END, Remedy.END]
    assert {v.reason for v in verdicts[3:]} == {"loop.repeat"}
    assert "You called search 3 times" in verdicts[3].note


def test_loops_polling(store: Store) -> None:
    """A result that changes, be it by a small number deep inside, never trips; a clock alone does."""
    gate = LoopsGate("loops", store)
    for index in range(40):
        assert gate.check(call(f"c{index}")).action is Action.ALLOW
        gate.check(result(f"r{index}", {"job": {"done": index}}))
    clock = LoopsGate("clock", MemoryStore())
    for index in range(3):
        clock.check(result(f"r{index}", f"pending at 10:00:0{index}"))
    assert clock.check(call("c")).remedy is Remedy.NUDGE


def test_loops_start_anew_after_something_new(store: Store) -> None:
    """Another call with a new result ends the streak; the ladder begins at its first rung again."""
    gate = LoopsGate("loops", store)
    repeat(gate, 5)
    gate.check(result("n", "news", {"q": "y"}))
    assert [v.action for v in repeat(gate, 4, start=10)] == [Action.ALLOW] * 3 + [Action.BLOCK]
    assert gate.check(call("last")).action is Action.ASK


def test_loops_answer_the_same_again(store: Store) -> None:
    """A node that runs again gets the answer it got, and neither calls nor results count twice."""
    gate = LoopsGate("loops", store)
    for _ in range(5):
        gate.check(result("r1", "nothing"))
    assert gate.check(call("c2")).action is Action.ALLOW
    gate.check(result("r2", "nothing"))
    gate.check(result("r3", "nothing"))
    assert [gate.check(call("c4")).remedy for _ in range(5)] == [Remedy.NUDGE] * 5
    assert [gate.check(call("c5")).action for _ in range(5)] == [Action.ASK] * 5
    assert gate.check(call("c4")).remedy is Remedy.NUDGE


@pytest.mark.parametrize("same_key", [True, False])
def test_loops_after_an_approval(store: Store, same_key: bool) -> None:
    """A call that a person let through counts once; its new result ends the loop, its old one continues it."""
    for value, expected in (("nothing", Remedy.END), ("found", None)):
        gate = LoopsGate("loops", store, prefix=value)
        repeat(gate, 4)
        assert gate.check(call("asked", call_id="t1")).action is Action.ASK
        for _ in range(2):
            gate.check(result("asked" if same_key else "asked-result", value, call_id="" if same_key else "t1"))
        verdict = gate.check(call("next"))
        assert (verdict.remedy if verdict.action is Action.BLOCK else None) is expected


def test_loops_runs_and_prefixes_are_apart(store: Store) -> None:
    """A loop in one run, or in shadow mode, is none in another."""
    gate, shadow = LoopsGate("loops", store), LoopsGate("loops", store, prefix="shadow:")
    repeat(gate, 4)
    assert gate.check(call("x", run="other")).action is Action.ALLOW
    assert shadow.check(call("x")).action is Action.ALLOW


def test_loops_configured(store: Store) -> None:
    """The ladder of the policy is the ladder."""
    gate = LoopsGate("loops", store, LoopLimits(repeats=2, then=("block",)))
    assert [v.remedy for v in repeat(gate, 4)[2:]] == [Remedy.END] * 2


def test_loops_leave_polling_tools_alone(store: Store) -> None:
    """A tool that polls is never stopped, whatever it answers; other tools are."""
    gate = LoopsGate("loops", store, polls=["status"])
    for index in range(9):
        assert gate.check(call(f"c{index}", tool="status")).action is Action.ALLOW
        gate.check(result(f"r{index}", "running", tool="status"))
    assert repeat(gate, 4, start=20)[3].remedy is Remedy.NUDGE


def test_loops_keep_hashes_only(store: Store) -> None:
    """Neither arguments nor results are in the register, and it does not grow with the run."""
    gate = LoopsGate("loops", store, secret=b"s")
    for index in range(100):
        gate.check(result(f"r{index}", f"secret-result-{index}", {"q": f"secret-args-{index}"}))
    [key] = store.keys("")
    kept = store.get(key)
    assert key == "loops:r"
    assert kept is not None
    assert "secret" not in kept
    assert len(kept) < 32 * 120


def test_loops_race(store: Store) -> None:
    """Results that come at the same time are all remembered."""
    gate = LoopsGate("loops", store, LoopLimits(repeats=16))
    barrier = threading.Barrier(16)

    def work(index: int) -> None:
        barrier.wait()
        gate.check(result(f"r{index}", "nothing"))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gate.check(call("c")).remedy is Remedy.NUDGE
