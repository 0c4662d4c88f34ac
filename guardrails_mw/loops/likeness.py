"""When two tool calls are the same call, and when two results say the same: what loops are recognised by.

A step is kept as hashes, without what changes by itself (`gist`), together with what is known of it besides: a few
`Trait`s, the figures that may tell of progress, the wording of its arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from guardrails_mw.event import Json
from guardrails_mw.loops.call import MARKS, Call, call_of, digest, json_text, tool_key
from guardrails_mw.loops.gist import Gist, gist_of
from guardrails_mw.loops.traits import HEAD, Trait, absent, said

__all__ = ["ENDLESS", "Habits", "Step", "result_key", "step_of"]

ENDLESS = 1_000_000
"""The patience of a tool that may be polled without end."""

_BOUND = 65_536  # characters of an object whose keys are put in order
_SHORT = 1000  # characters of a result that is likely to come again
_ECHO = 500  # characters of a failure in which words of the call are looked for
_DIGITS = frozenset("0123456789")
_OBJECTS = ('{"', "[{", "{\n", "[\n", "{ ")


class Step(NamedTuple):
    """A tool call that ran, as hashes; or one that was stopped and counts as if it had answered the same again.

    An empty `result` equals nothing, not even another empty one.

    Attributes:
        tool: its name.
        call: tool and arguments.
        result: what it said, without what changes by itself.
        traits: what is known of it besides.
        patience: how often a tool that polls may give the same result; 0 for other tools.
        figures: numbers that were taken out of the result and may tell of progress, with their signs (`Gist`), all
            moved by a number that only the call and the secret tell.
        wording: words of free text among the arguments.
    """

    tool: str
    call: str
    result: str
    traits: int = Trait.NONE
    patience: int = 0
    figures: str = ""
    wording: str = ""


@dataclass(frozen=True, slots=True)
class Habits:
    """What a policy says about a tool; None is judged by name and result.

    Attributes:
        poll: calling it again with the same arguments is its normal use; how often it may give the same result, or
            True for no end.
        effect: whether it changes something outside.
        key: names of the arguments that matter; all if empty.
    """

    poll: bool | int = False
    effect: bool | None = None
    key: tuple[str, ...] = ()


_UNKNOWN = Habits()


def step_of(
    tool: str, args: Mapping[str, Json], result: object, ok: bool, *, habits: Habits = _UNKNOWN, secret: bytes = b""
) -> Step:
    """A tool call and what it gave back, as a step."""
    call = call_of(tool, args, secret, habits.key)
    gist, head = _gist(result)
    traits = _traits(call, None if gist is None else head, ok, habits)
    text, figures = ("", ()) if gist is None else gist
    if traits & (Trait.FAILED | Trait.EMPTY | Trait.TALK) and len(text) <= _ECHO:
        text = _without(text, call)
    if traits & (Trait.MAKES | Trait.TALK) and not traits & Trait.FAILED:
        text = " ".join(word for word in text.split() if _DIGITS.isdisjoint(word))  # the number of a receipt
    if figures and traits & (Trait.FAILED | Trait.EMPTY):
        figures = tuple(figure for figure in figures if figure[0] != "~")  # it tried again, and it failed again
    return Step(
        tool_key(tool, secret),
        call.key,
        "" if gist is None else digest(text, secret),
        traits,
        ENDLESS if habits.poll is True else int(habits.poll),
        _shifted(figures, call.key, secret) if figures else "",
        call.wording,
    )


def _traits(call: Call, head: str | None, ok: bool, habits: Habits) -> int:
    """What is known of a call: by itself, by its result, by the policy."""
    traits = call.traits
    if head is not None:
        came = said(head)
        if traits & Trait.READS:
            came &= ~Trait.ACTED  # "success": it has read
        if traits & (Trait.ACTED | Trait.HANDOVER) and not came & Trait.REFUSED:
            came &= ~Trait.WAITING  # "queued": it has acted
        traits |= came
        if traits & (Trait.READS | Trait.BLANK) == Trait.READS | Trait.BLANK:
            traits |= Trait.EMPTY
        if traits & (Trait.READS | Trait.JUDGES) == Trait.READS and absent(head) and call.names_a_path():
            traits |= Trait.REFUSED  # a path that was guessed, not one of a list
    if traits & Trait.REFUSED:
        traits &= ~Trait.ACTED
    if not ok:
        traits = traits & ~(Trait.ACTED | Trait.EMPTY) | Trait.FAILED | Trait.RAISED
    if habits.effect is not None:
        traits = (traits | Trait.ACTED | Trait.EFFECT) if habits.effect else traits & ~Trait.ACTED
    return traits


def _shifted(figures: Sequence[str], call: str, secret: bytes) -> str:
    """Figures as they are kept: all moved by a secret number, so that only how they change can be read."""
    offset = int(digest(f"figures {call}", secret)[:8], 16)
    return " ".join(f"{figure[0]}{float(figure[1:]) + offset!r}" for figure in figures)


def result_key(value: object, secret: bytes = b"") -> str:
    """A hash of a result without what changes by itself; empty if it cannot be compared.

    >>> result_key("none (took 51 ms at 12:00:00)") == result_key("None (took 7ms at 12:00:09)")
    True
    >>> result_key("10%") == result_key("20%")
    False
    """
    gist, _ = _gist(value)
    return "" if gist is None else digest(gist.text, secret)


def _gist(value: object) -> tuple[Gist | None, str]:
    """What a result says, and how it begins as it was written: what a service puts first is what it says."""
    if isinstance(value, str):
        return _read_again(value) if len(value) <= _SHORT else _read(value)
    text = json_text(value)
    gist = None if text is None else gist_of(text)
    return gist, gist.text[:HEAD] if gist else ""


def _read(text: str) -> tuple[Gist, str]:
    ordered = _ordered(text)
    gist = gist_of(text if ordered is None else ordered)
    return gist, (gist if ordered is None else gist_of(text[: 2 * HEAD])).text[:HEAD]


_read_again = lru_cache(maxsize=256)(_read)  # receipts, and results of what goes round


def _ordered(text: str) -> str | None:
    """The text of a JSON object with its keys in order: some services write them in any. None where they are."""
    if not text.startswith(_OBJECTS) or len(text) > _BOUND:
        return None
    try:
        value = json.loads(text)
        return None if _in_order(value) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None


def _in_order(value: object) -> bool:
    if isinstance(value, dict):
        keys = list(value)
        return all(map(str.__le__, keys, keys[1:])) and all(map(_in_order, value.values()))
    return not isinstance(value, list) or all(map(_in_order, value))


def _without(text: str, call: Call) -> str:
    """A failure without the words of the call: `nothing for "a b"` tells no more than `nothing for "c"`."""
    known = call.words()
    words = [word.strip(MARKS) for word in text.split()]
    return " ".join([word for word in words if word == "0" or word not in known])  # 0 counts what was found
