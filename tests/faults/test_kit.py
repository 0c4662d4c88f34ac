"""The kit of faults itself: it fails where a guard is not safe, and leaves a guard as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from chat import make_guard

from guardrails_mw.event import Stage
from guardrails_mw.testing import Fault, assert_fails_safe, failing
from guardrails_mw.verdict import Action

QUICK = [Fault.RAISES, Fault.NONE]
POLICY = (
    "gates: {signs: {type: injection}}\nstages: {input: [signs], output: [signs]}\nbudgets: {run: {model_calls: 9}}"
)


def test_every_gate_and_stage_is_tried(tmp_path: Path) -> None:
    """Gates of sections are among them, and each is asked at each of its stages."""
    with make_guard(tmp_path, POLICY) as guard:
        made = assert_fails_safe(guard, QUICK)
        tried = {(decision.stage, decision.gate) for decision in made}
        stages = {(Stage.INPUT, "signs"), (Stage.OUTPUT, "signs"), (Stage.MODEL, "budget"), (Stage.TOOL_CALL, "budget")}
        assert tried == stages
        assert len(made) == len(stages) * len(QUICK)


def test_a_guard_that_is_not_safe_is_found(tmp_path: Path) -> None:
    """Where a gate's failure means less than the policy says, the kit says which gate, stage and fault."""
    with make_guard(tmp_path, POLICY) as guard:
        plan = guard.engine._plan
        plan[Stage.INPUT] = tuple(replace(step, on_error=Action.FLAG) for step in plan[Stage.INPUT])
        with pytest.raises(AssertionError, match="signs at input: raises"):
            assert_fails_safe(guard, QUICK)


def test_a_gate_is_itself_again(tmp_path: Path) -> None:
    """The gate has the fault where it was told to, and after the block, or an exception in it, nowhere."""
    with make_guard(tmp_path, POLICY) as guard:
        with failing(guard, "signs", Fault.NONE, stages=[Stage.INPUT]):
            assert guard.check("hello").blocked
            assert not guard.check("hello", "output").blocked
        assert not guard.check("hello").blocked
        with pytest.raises(ValueError, match="no-such-stage"), failing(guard, "signs", Fault.NONE):
            guard.check("hello", "no-such-stage")
        assert not guard.check("hello").blocked


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    """An unknown gate, and a fault that its way of running cannot have."""
    with make_guard(tmp_path, POLICY) as guard:
        with pytest.raises(KeyError, match="sings"), failing(guard, "sings", Fault.NONE):
            pass
        with pytest.raises(ValueError, match="cannot happen to a linear gate"), failing(guard, "signs", Fault.DIES):
            pass
        assert not guard.check("hello").blocked
