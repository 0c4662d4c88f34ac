"""The gate that stops loops."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from guardrails_mw.errors import GateError
from guardrails_mw.event import Content, Event, Stage, ToolCall, Where
from guardrails_mw.gate import Cost
from guardrails_mw.gates.loops import LoopsGate
from guardrails_mw.loops import LoopLimits
from guardrails_mw.loops.likeness import Habits
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
    key: str,
    args: dict[str, object] | None = None,
    tool: str = "search",
    *,
    run: str = "r",
    turn: str = "",
) -> Event:
    args = {"q": "x"} if args is None else args
    made = ToolCall(tool, args, key)
    return Event(Stage.TOOL_CALL, Content(args), where=Where(run, turn=turn), call=made, key=key)


def result(of: Event, value: object, failed: bool = False) -> Event:
    """What a call gave back, under a key of its own as in every seam."""
    assert of.tool is not None
    return replace(
        of,
        stage=Stage.TOOL_RESULT,
        content=Content(value),
        call=replace(of.tool, failed=failed),
        key=f"result {of.key}",
    )


def done(gate: LoopsGate, event: Event, value: object, failed: bool = False) -> Verdict:
    """Make a call; one that is allowed runs and gives `value`."""
    verdict = gate.check(event)
    if verdict.action is Action.ALLOW:
        gate.check(result(event, value, failed))
    return verdict


def repeat(gate: LoopsGate, count: int, value: object = "nothing", start: int = 0) -> list[Verdict]:
    """Make the same call `count` times."""
    return [done(gate, call(f"c{index}"), value) for index in range(start, start + count)]


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


def test_ladder(store: Store) -> None:
    """Five calls run, then a hint, a question and the end, once each, and it stays the end."""
    verdicts = repeat(LoopsGate("loops", store), 9)
    assert [v.action for v in verdicts] == [Action.ALLOW] * 5 + [Action.BLOCK, Action.ASK, Action.BLOCK, Action.BLOCK]
    assert [v.remedy for v in verdicts[5:]] == [Remedy.NUDGE, Remedy.REFUSE, Remedy.END, Remedy.END]
    assert {v.reason for v in verdicts[5:]} == {"loop.repeat"}
    assert "You called search 5 times" in verdicts[5].note


def test_results_that_change(store: Store) -> None:
    """A result that changes, be it by a small number deep inside, never trips; a clock alone does."""
    gate = LoopsGate("loops", store)
    for index in range(40):
        assert done(gate, call(f"c{index}"), {"job": {"done": index}}).action is Action.ALLOW
    clock = LoopsGate("clock", MemoryStore())
    for index in range(5):
        done(clock, call(f"c{index}"), f"nothing at 10:00:0{index}")
    assert clock.check(call("c")).remedy is Remedy.NUDGE


def test_same_error_with_other_arguments(store: Store) -> None:
    """A tool that fails with the same error is stopped whatever it is called with; another tool is not."""
    gate = LoopsGate("loops", store)
    for index in range(6):
        assert done(gate, call(f"c{index}", {"q": index}), "syntax", failed=True).action is Action.ALLOW
    verdict = gate.check(call("next", {"q": 99}))
    assert (verdict.reason, verdict.remedy) == ("loop.same_error", Remedy.NUDGE)
    assert gate.check(call("other", tool="read")).action is Action.ALLOW


def test_cycle_and_the_way_out_of_it(store: Store) -> None:
    """Of two calls in turn the one that would go on is stopped; anything else may run and ends the streak."""
    gate = LoopsGate("loops", store)
    for index in range(3):
        for tool in ("read", "look"):
            assert done(gate, call(f"{tool}{index}", tool=tool), f"seen {tool}").action is Action.ALLOW
    assert gate.check(call("on", tool="read")).reason == "loop.cycle"
    assert done(gate, call("new", tool="write"), "ok").action is Action.ALLOW
    assert gate.check(call("again", tool="read")).action is Action.ALLOW


def test_it_starts_anew_after_something_new(store: Store) -> None:
    """Another call with a new result ends the streak; the ladder begins at its first rung again."""
    gate = LoopsGate("loops", store)
    repeat(gate, 7)
    done(gate, call("n", {"q": "y"}), "news")
    assert [v.action for v in repeat(gate, 6, start=10)] == [Action.ALLOW] * 5 + [Action.BLOCK]
    assert gate.check(call("last")).action is Action.ASK


def test_the_same_answer_again(store: Store) -> None:
    """A node that runs again gets the answer it got, and neither calls nor results count twice."""
    gate = LoopsGate("loops", store)
    for index in range(5):
        for _ in range(5):
            assert gate.check(call(f"c{index}")).action is Action.ALLOW
        for _ in range(5):
            gate.check(result(call(f"c{index}"), "nothing"))
    assert [gate.check(call("c5")).remedy for _ in range(5)] == [Remedy.NUDGE] * 5
    assert [gate.check(call("c6")).action for _ in range(5)] == [Action.ASK] * 5
    assert gate.check(call("c5")).remedy is Remedy.NUDGE
    assert gate.check(call("c4")).action is Action.ALLOW


def test_a_second_process_goes_on_counting(tmp_path: Path) -> None:
    """What one process saw of a run another one knows, and a result that was counted there is not counted again."""
    for index in range(5):
        opened = SqliteStore(tmp_path / "s.db")
        gate = LoopsGate("loops", opened)
        for earlier in range(index):
            gate.check(result(call(f"c{earlier}"), "nothing"))
        assert done(gate, call(f"c{index}"), "nothing").action is Action.ALLOW
        opened.close()
    opened = SqliteStore(tmp_path / "s.db")
    assert LoopsGate("loops", opened).check(call("c")).remedy is Remedy.NUDGE
    opened.close()


def test_results_of_an_earlier_run_do_not_count(store: Store) -> None:
    """A conversation's history is read again in every run; only what this run called is part of its loop."""
    gate = LoopsGate("loops", store)
    for index in range(9):
        gate.check(result(call(f"old{index}"), "nothing"))
    assert gate.check(call("new")).action is Action.ALLOW


