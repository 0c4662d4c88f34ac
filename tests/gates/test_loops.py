"""The gate that stops loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guardrails_mw.errors import GateError
from guardrails_mw.event import Content, Event, Stage, ToolCall, Where
from guardrails_mw.gate import Cost
from guardrails_mw.gates.loops import LoopsGate
from guardrails_mw.loops import LoopLimits
from guardrails_mw.store import Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Action, Remedy, Verdict


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "s.db")
    yield opened
    opened.close()


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


def test_it_needs_a_call() -> None:
    """What cannot be compared is a gate error."""
    with pytest.raises(GateError):
        LoopsGate("l", MemoryStore()).check(Event(Stage.TOOL_CALL, Content(""), key="k"))


def test_cost_follows_the_store(tmp_path: Path) -> None:
    """On a store that waits for the disk it runs in a worker thread."""
    slow = SqliteStore(tmp_path / "s.db", "power")
    assert LoopsGate("l", MemoryStore()).cost is Cost.LINEAR
    assert LoopsGate("l", slow).cost is Cost.BLOCKING
    slow.close()


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
