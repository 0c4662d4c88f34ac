"""What is progress: a result that was not there before, another question, a figure that moves towards its end.

An answer that is known is no news if the question was the same, or the same in other words. About another thing it is
another answer: forty files without a fault are forty findings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import sqrt

from guardrails_mw.loops.likeness import Step
from guardrails_mw.loops.traits import Trait
from guardrails_mw.loops.wording import alike, mostly_in, same_text

__all__ = ["STALE", "is_finding", "news_in", "told_apart"]

STALE = 3
"""What a step weighs that brought nothing; less where that may be seen otherwise; nothing where it was progress."""

_LIKELY, _DOUBTFUL = 2, 1
_FUTILE = Trait.TALK | Trait.REFUSED | Trait.FAILED  # other arguments make no difference
_BEFORE = 4  # questions with the same answer that a question is compared to
_TREND = 1.9  # standard deviations from no trend at all: a figure that falls
_NO_TREND = 1.0  # a figure that moves up and down
_PAIRS = 3  # so few figures are a trend if all of them are
_MANY = 10  # so many figures show that there is no trend


def news_in(window: Sequence[Step]) -> list[int]:
    """For each step, 0 if it was progress, else how much it weighs that it was not."""
    calls: set[str] = set()
    asked: dict[tuple[str, str], list[str]] = {}  # wordings that had one answer
    weights: list[int] = []
    last, weight = Step("", "", ""), 0
    for step in window:
        before = asked.setdefault((step.tool, step.result), [])
        if not before or not step.result:
            weight = 0
        elif step.call in calls or step.traits & Trait.STOPPED:
            weight = STALE
        else:
            weight = _asked_anew(step, before, last, weight > 0)
        calls.add(step.call)
        before.append(step.wording)
        weights.append(weight)
        last = step
    return weights


def _asked_anew(step: Step, before: Sequence[str], last: Step, stale: bool) -> int:
    """How little news a known answer is to a call that was not made before; `stale`: the step before it was none.

    What has no free text, or the same as an earlier one, asks about another name, number or path.
    """
    traits = step.traits
    if traits & Trait.HANDOVER:
        return STALE if last.tool != step.tool else _DOUBTFUL  # to and fro, or one task after the other
    if is_finding(traits):
        return 0
    if traits & _FUTILE:
        return STALE
    if not step.wording or any(same_text(step.wording, earlier) for earlier in before[-_BEFORE:]):
        # if it found nothing, and in between something is done again and again, neither is news
        around = stale and last.tool != step.tool and not last.traits & (Trait.TALK | Trait.WAITING)
        return STALE if around and traits & Trait.EMPTY else 0
    return _reworded(step, before)


def is_finding(traits: int) -> bool:
    """Whether a call that was not made before is progress, whatever it answers: it did something, or it judged."""
    if traits & Trait.JUDGES and not traits & (Trait.SEARCHES | Trait.RAISED | Trait.TALK):
        return not traits & Trait.HANDOVER
    return traits & (Trait.ACTED | Trait.HANDOVER | _FUTILE) == Trait.ACTED


def _reworded(step: Step, before: Sequence[str]) -> int:
    """How little news a known answer is to a call whose free text is another."""
    traits, covered = step.traits, mostly_in(step.wording, before)
    if _rephrased(step, before) or (traits & Trait.SEARCHES and (covered or traits & Trait.EMPTY)):
        return _DOUBTFUL if traits & (Trait.BLANK | Trait.EMPTY) == Trait.BLANK else STALE
    if traits & Trait.EMPTY:
        return _LIKELY if covered else _DOUBTFUL
    return _DOUBTFUL if traits & Trait.READS else 0


def _rephrased(step: Step, before: Sequence[str]) -> bool:
    """Whether most of the last questions with this answer are alike."""
    last = [wording for wording in before[-_BEFORE:] if wording]
    return 2 * sum(alike(step.wording, wording) for wording in last) >= max(1, len(last))


def told_apart(window: Sequence[Step]) -> Sequence[Step]:
    """The steps, with other results where a figure in them tells that it goes on.

    A time is progress while it falls, a score while it moves one way, a share or a size unless it has only moved up and
    down for long.
    """
    alike_steps: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, step in enumerate(window):
        if step.figures:
            alike_steps[step.tool, step.call, step.result].append(place)
    steps = list(window)
    for places in alike_steps.values():
        columns = _columns([window[place].figures for place in places])
        telling = [column for sign, column in columns if _tells(sign, column)]
        for row, place in enumerate(places if telling else ()):
            seen = " ".join(repr(column[row]) for column in telling)
            steps[place] = window[place]._replace(result=f"{window[place].result} {seen}")
    return steps


def _columns(rows: Sequence[str]) -> list[tuple[str, tuple[float, ...]]]:
    """Each figure of some results in the order of time, with its sign; none if they have not the same figures."""
    parsed = [_parsed(row) for row in rows]
    signs = parsed[0][0]
    if any(row[0] != signs for row in parsed):
        return []
    return list(zip(signs, zip(*(row[1] for row in parsed), strict=True), strict=True))


@lru_cache(maxsize=4096)
def _parsed(row: str) -> tuple[str, tuple[float, ...]]:
    figures = row.split()
    return "".join(figure[0] for figure in figures), tuple(float(figure[1:]) for figure in figures)


def _tells(sign: str, column: Sequence[float]) -> bool:
    """Whether a figure tells that something goes on."""
    trend = _trend(column)
    if sign == "+":
        return len(column) < _MANY or abs(trend) >= _NO_TREND
    falls, rises = (len(column) == _PAIRS and list(column) == sorted(set(column), reverse=way) for way in (True, False))
    return trend <= -_TREND or falls or (sign == "*" and (trend >= _TREND or rises))


def _trend(column: Sequence[float]) -> float:
    """How far a column rises or falls, in standard deviations of one in any order (Mann and Kendall)."""
    size = len(column)
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(column, 2))
    return score / sqrt(size * (size - 1) * (2 * size + 5) / 18) if size > 1 else 0.0