def test_calls_of_one_turn_are_one_step(store: Store) -> None:
    """Ten equal calls at once are no loop; where there is one, all of a turn stand on one rung."""
    gate = LoopsGate("loops", store)
    for turn in range(5):
        events = [call(f"{turn}.{index}", turn=f"#{turn}") for index in range(10)]
        assert {gate.check(event).action for event in events} == {Action.ALLOW}
        for event in events:
            gate.check(result(event, "nothing"))
    for turn, remedy in enumerate((Remedy.NUDGE, Remedy.REFUSE, Remedy.END, Remedy.END), start=5):
        assert {gate.check(call(f"{turn}.{index}", turn=f"#{turn}")).remedy for index in range(3)} == {remedy}


def test_many_side_by_side(store: Store) -> None:
    """Of ten agents at once, whose models number their calls alike, each one that goes round is found in time."""
    gate = LoopsGate("loops", store)
    for step in range(6):
        events = [
            replace(call(f"{agent}.{step}", turn=f"1/{agent}/{step}"), call=ToolCall("search", {"q": "x"}, f"c{step}"))
            for agent in range(10)
        ]
        expected = Action.BLOCK if step == 5 else Action.ALLOW
        assert {gate.check(event).action for event in events} == {expected}
        for agent, event in enumerate(events):
            gate.check(result(event, "nothing" if agent % 2 else f"nothing for agent {chr(97 + agent)}"))
    assert gate.check(call("new", turn="1/new/0")).action is Action.ALLOW
    assert gate.check(call("after", turn="2/new/0")).action is Action.BLOCK


@pytest.mark.parametrize("value", ["nothing", "found"])
def test_an_approval_answers_the_streak(store: Store, value: str) -> None:
    """After a call that a person let through the count begins with that call, and so does the ladder."""
    gate = LoopsGate("loops", store)
    repeat(gate, 6)
    asked = call("asked")
    assert gate.check(asked).action is Action.ASK
    for _ in range(2):
        gate.check(result(asked, value))
    after = repeat(gate, 6, value, start=20)
    assert [v.action for v in after] == [Action.ALLOW] * 4 + [Action.BLOCK, Action.ASK]


def test_a_question_that_was_answered_with_no(store: Store) -> None:
    """Where the call that was asked about never ran, the next one meets the end."""
    gate = LoopsGate("loops", store)
    assert [v.action for v in repeat(gate, 7)[5:]] == [Action.BLOCK, Action.ASK]
    assert gate.check(call("again")).remedy is Remedy.END


def test_runs_and_prefixes_are_apart(store: Store) -> None:
    """A loop in one run, or in shadow mode, is none in another."""
    gate, shadow = LoopsGate("loops", store), LoopsGate("loops", store, prefix="shadow:")
    repeat(gate, 6)
    assert gate.check(call("x", run="other")).action is Action.ALLOW
    assert shadow.check(call("x")).action is Action.ALLOW


def test_configured(store: Store) -> None:
    """The ladder of the policy is the ladder."""
    gate = LoopsGate("loops", store, LoopLimits(repeats=2, then=("block",)))
    assert [v.remedy for v in repeat(gate, 4)[2:]] == [Remedy.END] * 2


