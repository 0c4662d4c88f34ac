"""Loops: an agent that does the same again and learns nothing.

One pure function over the last steps of a run. It knows five ways of going round:

``repeat``: one call that keeps giving the same result. ``cycle``: two to six steps that come again in the same
order. ``ping_pong``: agents that hand over to each other. ``same_error``: one tool that fails with the same error,
whatever its arguments. ``no_news``: steps of which none brought anything that had not been seen, such as searches
that are rephrased and find nothing; ``monologue`` where they were thoughts.

What it takes for granted: a result that was never seen is progress, so is a new call that does something, and so is
an answer that is known but was given about something else. What asks the same in other words (`progress`) is no new
question. A loop with something ever new in between, such as a random number, looks like progress.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.loops.likeness import Step
from guardrails_mw.loops.progress import STALE, is_finding, news_in, told_apart
from guardrails_mw.loops.traits import Trait

__all__ = ["KINDS", "WINDOW", "Loop", "LoopLimits", "find_loop", "first_loop"]

WINDOW = 32
"""How many steps back a loop is looked for."""

KINDS = ("repeat", "cycle", "ping_pong", "same_error", "no_news", "monologue")
"""The kinds of loops, as reason codes end."""

_RUNGS = ("nudge", "ask", "block")
_PERIODS = 6
_PATIENCE = 2  # how many repetitions more a tool may have that waits for something
_HARDER = 2  # how many less one that has an effect
_FUTILE = Trait.FAILED | Trait.EMPTY | Trait.TALK | Trait.HANDOVER  # other arguments make no difference
_THROUGH_NEWS = 8  # one call with one error, whatever else happens meanwhile


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """When a repetition is a loop, and what is done about it.

    Attributes:
        repeats: same calls with the same result, one after the other.
        cycles: times that several steps come in the same order.
        errors: failures of one tool with the same error.
        no_news: steps without anything new.
        steps: tool calls of a run, whatever they bring; None is no cap.
        seconds: from a run's first tool call on, waiting for people included; None is no cap.
        then: what happens at the next call that would go on with it, at the one after it, and so on; the last one
            stays.

    Raises:
        PolicyError: a number out of range, or a rung that does not exist.
    """

    repeats: int = 5
    cycles: int = 3
    errors: int = 6
    no_news: int = 8
    steps: int | None = None
    seconds: float | None = None
    then: tuple[str, ...] = _RUNGS

    def __post_init__(self) -> None:
        ranges = {"repeats": 20, "cycles": 5, "errors": 20, "no_news": 20}
        for name, most in ranges.items():
            if not 2 <= getattr(self, name) <= most:
                raise PolicyError(f"{name} is 2 to {most}", field=f"loops.{name}")
        for rung in self.then:
            if rung not in _RUNGS:
                raise PolicyError(f"unknown rung {rung!r}: {nearest(rung, list(_RUNGS))}", field="loops.then")
        if not self.then:
            raise PolicyError(f"empty; {nearest('', list(_RUNGS))}", field="loops.then")


_DEFAULT = LoopLimits()


@dataclass(frozen=True, slots=True)
class Loop:
    """What goes round.

    Attributes:
        kind: one of `KINDS`.
        count: how often: repetitions of a call, rounds of a cycle, failures, steps without news.
        since: how many steps back from the end it began.
        calls: hashes of the calls that would go on with it.
        tools: hashes of the tools of which any call would, whatever its arguments.
    """

    kind: str
    count: int
    since: int
    calls: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()

    def goes_on(self, tool: str, call: str) -> bool:
        """Whether a call would only go on with the loop."""
        return call in self.calls or tool in self.tools


def find_loop(steps: Sequence[Step], limits: LoopLimits = _DEFAULT) -> Loop | None:
    """The loop that the last step completes or goes on with, None if there is none.

    Looks at the last `WINDOW` steps; takes time linear in their number. Figures that were taken out of the results are
    looked at only where there would be a loop without them.

    >>> look, find = Step("search", "search x", "nothing"), Step("find", "find x", "none")
    >>> find_loop([look] * 5).kind
    'repeat'
    >>> find_loop([look, find] * 3).kind
    'cycle'
    >>> find_loop([*[look, find] * 3, Step("read", "read y", "news")]) is None
    True
    """
    window = steps[-WINDOW:]
    loop = _found(window, limits)
    if loop is None or not any(step.figures for step in window):
        return loop
    return _found(told_apart(window), limits)


def _found(window: Sequence[Step], limits: LoopLimits) -> Loop | None:
    if not _is_known(window):
        return None  # it brought something new
    if (loop := _cycle(window, limits)) is not None:
        return loop
    failing, stale = _fails_often(window, limits), _is_stale(window, limits)
    if not failing and not stale:
        return None  # what is news takes longest to tell
    news = news_in(window)
    error = _same_error(window, news, limits) if failing else None
    return error or (_no_news(window, news, limits) if stale else None)


def _is_known(window: Sequence[Step]) -> bool:
    """Whether the last step's answer was there before."""
    if not window:
        return False
    last = window[-1]
    for step in window[-2::-1]:  # noqa: SIM110 - half the time of `any`
        if step.result == last.result and step.tool == last.tool:
            return True
    return False


