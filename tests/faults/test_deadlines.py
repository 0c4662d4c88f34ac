"""Deadlines end what never answers, also while both cores are busy."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from pathlib import Path

import pytest
from chat import make_guard

from benchmarks.deadlines import CASES, allowed, busy, overruns
from guardrails_mw.testing import Fault, failing


@pytest.mark.parametrize(("cost", "fault", "world"), CASES)
def test_a_deadline_ends_it(cost: str, fault: Fault, world: str) -> None:
    """A gate that would take seconds, or for ever, is over soon after its deadline of 300 ms."""
    (taken,) = overruns(cost, fault, world, 300, rounds=1)
    assert 290 <= taken < 15_000


def test_what_overruns_in_its_own_process_is_killed(tmp_path: Path) -> None:
    """The process is gone soon after the block, and another one is on its way."""
    gate = "{type: python, call: 'chat:codeword', cost: isolated}"
    guard = make_guard(tmp_path, f"deadline_ms: 300\ngates: {{mine: {gate}}}\nstages: {{input: [mine]}}")
    with guard, failing(guard, "mine", Fault.HOLDS_LOCK):
        before = {child.pid for child in multiprocessing.active_children()}
        assert guard.check("hello").verdict.reason == "error.deadline"
        until = time.monotonic() + 20.0
        while (after := {child.pid for child in multiprocessing.active_children()}) - before == set():
            assert time.monotonic() < until
            time.sleep(0.01)
        assert len(before - after) == len(after - before) == 1


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("milliseconds", [50, 300, 1000])
@pytest.mark.parametrize(("cost", "fault", "world"), CASES)
def test_deadlines_hold_on_busy_cores(cost: str, fault: Fault, world: str, milliseconds: int) -> None:
    """With two processes that use up all time, half of all decisions or more end within 10 % and 20 ms."""
    with busy():
        assert statistics.median(overruns(cost, fault, world, milliseconds, rounds=9)) <= allowed(milliseconds)
