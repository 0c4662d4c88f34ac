"""When two tool calls are the same call, and when two results say the same: what loops are recognised by.

A step is kept as hashes, without what changes by itself (`gist`), together with what is known of it besides: a few
`Trait`s, the figures that may tell of progress, the wording of its arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from guardrails_mw.errors import StoreError
from guardrails_mw.event import Json
from guardrails_mw.ledger import canonical
from guardrails_mw.loops.gist import Gist, gist_of, spaced
from guardrails_mw.loops.traits import HEAD, Trait, absent, does, said
from guardrails_mw.loops.wording import is_path_of_words, wording_of

__all__ = ["ENDLESS", "Habits", "Step", "call_key", "result_key", "step_of", "tool_key"]

ENDLESS = 1_000_000
"""The patience of a tool that may be polled without end."""

_BOUND = 65_536  # characters of an argument that are looked for in a failure
_ECHO = 500  # characters of a failure in which words of the call are looked for
_MARKS = ".:!?#%"
_DIGITS = frozenset("0123456789")
_OBJECTS = ('{"', "[{", "{\n", "[\n", "{ ")
_NUMBERS = (int, float)
_DEPTH = 64  # levels of arguments in which white space and repeated words do not matter


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
    gist, head = _gist(result)
    traits = _traits(tool, args, None if gist is None else head, ok, habits)
    call = call_key(tool, args, secret, habits.key)
    text, figures = ("", ()) if gist is None else gist
    if traits & (Trait.FAILED | Trait.EMPTY | Trait.TALK) and len(text) <= _ECHO:
        text = _without(text, args)
    if traits & (Trait.MAKES | Trait.TALK) and not traits & Trait.FAILED:
        text = " ".join(word for word in text.split() if _DIGITS.isdisjoint(word))  # the number of a receipt
    if traits & (Trait.FAILED | Trait.EMPTY):
        figures = tuple(figure for figure in figures if figure[0] != "~")  # it tried again, and it failed again
    return Step(
        tool_key(tool, secret),
        call,
        "" if gist is None else _digest(text, secret),
        traits,
        ENDLESS if habits.poll is True else int(habits.poll),
        _shifted(figures, call, secret) if figures else "",
        wording_of(_kept(args, habits.key), bool(traits & Trait.SEARCHES), secret),
    )


def _traits(tool: str, args: Mapping[str, Json], head: str | None, ok: bool, habits: Habits) -> int:
    """What is known of a call: by its tool's name, by its result, by the policy."""
    traits = does(tool, args)
    if head is not None:
        came = said(head)
        if traits & Trait.READS:
            came &= ~Trait.ACTED  # "success": it has read
        if traits & (Trait.ACTED | Trait.HANDOVER) and not came & Trait.REFUSED:
            came &= ~Trait.WAITING  # "queued": it has acted
        traits |= came
        if traits & (Trait.READS | Trait.BLANK) == Trait.READS | Trait.BLANK:
            traits |= Trait.EMPTY
        if traits & (Trait.READS | Trait.JUDGES) == Trait.READS and absent(head) and is_path_of_words(args):
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
    offset = int(_digest(f"figures {call}", secret)[:8], 16)
    return " ".join(f"{figure[0]}{float(figure[1:]) + offset!r}" for figure in figures)


@lru_cache(maxsize=1024)
def tool_key(tool: str, secret: bytes = b"") -> str:
    """A hash of a tool's name."""
    return _digest(tool, secret)


def call_key(tool: str, args: Mapping[str, Json], secret: bytes = b"", key: Sequence[str] = ()) -> str:
    """A hash of a call that does not depend on key order, letter case, white space or repeated words.

    >>> call_key("search", {"q": " Same  words", "n": 1}) == call_key("search", {"n": 1, "q": "same words "})
    True
    >>> call_key("think", {"t": "again"}) == call_key("think", {"t": "again again again"})
    True
    """
    return _digest(_text([tool, _folded(_kept(args, key))]) or tool, secret)


def _kept(args: Mapping[str, Json], key: Sequence[str]) -> Mapping[str, Json]:
    return {name: args[name] for name in key if name in args} if key else args


def result_key(value: object, secret: bytes = b"") -> str:
    """A hash of a result without what changes by itself; empty if it cannot be compared.

    >>> result_key("none (took 51 ms at 12:00:00)") == result_key("None (took 7ms at 12:00:09)")
    True
    >>> result_key("10%") == result_key("20%")
    False
    """
    gist, _ = _gist(value)
    return "" if gist is None else _digest(gist.text, secret)


def _gist(value: object) -> tuple[Gist | None, str]:
    """What a result says, and how it begins as it was written: what a service puts first is what it says."""
    if not isinstance(value, str):
        text = _text(value)
        gist = None if text is None else gist_of(text)
        return gist, gist.text[:HEAD] if gist else ""
    ordered = _ordered(value)
    gist = gist_of(value if ordered is None else ordered)
    return gist, (gist if ordered is None else gist_of(value[: 2 * HEAD])).text[:HEAD]


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


def _digest(text: str, secret: bytes = b"") -> str:
    """A short keyed hash."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=secret[:64]).hexdigest()


def _without(text: str, args: Mapping[str, Json]) -> str:
    """A failure without the words of the call: `nothing for "a b"` tells no more than `nothing for "c"`."""
    said_before = {word.strip(_MARKS) for word in spaced(_flat(args)).split()}
    said_before.update(*[word.split(".") for word in said_before if "." in word])
    said_before.discard("0")  # which counts what was found
    return " ".join(word for word in (each.strip(_MARKS) for each in text.split()) if word not in said_before)


def _flat(value: Json, depth: int = _DEPTH) -> str:
    if isinstance(value, str):
        return value[:_BOUND].casefold()
    if value is None or isinstance(value, _NUMBERS):
        return str(value)
    items = value.values() if isinstance(value, Mapping) else value
    return " ".join(_flat(item, depth - 1) for item in items) if depth else ""


def _folded(value: Json, depth: int = _DEPTH) -> Json:
    if isinstance(value, str):
        return " ".join(dict.fromkeys(value.casefold().split()))
    if value is None or isinstance(value, _NUMBERS) or not depth:
        return value
    if isinstance(value, Mapping):
        return {str(key): _folded(item, depth - 1) for key, item in value.items()}
    return [_folded(item, depth - 1) for item in value]


def _text(value: object) -> str | None:
    try:
        return canonical(value)
    except StoreError:
        return None
