"""`on_error: queue`: a request waits for its gate to come back, in sight, and no longer than the policy says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard
from commands import run as command
from langchain_core.runnables import RunnableLambda

from guardrails_mw import Guard
from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.testing import Fault, broken_store, failing
from guardrails_mw.verdict import Action

HELLO = Event(Stage.INPUT, Content("hello"))


def _guard(folder: Path, within: str = "30s", most: int = 64, cost: str = "blocking", mode: str = "enforce") -> Guard:
    gate = f"{{type: python, call: 'chat:codeword', cost: {cost}, on_error: queue}}"
    head = f"mode: {mode}\nqueue: {{within: {within}, most: {most}}}\n"
    return make_guard(folder, f"{head}gates: {{mine: {gate}}}\nstages: {{input: [mine]}}")


def _meanwhile(guard: Guard, call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A call in another thread, that waits by the time this returns."""
    given: list[object] = []
    thread = threading.Thread(target=lambda: given.append(call()), daemon=True)
    thread.start()
    for _ in range(2000):
        if guard.backlog.waiting():
            return thread, given
        time.sleep(0.005)
    raise AssertionError("nobody waits")


@pytest.mark.parametrize("fault", [Fault.RAISES, Fault.NONE])
@pytest.mark.parametrize("cost", ["linear", "blocking"])
def test_a_request_goes_on_when_its_gate_is_back(cost: str, fault: Fault, tmp_path: Path) -> None:
    """It is seen while it waits, decided by the gate's own verdict, and gone from the register."""
    with _guard(tmp_path, cost=cost) as guard:
        with failing(guard, "mine", fault):
            thread, given = _meanwhile(guard, lambda: guard.decide(HELLO))
            (waiting,) = guard.backlog.waiting()
            assert (waiting.gate, waiting.stage, waiting.code) == ("mine", "input", fault.code)
            assert waiting.until - waiting.since == pytest.approx(30, abs=1)
        thread.join(60)
        (decision,) = given
        assert decision.action is Action.ALLOW
        assert not decision.checks[0].error
        assert guard.backlog.waiting() == []
        assert decisions(guard)[0]["checks"][0]["ms"] > 0


def test_doctor_tells_who_waits(tmp_path: Path) -> None:
    """Another process sees the request in the store."""
    with _guard(tmp_path) as guard, failing(guard, "mine", Fault.RAISES):
        (tmp_path / "policy.yaml").write_text(
            f"version: 1\nstore: sqlite:///{tmp_path}/guard.db\ngates: {{signs: {{type: injection}}}}\n"
            "stages: {input: [signs]}\n"
        )
        _meanwhile(guard, lambda: guard.decide(HELLO))
        told = command("doctor", "-p", tmp_path / "policy.yaml", "--json")
        assert "1 requests wait for: mine" in told.stdout


def test_waiting_ends_with_an_error(tmp_path: Path) -> None:
    """A gate that does not come back blocks, with the code of its failure, and not before its time is over."""
    with _guard(tmp_path, within="300ms") as guard, failing(guard, "mine", Fault.RAISES):
        began = time.perf_counter()
        decision = guard.decide(HELLO)
        assert (decision.action, decision.verdict.reason) == (Action.BLOCK, "error.gate_error")
        assert time.perf_counter() - began >= 0.3
        assert guard.backlog.waiting() == []


def test_only_so_many_wait(tmp_path: Path) -> None:
    """Who comes when the queue is full is blocked at once."""
    with _guard(tmp_path, most=1) as guard, failing(guard, "mine", Fault.RAISES):
        _meanwhile(guard, lambda: guard.decide(HELLO))
        assert guard.decide(HELLO).verdict.reason == "error.queue_full"
        assert len(guard.backlog.waiting()) == 1


def test_a_loop_goes_on_and_may_cancel(tmp_path: Path) -> None:
    """In an event loop others run meanwhile; cancelling the request ends its wait and takes it out of the register."""

    async def go() -> int:
        task, ticks = asyncio.ensure_future(guard.adecide(HELLO)), 0
        for _ in range(2000):
            await asyncio.sleep(0.005)
            ticks += bool(guard.backlog.waiting())
            if ticks == 20:
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return ticks

    with _guard(tmp_path, cost="linear") as guard, failing(guard, "mine", Fault.RAISES):
        assert asyncio.run(go()) == 20
        assert guard.backlog.waiting() == []


def test_callbacks_do_not_stall_a_loop(tmp_path: Path) -> None:
    """A callback of an asynchronous call stands in the loop's way: it blocks at once instead of waiting."""
    model = ScriptedModel(script=in_turn("hi"))
    with _guard(tmp_path) as guard, failing(guard, "mine", Fault.RAISES):
        began = time.perf_counter()
        chain = RunnableLambda(lambda text: text) | model
        with pytest.raises(GuardrailBlocked, match=r"error\.gate_error"):
            asyncio.run(chain.ainvoke("hello", {"callbacks": guard.callbacks()}))
        assert time.perf_counter() - began < 25  # it would be 30
        assert model.calls == 0


@pytest.mark.parametrize("seam", ["model", "runnable"])
def test_through_a_seam(seam: str, tmp_path: Path) -> None:
    """A guarded call waits with its caller and is made once the gate is back."""
    model = ScriptedModel(script=in_turn("hi there"))
    with _guard(tmp_path) as guard:
        guarded = guard.model(model) if seam == "model" else guard.runnable(model)
        with failing(guard, "mine", Fault.RAISES):
            thread, given = _meanwhile(guard, lambda: guarded.invoke("hello"))
            assert model.calls == 0
        thread.join(60)
        assert given[0].content == "hi there"


def test_a_closing_guard_lets_nobody_wait(tmp_path: Path) -> None:
    """Closing ends the wait with a block."""
    guard = _guard(tmp_path)
    with failing(guard, "mine", Fault.RAISES):
        thread, given = _meanwhile(guard, lambda: guard.decide(HELLO))
        guard.close()
        thread.join(20)
        assert given[0].blocked


def test_shadow_mode_delays_nobody(tmp_path: Path) -> None:
    """In shadow mode nothing waits, and what would have been is on record."""
    with _guard(tmp_path, mode="shadow") as guard, failing(guard, "mine", Fault.RAISES):
        began = time.perf_counter()
        decision = guard.decide(HELLO)
        assert (decision.action, decision.verdict.reason) == (Action.ALLOW, "error.gate_error")
        assert time.perf_counter() - began < 25


def test_a_store_that_fails_lets_nobody_through(tmp_path: Path) -> None:
    """Being seen is a courtesy: a register that cannot be written changes nothing about the wait."""
    guard = _guard(tmp_path, within="100ms")
    with guard, failing(guard, "mine", Fault.RAISES), broken_store(guard.store, ["swap"]):
        assert guard.decide(HELLO).verdict.reason == "error.gate_error"


def test_whoever_died_waiting_is_forgotten(tmp_path: Path) -> None:
    """An entry whose time has long been over is taken out by who looks."""
    with _guard(tmp_path) as guard:
        old = '{"gate": "mine", "stage": "input", "run": "", "code": "gate_error", "since": 1.0, "until": 2.0}'
        guard.store.swap("queue:dead", None, old)
        assert guard.backlog.waiting() == []
        assert guard.store.get("queue:dead") is None