def test_caps(store: Store) -> None:
    """A run may make so many calls and go on for so long, whatever they bring; a call that comes again is free."""
    gate = LoopsGate("loops", store, LoopLimits(steps=3))
    for index in (0, 1, 1, 2, 2):
        assert done(gate, call(f"c{index}", {"q": index}), index).action is Action.ALLOW
    assert gate.check(call("c3")) == Verdict.block("loop.steps", remedy=Remedy.END)
    now = [1000.0]
    timed = LoopsGate("timed", store, LoopLimits(seconds=60), prefix="timed", clock=lambda: now[0])
    assert timed.check(call("c0")).action is Action.ALLOW
    now[0] = 1059.0
    assert timed.check(call("c1")).action is Action.ALLOW
    now[0] = 1060.0
    assert timed.check(call("c2")) == Verdict.block("loop.seconds", remedy=Remedy.END)
    assert timed.check(call("c1")).action is Action.ALLOW


def test_habits(store: Store) -> None:
    """A tool may be polled without end or so often; a repeated effect trips earlier; `key` says what counts."""
    known = {
        "status": Habits(poll=True),
        "job": Habits(poll=9),
        "mail": Habits(effect=True),
        "find": Habits(key=("q",)),
    }
    gate = LoopsGate("loops", store, habits=known)

    def stopped_after(tool: str) -> int:
        made = (
            done(gate, call(f"{tool}{index}", {"q": "x", "n": index if tool == "find" else 0}, tool), f"{tool} says")
            for index in range(40)
        )
        return next((index for index, verdict in enumerate(made) if verdict.action is Action.BLOCK), 40)

    assert {tool: stopped_after(tool) for tool in known} == {"status": 40, "job": 9, "mail": 3, "find": 5}


def test_hashes_only(store: Store) -> None:
    """Neither arguments nor results are in the register, and it does not grow with the run."""
    gate = LoopsGate("loops", store, secret=b"s")
    for index in range(100):
        done(gate, call(f"c{index}", {"q": f"secret args-{index}"}), f"secret-result-{index}, 54321 seconds left")
    [key] = store.keys("")
    kept = store.get(key)
    assert key == "loops:r"
    assert kept is not None
    assert "secret" not in kept
    assert "54321" not in kept
    assert len(kept) < 33 * 250


def test_a_countdown_is_remembered(store: Store) -> None:
    """What tells of progress survives in the register: a countdown goes on, a clock is stopped."""
    gate = LoopsGate("loops", store, secret=b"s")
    for index in range(14):
        assert done(gate, call(f"c{index}"), f"{60 - index} seconds left").action is Action.ALLOW
    clock = LoopsGate("clock", store, prefix="clock", secret=b"s")
    for index in range(7):
        assert done(clock, call(f"c{index}"), f"{10 + index} seconds passed").action is Action.ALLOW or index > 4
    assert clock.check(call("c")).action is not Action.ALLOW


def test_what_was_kept_before_there_were_figures(store: Store) -> None:
    """A register with shorter rows is read, and its steps count."""
    gate = LoopsGate("loops", store)
    repeat(gate, 5)
    [key] = store.keys("")
    kept = store.get(key)
    assert kept is not None
    began, calls, rows = json.loads(kept)
    assert store.swap(key, kept, json.dumps([began, calls, [row[:9] for row in rows]]))
    assert gate.check(call("next")).remedy is Remedy.NUDGE


def test_reworded_calls_meet_each_rung(store: Store) -> None:
    """A question that is put otherwise after a hint goes on with the loop: the next rung follows, and then the end."""
    gate = LoopsGate("loops", store)
    asked = [f"vpn token {word}" for word in "abcdefghijklm"]
    verdicts = [done(gate, call(f"c{n}", {"q": text}), "no results") for n, text in enumerate(asked)]
    assert [v.action for v in verdicts] == [Action.ALLOW] * 9 + [Action.BLOCK, Action.ASK, Action.BLOCK, Action.BLOCK]
    assert verdicts[9].reason == "loop.no_news"


def test_calls_that_never_end_are_forgotten_in_the_end(store: Store) -> None:
    """A run of which no call gives a result keeps a bounded number of them."""
    gate = LoopsGate("loops", store)
    for index in range(600):
        gate.check(call(f"c{index}"))
    kept = store.get("loops:r")
    assert kept is not None
    assert kept.count("open") <= 256


def test_race(store: Store) -> None:
    """Results that come at the same time are all remembered."""
    gate = LoopsGate("loops", store, LoopLimits(repeats=16))
    for index in range(16):
        gate.check(call(f"c{index}"))
    barrier = threading.Barrier(16)

    def work(index: int) -> None:
        barrier.wait()
        gate.check(result(call(f"c{index}"), "nothing"))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gate.check(call("c")).remedy is Remedy.NUDGE
