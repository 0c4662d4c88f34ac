"""When two tool calls are the same call, and when two results say the same: what loops are recognised by.

Results of real services carry clocks, durations and request ids; compared literally, no two of them are ever
the same. So whatever changes by itself is taken out, and a step is kept as hashes together with a few `Trait`s:
whether the call failed, found nothing, did something. Where the policy does not say what a tool does, that is
judged by its name and by its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import re2

from guardrails_mw.errors import StoreError
from guardrails_mw.event import Json
from guardrails_mw.ledger import canonical

__all__ = ["ENDLESS", "Habits", "Step", "Trait", "call_key", "likeness", "result_key", "step_of", "tool_key"]

ENDLESS = 1_000_000
"""The patience of a tool that may be polled without end."""

_BOUND = 65_536  # characters of a result that are normalised; what follows is compared as it is
_ECHO = 500  # characters of a failure in which words of the call are looked for
_HEAD = 200  # characters of a result that are read for what they say


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any(*patterns: str) -> re2._Regexp[str]:
    return re2.compile("|".join(patterns))


_CHANGING = _any(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # uuid
    r"\b\d{4}-\d\d-\d\d(?:[t ]\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?)? ?(?:z\b|utc\b|gmt\b|[+-]\d\d:?\d\d)?",  # date, time
    r"\b\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?[ap]m\b|z\b)?",  # clock
    r"\b\d+(?:\.\d+)? ?(?:ns|us|µs|ms|s|secs?|seconds?|mins?|minutes?|h|hours?)\b(?: ago\b)?",  # duration
    r"\b(?:1[5-9]\d{8}|1[5-9]\d{11})(?:\.\d+)?\b",  # seconds or milliseconds since 1970, from 2017 on
    r"\b(?:attempt|try|retry|retries|poll|iteration|seq|sequence|counter|serial|request|req|call)"  # counter
    r"(?:s|_count|_no|_number)?['\"]?[ :=#-]{1,3}(?:no\.? ?)?\d+(?: ?(?:/|of) ?\d+)?\b",
    r"\b(?:request|req|trace|correlation|span|session|transaction|txn|nonce|etag|ref|reference|incident)"  # id
    r"(?:[ _-]?id)?['\"]?[ :=#]{1,3}['\"]?[0-9a-z_-]*\d[0-9a-z_-]*",
    r"\b(?:req|trace|txn|sess|span)[_-][0-9a-z_-]*\d[0-9a-z_-]*\b",
    r"['\"](?:timestamp|time|ts|now|date|elapsed|took|duration|latency|generated|uptime|age)"  # the same as fields
    r"(?:_?(?:at|ms|s|ns|seconds|time))?['\"] ?: ?['\"]?[\d.:tz+-]+",
)
_BLANK = _any(r"^[(\"' ]*(?:none|null|nil|undefined)?[)\"' .!]*$")
_NEGATIVE = (
    r"(?:no|zero|nothing|none|not|never|couldn't|could not|can't|cannot|don't|did not|didn't|does not|doesn't|unable|"
    r"unknown|invalid|missing|unauthori[sz]ed|forbidden|denied|please (?:log|sign) in|login required)"
)
_MISSED = (
    r"(?:not found|no match(?:es)?|nothing found|no such [a-z]+|(?:does|did) not (?:exist|match)|access denied|"
    r"permission denied|returned nothing|came up empty|is empty)"
)
_FIELD = r"^[\[{(\"' ]*(?:(?:ok|error|status|success|message|ack|result|results|detail)[\"']?: ?[\"']?)?"
_EMPTY = _any(
    r"^[\[{(\"' ]*(?:n/a|nan|empty|nothing|not found|404)?[\]})\"' .!]*$",
    r"^\{(?:['\"]?[a-z_]+['\"]?: ?(?:\[\]|\{\}|0|null|none|false|true|['\"]{2}|#)[, #]*|#[, ]*)+\}$",  # all empty
    _FIELD + r"(?:sorry[,.]? )?(?:i |we |there (?:is|are|was|were) )?" + _NEGATIVE + r"\b.{0,80}$",
    r"\b(?:0|no) (?:[a-z]+ )?(?:results?|rows?|hits?|match(?:es)?|records?|items?|entries|documents?|files?)\b.{0,40}$",
    r"^.{0,80}\b" + _MISSED + r"\b.{0,40}$",
    r"['\"](?:total|count|hits|matches|size|(?:total|num)_?(?:count|results|hits))['\"]: ?0\b",
    r"['\"](?:results|items|issues|data|hits|rows|records|entries|documents|matches|users|files|values)['\"]: ?\[ ?\]",
)
_FAILED = _any(r"^[\[{(\"'<]*(?:[a-z_]*error|[a-z]*exception|traceback|failed|failure|fatal)\b")
_REFUSED = _any(
    r"\b(?:timed?[ _-]?out|rate.?limit(?:ed)?|too many requests)\b",
    r"\b(?:service|server|currently|temporarily) unavailable\b",
    r"\b(?:try again|connection (?:refused|reset|closed|failed|error|aborted)|429|502|503|504)\b",
)
_WAITING = _any(
    r"\b(?:pending|running|in[ _-]progress|processing|queued|waiting|not ready|starting|building|provisioning|busy)\b"
)
_RECEIPT = _any(
    _FIELD + r"(?:ok(?:ay)?|done|success(?:ful(?:ly)?)?|true|20[0-4]|ack|yes|[a-z]{3,12}ed|sent|written|set|put|paid)\b"
    r".{0,60}$"
)
_ACTS = _words(
    "add append apply approve archive assign book cancel charge click close comment commit copy create delete deploy "
    "disable drop edit email enable enqueue execute export fill fix forward grant handle import insert install invite "
    "invoice label mark merge message modify move notify order patch pay post press process publish purchase push put "
    "refund register reject remove rename reply report reserve reset restart revoke save schedule send set share ship "
    "sign store submit subscribe sync tag transfer translate unsubscribe update upload upsert work write"
)
_READS = _words(
    "browse check count describe fetch find get grep list look lookup query read retrieve scan search select show view"
)
_THINKS = _words("brainstorm consider note plan ponder reason reasoning reflect scratchpad think thinking thought")
_WAITS = _words("await poll progress sleep status wait")
_HANDS_OVER = _any(r"^(?:to_|handoff|hand_off|hand_over|transfer_to_|delegate|route_to|switch_to|escalate)")
_MARKS = "'\"`()[]{}<>,.;:!?#%"
_PIECES = _any(r"[A-Z]?[a-z]+|[A-Z]+")


class Trait:
    """What is known of a step besides what it is equal to: bits of an integer, much faster than flags."""

    NONE: Final = 0
    FAILED: Final = 1
    """The call failed."""
    EMPTY: Final = 2
    """It found nothing, or was turned away."""
    ACTED: Final = 4
    """It did something: made again with other arguments it is progress, whatever it answers."""
    EFFECT: Final = 8
    """The policy says that it has an effect; repeating it counts harder."""
    WAITING: Final = 16
    """It waits for something that others do, or met a fault that passes."""
    TALK: Final = 32
    """It only writes something down; new words are no progress."""
    HANDOVER: Final = 64
    """It hands over to another agent."""
    READS: Final = 128
    """It looks something up: an answer without content is then an empty one, and not silent success."""
    BLANK: Final = 256
    """Its answer has no content."""


@dataclass(frozen=True, slots=True)
class Step:
    """A tool call that ran, as hashes; or one that was stopped and counts as if it had answered the same again.

    An empty `result` equals nothing, not even another empty one. `patience`: how often a tool that polls may give
    the same result; 0 for other tools.
    """

    tool: str
    call: str
    result: str
    traits: int = Trait.NONE
    patience: int = 0


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
    text, named = likeness(result), _named(tool)
    traits = named if text is None else named | _said(text[:_HEAD])
    if traits & (Trait.READS | Trait.BLANK) == Trait.READS | Trait.BLANK:
        traits |= Trait.EMPTY
    if not ok:
        traits = traits & ~(Trait.ACTED | Trait.EMPTY) | Trait.FAILED
    if habits.effect is not None:
        traits = (traits | Trait.ACTED | Trait.EFFECT) if habits.effect else traits & ~Trait.ACTED
    if text is not None and traits & (Trait.FAILED | Trait.EMPTY) and len(text) <= _ECHO:
        text = _without(text, args)
    patience = ENDLESS if habits.poll is True else int(habits.poll)
    result = "" if text is None else _digest(text, secret)
    return Step(tool_key(tool, secret), call_key(tool, args, secret, habits.key), result, traits, patience)


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
    kept = {name: args[name] for name in key if name in args} if key else args
    if not key and _named(tool) & Trait.HANDOVER:
        kept = {}  # what an agent says about why it hands over is no other handover
    return _digest(_text([tool, _folded(kept)]) or "", secret)


def result_key(value: object, secret: bytes = b"") -> str:
    """A hash of a result without what changes by itself; empty if it cannot be compared.

    >>> result_key("none (took 51 ms at 12:00:00)") == result_key("None (took 7ms at 12:00:09)")
    True
    >>> result_key("10%") == result_key("20%")
    False
    """
    text = likeness(value)
    return "" if text is None else _digest(text, secret)


def likeness(value: object) -> str | None:
    """A result without clocks, dates, durations, counters of attempts and ids of requests; None if it is no JSON."""
    text = value if isinstance(value, str) else _text(value)
    if text is None:
        return None
    head = _encodable(" ".join(text[:_BOUND].casefold().split()))
    if any(map(head.__contains__, "0123456789")):
        head = str(_CHANGING.sub("#", head))
    return head + "\n" + text[_BOUND:] if len(text) > _BOUND else head


def _digest(text: str, secret: bytes = b"") -> str:
    """A short keyed hash."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=secret[:64]).hexdigest()