def _fails_often(window: Sequence[Step], limits: LoopLimits) -> bool:
    """Whether the last step's error is there often enough to be a loop, whatever else there is."""
    last = window[-1]
    if not last.traits & Trait.FAILED or last.patience:
        return False
    return sum(step.result == last.result and step.tool == last.tool for step in window) >= limits.errors


def _is_stale(window: Sequence[Step], limits: LoopLimits) -> bool:
    """Whether the last answers, as many as a loop without news has at least, had all been there before them."""
    first, last = len(window) - limits.no_news, window[-1]
    if first <= 0:
        return False
    if is_finding(last.traits) and not last.traits & Trait.STOPPED and last.call not in [s.call for s in window[:-1]]:
        return False  # one of a batch
    before = {(step.tool, step.result) for step in window[:first]}
    return all((step.tool, step.result) in before and not step.patience for step in window[first:])


def first_loop(steps: Iterable[Step], limits: LoopLimits = _DEFAULT) -> tuple[int, Loop] | None:
    """The first step (from 1) that completes a loop, with the loop; None if none does. Keeps `WINDOW` steps.

    >>> first_loop([Step("t", "c", "r")] * 9)[0]
    5
    """
    window: list[Step] = []
    for number, step in enumerate(steps, start=1):
        window = window[1 - WINDOW :]
        window.append(step)
        if (loop := find_loop(window, limits)) is not None:
            return number, loop
    return None


def _same(one: Step, other: Step, loose: bool) -> bool:
    """Whether two steps are the same; of hand-overs in turn it does not matter what they give as a reason."""
    if one.result != other.result or one.tool != other.tool or one.result == "":
        return False
    return one.call == other.call or bool(loose and one.traits & Trait.HANDOVER)


def _cycle(window: Sequence[Step], limits: LoopLimits) -> Loop | None:
    """The shortest period in which the window ends."""
    size = len(window)
    for period in range(1, min(_PERIODS, size // 2) + 1):
        length, index = period, size - 1 - period
        if window[index].result != window[-1].result:
            continue
        while index >= 0 and _same(window[index], window[index + period], period > 1):
            length, index = length + 1, index - 1
        turn = window[-period:]
        if length < 2 * period or length // period < _rounds(turn, limits):
            continue
        together = Trait.HANDOVER
        for step in turn:
            together &= step.traits
        if together and period > 1 and len({step.tool for step in turn}) == 1:
            continue  # one task after the other for the same agent
        kind = "repeat" if period == 1 else "ping_pong" if together else "cycle"
        tools = frozenset({turn[0].tool}) if period > 1 and turn[0].traits & Trait.HANDOVER else frozenset()
        return Loop(kind, length // period, length, frozenset({turn[0].call}), tools)
    return None


def _rounds(turn: Sequence[Step], limits: LoopLimits) -> int:
    """How often these steps have to come to be a loop."""
    wanted = limits.repeats if len(turn) == 1 else limits.cycles
    traits = Trait.NONE
    for step in turn:
        traits |= step.traits
    if patience := max(step.patience for step in turn):
        return patience
    if traits & Trait.EFFECT:
        return max(2, wanted - _HARDER)
    return wanted + _PATIENCE if traits & Trait.WAITING else wanted


def _same_error(window: Sequence[Step], news: Sequence[int], limits: LoopLimits) -> Loop | None:
    """One tool that fails with one error; what other tools bring meanwhile counts for it."""
    last = window[-1]
    if not last.traits & Trait.FAILED or last.patience or news[-1] == 0:
        return None
    count = calls = since = 0
    fresh = False
    for back, step in enumerate(reversed(window), start=1):
        if step.tool != last.tool:
            fresh = fresh or news[-back] == 0
        elif step.result != last.result or not step.traits & Trait.FAILED:
            break
        else:
            count, calls = count + (not fresh), calls + (step.call == last.call)
            since = since if fresh and calls < _THROUGH_NEWS else back
            if news[-back] == 0:
                break
    wanted = limits.errors + (1 if last.traits & Trait.WAITING else 0)
    if count >= wanted or calls >= max(_THROUGH_NEWS, limits.errors):
        return Loop("same_error", max(count, calls), since, tools=frozenset({last.tool}))
    return None


def _no_news(window: Sequence[Step], news: Sequence[int], limits: LoopLimits) -> Loop | None:
    """Steps at the end of the window that brought nothing new."""
    total = count = 0
    calls: set[str] = set()
    tools: set[str] = set()
    answered: dict[tuple[str, str], str] = {}  # two calls with one answer: a third would have it too
    talk = Trait.TALK
    for weight, step in zip(reversed(news), reversed(window), strict=True):
        if weight == 0 or step.patience:
            break
        total, count, talk = total + weight, count + 1, talk & step.traits
        calls.add(step.call)
        if step.traits & _FUTILE or answered.setdefault((step.tool, step.result), step.call) != step.call:
            tools.add(step.tool)
    if total < limits.no_news * STALE:
        return None
    return Loop("monologue" if talk else "no_news", count, count, frozenset(calls), frozenset(tools))
