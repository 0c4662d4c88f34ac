"""Deadlines end what never answers, also while both cores are busy."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.deadlines import CASES, allowed, busy, overruns
from guardrails_mw.testing import Fault


@pytest.mark.parametrize(("cost", "fault", "world"), CASES)
def test_a_deadline_ends_it(cost: str, fault: Fault, world: str) -> None:
    """A gate that would take seconds, or for ever, is over soon after its deadline of 300 ms."""
    (taken,) = overruns(cost, fault, world, 300, rounds=1)
    assert 290 <= taken < 15_000


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("milliseconds", [50, 300, 1000])
@pytest.mark.parametrize(("cost", "fault", "world"), CASES)
def test_deadlines_hold_on_busy_cores(cost: str, fault: Fault, world: str, milliseconds: int) -> None:
    """With two processes that use up all time, half of all decisions or more end within 10 % and 20 ms."""
    with busy():
        assert statistics.median(overruns(cost, fault, world, milliseconds, rounds=9)) <= allowed(milliseconds)
