"""Loops: the same tool call that keeps giving the same result.

Calls alone do not tell a loop from polling, so results are compared too, with clocks, durations and ids taken
out. This looks for one thing only: a call that came back with the same result again and again while nothing
new was seen. It does not see a loop whose arguments change every time (a failing query that is rephrased),
and a loop with something ever new in between (a real clock, a random number) looks like progress.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import re2

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.event import Json
from guardrails_mw.ledger import canonical

__all__ = ["WINDOW", "Loop", "LoopLimits", "Step", "call_key", "find_loop", "result_key"]

WINDOW = 32
"""How many steps back a loop is looked for."""

_RUNGS = ("nudge", "ask", "block")
_BOUND = 65_536  # characters of a result that are normalised; what follows is compared as it is
_CHANGING = re2.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # uuid
    r"|\b\d{4}-\d\d-\d\d(?:[t ]\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:z|[+-]\d\d:?\d\d)?"  # date, date and time
    r"|\b\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?[ap]m\b|z)?"  # clock
    r"|\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|secs?|seconds?|mins?|minutes?|h|hours?)\b"  # duration
)


@dataclass(frozen=True, slots=True)
class Step:
    """A tool call that ran, or one that was stopped and counts as if it had given the same result again.

    An empty `result` equals nothing, not even another empty one.
    """

    call: str
    result: str


@dataclass(frozen=True, slots=True)
class LoopLimits:
    """When a repetition is a loop, and what is done about it.

    Attributes:
        repeats: same results after which the next same call is stopped for the first time.
        then: what happens at that call, at the one after it, and so on; the last one stays.

    Raises:
        PolicyError: fewer than 2 repeats, or a rung that does not exist.
    """

    repeats: int = 3
    then: tuple[str, ...] = _RUNGS

    def __post_init__(self) -> None:
        if not 2 <= self.repeats < WINDOW - len(_RUNGS):
            raise PolicyError(f"repeats is 2 to {WINDOW - len(_RUNGS) - 1}", field="loops.repeats")
        for rung in self.then:
            if rung not in _RUNGS:
                raise PolicyError(f"unknown rung {rung!r}: {nearest(rung, list(_RUNGS))}", field="loops.then")
        if not self.then:
            raise PolicyError(f"empty; {nearest('', list(_RUNGS))}", field="loops.then")


@dataclass(frozen=True, slots=True)
class Loop:
    """A call that would only repeat: how often it gave the same result, and what is done about it now."""

    count: int
    rung: str


def find_loop(steps: Sequence[Step], call: str, limits: LoopLimits) -> Loop | None:
    """Whether the next call would continue a loop.

    Counts, going back through the last `WINDOW` steps, how often this call gave the result that it gave
    last. The count ends where it gave another result, and where a step was new: another call or result
    that had not been in the window before.

    >>> steps = [Step("search x", "nothing"), Step("read y", "text")] * 3
    >>> find_loop(steps, "search x", LoopLimits(repeats=2))
    Loop(count=2, rung='nudge')
    >>> find_loop([*steps, Step("read z", "more")], "search x", LoopLimits(repeats=2)) is None
    True
    """
    window = steps[-WINDOW:]
    first: dict[Step, int] = {}
    for index, step in enumerate(window):
        first.setdefault(step, index)
    result, count = "", 0
    for index in range(len(window) - 1, -1, -1):
        step = window[index]
        if step.call == call:
            if not step.result or step.result != (result or step.result):
                break
            result, count = step.result, count + 1
        elif first[step] == index or not step.result:
            break
    if count < limits.repeats:
        return None
    return Loop(count, limits.then[min(count - limits.repeats, len(limits.then) - 1)])


def call_key(tool: str, args: Mapping[str, Json], secret: bytes = b"") -> str:
    """A hash of a call that does not depend on key order, letter case or white space in its texts.

    >>> call_key("search", {"q": " Same  words", "n": 1}) == call_key("search", {"n": 1, "q": "same words "})
    True
    """
    return _digest(_text([tool, _folded(args)]) or "", secret)


def result_key(value: object, secret: bytes = b"") -> str:
    """A hash of a result without clocks, dates, durations and uuids; empty if it cannot be compared.

    >>> result_key("none (took 51 ms at 12:00:00)") == result_key("None (took 7ms at 12:00:09)")
    True
    >>> result_key("10%") == result_key("20%")
    False
    """
    text = value if isinstance(value, str) else _text(value)
    if text is None:
        return ""
    head = " ".join(text[:_BOUND].casefold().split())
    return _digest(str(_CHANGING.sub("#", _encodable(head))) + "\n" + text[_BOUND:], secret)


def _folded(value: Json) -> Json:
    if isinstance(value, str):
        return " ".join(value.split()).casefold()
    if isinstance(value, Mapping):
        return {str(key): _folded(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_folded(item) for item in value]
    return value


def _text(value: object) -> str | None:
    try:
        return canonical(value)
    except StoreError:
        return None


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _digest(text: str, secret: bytes) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=secret[:64]).hexdigest()
