"""Law 1: a gate answers, it never escapes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard

from guardrails_mw.event import Content, Event, ModelCall, Stage
from guardrails_mw.guard import Guard
from guardrails_mw.verdict import Action


def _guard(folder: Path, call: str, cost: str, **keys: object) -> Guard:
    more = "".join(f", {name}: {value}" for name, value in keys.items())
    gate = f'{{type: python, call: "chat:{call}", cost: {cost}{more}}}'
    return make_guard(folder, f"gates: {{mine: {gate}}}\nstages: {{input: [mine], model: [mine]}}")


COSTS = ["linear", "blocking", "isolated"]


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", ["ValueError", "NotImplementedError", "BaseException", "RecursionError"])
def test_raising_is_a_block(name: str, cost: str, tmp_path: Path) -> None:
    """Whatever a gate raises, and wherever it runs, is a block with a code and without the exception's text."""
    with _guard(tmp_path, "raises", cost, **{"with": f"{{name: {name}}}", "deadline_ms": 5000}) as guard:
        guard.warm()
        decision = guard.check("hello")
        assert (decision.action, decision.gate, decision.verdict.reason) == (Action.BLOCK, "mine", "error.gate_error")
        assert "raw secret" not in repr(decisions(guard))


@pytest.mark.parametrize("what", ["null", "true", "block", "1", "[]", "{action: 0}"])
def test_nonsense_is_a_block(what: str, tmp_path: Path) -> None:
    """None, True, a text, a number: nothing but a verdict counts as an answer."""
    with _guard(tmp_path, "answers", "linear", **{"with": f"{{what: {what}}}"}) as guard:
        assert guard.check("hello").verdict.reason == "error.not_a_verdict"


@pytest.mark.parametrize("cost", ["linear", "blocking"])
def test_overrun_is_a_block(cost: str, tmp_path: Path) -> None:
    """A gate that answers too late did not answer, also where nobody could interrupt it."""
    with _guard(tmp_path, "sleeps", cost, deadline_ms=50, **{"with": "{seconds: 0.3}"}) as guard:
        assert guard.check("hello").verdict.reason == "error.deadline"


def test_overrun_in_a_loop_lets_others_run(tmp_path: Path) -> None:
    """In an event loop a blocking gate's deadline holds although its thread goes on."""
    with _guard(tmp_path, "sleeps", "blocking", deadline_ms=100, **{"with": "{seconds: 30}"}) as guard:
        began = time.perf_counter()
        decision = asyncio.run(guard.adecide(Event(Stage.INPUT, Content("hello"))))
        assert decision.verdict.reason == "error.deadline"
        assert time.perf_counter() - began < 15  # it would be 30


@pytest.mark.parametrize(
    ("call", "deadline_ms", "reason"),
    [("holds_the_lock", 2000, "error.deadline"), ("dies", 60_000, "error.worker_died")],
)
def test_isolated_process_is_killed_or_dies(call: str, deadline_ms: int, reason: str, tmp_path: Path) -> None:
    """Code that holds the interpreter lock for ever, or ends its process, is a block; the next check works the same."""
    with _guard(tmp_path, call, "isolated", deadline_ms=deadline_ms) as guard:
        guard.warm()
        assert {guard.check("hello").verdict.reason, guard.check("again").verdict.reason} == {reason}


@pytest.mark.parametrize(("on_error", "action"), [("flag", Action.FLAG), ("unsafe_allow", Action.ALLOW)])
def test_what_an_error_means_must_be_asked_for(on_error: str, action: Action, tmp_path: Path) -> None:
    """`on_error` of the gate says what its failure means; the reason stays on record."""
    with _guard(tmp_path, "raises", "linear", on_error=on_error) as guard:
        decision = guard.check("hello")
        assert decision.action is action
        assert decisions(guard)[0]["checks"][0]["error"] == "gate_error"


@pytest.mark.parametrize(
    ("name", "kind"), [("KeyboardInterrupt", KeyboardInterrupt), ("CancelledError", asyncio.CancelledError)]
)
@pytest.mark.parametrize("cost", ["linear", "blocking"])
def test_interrupts_pass_after_holds_are_charged(name: str, kind: type, cost: str, tmp_path: Path) -> None:
    """Ctrl-C and cancellation go through, and what an earlier gate had reserved is charged, not leaked."""
    source = f"""
gates:
  mine: {{type: python, call: "chat:raises", cost: {cost}, with: {{name: {name}}}}}
stages: {{model: [mine]}}
budgets: {{run: {{model_calls: 3, tokens: 1000}}}}
"""
    with make_guard(tmp_path, source) as guard:
        budget, mine = guard.engine._plan[Stage.MODEL][-1], guard.engine._plan[Stage.MODEL][0]
        guard.engine._plan[Stage.MODEL] = (budget, mine)
        event = Event(Stage.MODEL, Content(None), call=ModelCall("m", 10, 20), key="k1")
        with pytest.raises(kind):
            guard.decide(event)
        assert guard.store.used("run:direct:tokens") == 30  # charged, not released
        assert guard.store.settle("budget:model:k1", {}) is False  # and held no longer


def test_a_broken_gate_spares_the_model(tmp_path: Path) -> None:
    """Through a seam: the model behind a gate that fails is not called."""
    model = ScriptedModel(script=in_turn("hi"))
    with _guard(tmp_path, "raises", "blocking", **{"with": "{name: NotImplementedError}"}) as guard:
        answer = guard.model(model).invoke("hello")
        assert answer.response_metadata["guardrails"]["reason"] == "error.gate_error"
        assert model.calls == 0


def test_an_isolated_gate_says_nothing_aloud(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a gate raises in its own process, however strange, is not printed by that process either."""
    with _guard(tmp_path, "raises", "isolated", **{"with": "{name: BaseException}", "deadline_ms": 5000}) as guard:
        guard.warm()
        guard.check("hello")
    assert "raw secret" not in "".join(capfd.readouterr())
