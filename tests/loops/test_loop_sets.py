"""The sequences that the documentation quotes are judged as it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loops import judged, rows_of
from guardrails_mw.loops import LoopLimits

SETS = sorted(Path(__file__).parents[2].joinpath("benchmarks").glob("loops*.jsonl"))


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_marks(path: Path) -> None:
    """At least 95 % of the loops are found, after no more than 17 steps, and nothing harmless is taken for one."""
    found = judged(rows_of(path), LoopLimits())
    assert found.missed.total() <= found.loops // 20
    assert found.false.total() == 0
    assert found.delays[-1] <= 17


def test_there_are_sets() -> None:
    """None of them was left out."""
    assert [path.stem for path in SETS] == ["loops", "loops_fourth", "loops_fresh", "loops_third", "loops_varied"]