@lru_cache(maxsize=1024)
def _said(head: str) -> int:
    """What the beginning of a result tells."""
    if _REFUSED.search(head):
        return Trait.WAITING | Trait.EMPTY
    waits = Trait.WAITING if _WAITING.search(head) else Trait.NONE
    if _FAILED.search(head):
        return waits | Trait.FAILED
    if _RECEIPT.search(head):
        return waits | Trait.ACTED
    if _BLANK.search(head):
        return waits | Trait.BLANK
    return waits | (Trait.EMPTY if _EMPTY.search(head) else Trait.NONE)


@lru_cache(maxsize=1024)
def _named(tool: str) -> int:
    """What a tool's name tells; the first word that says anything decides."""
    name = _encodable(tool[:_HEAD])
    words = [word.lower() for word in _PIECES.findall(name)]
    if _HANDS_OVER.search(name.lower()):
        return Trait.HANDOVER
    if not _THINKS.isdisjoint(words):
        return Trait.TALK
    telling = next((word for word in words if word in _ACTS or word in _READS), "")
    does = Trait.ACTED if telling in _ACTS else Trait.READS if telling else Trait.NONE
    return does if _WAITS.isdisjoint(words) else does | Trait.WAITING


def _without(text: str, args: Mapping[str, Json]) -> str:
    """A failure without the words of the call: `nothing for "a b"` tells no more than `nothing for "c"`."""
    said = {word.strip(_MARKS) for word in _flat(args).split()} - {"0"}  # which counts what was found
    return " ".join(word for word in (each.strip(_MARKS) for each in text.split()) if word not in said)


def _flat(value: Json) -> str:
    if isinstance(value, str):
        return value[:_BOUND].casefold()
    if isinstance(value, Mapping):
        return " ".join(map(_flat, value.values()))
    return " ".join(map(_flat, value)) if isinstance(value, Sequence) else str(value)


def _folded(value: Json) -> Json:
    if isinstance(value, str):
        return " ".join(dict.fromkeys(value.casefold().split()))
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
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
