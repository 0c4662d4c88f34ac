"""A tool call, and what it is known again by: its key, what it does, how its arguments put it.

All of it is told by the tool's name and the arguments alone, so it is worked out once for a call that is asked about
before it runs, read again when its result came, and made again and again if it goes round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from guardrails_mw.errors import StoreError
from guardrails_mw.event import Json
from guardrails_mw.ledger import canonical
from guardrails_mw.loops.gist import spaced
from guardrails_mw.loops.traits import Trait, does
from guardrails_mw.loops.wording import is_path_of_words, wording_of

__all__ = ["MARKS", "Call", "call_key", "call_of", "digest", "json_text", "tool_key"]

_NUMBERS = (int, float)
_MAPPINGS = (dict, Mapping)  # what is a dictionary need not be asked whether it is like one
_DEPTH = 64  # levels of arguments in which white space and repeated words do not matter
_BOUND = 65_536  # characters of an argument that are looked for in a failure
_ENCODER = json.JSONEncoder(check_circular=False)  # leaves keys in their order: some of what is told depends on it
_SHORT = 500  # characters of arguments that are remembered
_SCALARS = frozenset({int, bool, type(None)})  # of which equal ones of a type are the same; 0.0 and -0.0 are not
MARKS = ".:!?#%"
"""What may stand around a word of a call in a failure."""


class Call:
    """What a call is known again by.

    Attributes:
        key: a hash of tool and arguments.
        traits: what it does (`traits.does`).
        wording: words of free text among the arguments that matter.
    """

    __slots__ = ("_args", "_words", "key", "traits", "wording")

    def __init__(self, tool: str, args: Mapping[str, Json], secret: bytes = b"", key: Sequence[str] = ()) -> None:
        kept = {name: args[name] for name in key if name in args} if key else args
        self.key = digest(json_text([tool, _folded(kept)]) or tool, secret)
        self.traits = does(tool, args)
        unasked = self.traits & (Trait.TALK | Trait.JUDGES)  # however it is put, `progress` knows
        self.wording = "" if unasked else wording_of(kept, self.traits & Trait.SEARCHES > 0, secret)
        self._args, self._words = args, frozenset[str]()

    def names_a_path(self) -> bool:
        """Whether it names a path in which nothing is numbered."""
        return is_path_of_words(self._args)

    def words(self) -> frozenset[str]:
        """All words of the arguments, as they stand in a failure that names them; few calls fail."""
        if not self._words:
            words = {word.strip(MARKS) for word in spaced(_flat(self._args)).split()}
            words.update(*[word.split(".") for word in words if "." in word])
            self._words = frozenset(words)
        return self._words


def call_of(tool: str, args: Mapping[str, Json], secret: bytes = b"", key: Sequence[str] = ()) -> Call:
    """A call of a tool; `key` are the names of the arguments that matter, all if empty."""
    size = 0
    for value in args.values():
        if type(value) is str:
            size += len(value)
        elif type(value) not in _SCALARS:
            return _nested(tool, args, secret, key)
    if size > _SHORT:
        return Call(tool, args, secret, key)
    return _of_scalars(tool, secret, tuple(key), tuple(args), *args.values())


def _nested(tool: str, args: Mapping[str, Json], secret: bytes, key: Sequence[str]) -> Call:
    try:
        text = _ENCODER.encode(args)
    except (TypeError, ValueError, RecursionError):
        return Call(tool, args, secret, key)
    return _of_json(tool, secret, tuple(key), text) if len(text) <= _SHORT else Call(tool, args, secret, key)


@lru_cache(maxsize=256, typed=True)  # calls under way, and those that go round
def _of_scalars(tool: str, secret: bytes, key: Sequence[str], names: Sequence[str], *values: Json) -> Call:
    return Call(tool, dict(zip(names, values, strict=True)), secret, key)


@lru_cache(maxsize=256)
def _of_json(tool: str, secret: bytes, key: Sequence[str], args: str) -> Call:
    return Call(tool, json.loads(args), secret, key)


def call_key(tool: str, args: Mapping[str, Json], secret: bytes = b"", key: Sequence[str] = ()) -> str:
    """A hash of a call that does not depend on key order, letter case, white space or repeated words.

    >>> call_key("search", {"q": " Same  words", "n": 1}) == call_key("search", {"n": 1, "q": "same words "})
    True
    >>> call_key("think", {"t": "again"}) == call_key("think", {"t": "again again again"})
    True
    """
    return call_of(tool, args, secret, key).key


@lru_cache(maxsize=1024)
def tool_key(tool: str, secret: bytes = b"") -> str:
    """A hash of a tool's name."""
    return digest(tool, secret)


def digest(text: str, secret: bytes = b"") -> str:
    """A short keyed hash."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=secret[:64]).hexdigest()


def json_text(value: object) -> str | None:
    """The one JSON text of a value, None if it has none."""
    try:
        return canonical(value)
    except StoreError:
        return None


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
    if isinstance(value, _MAPPINGS):
        return {str(key): _folded(item, depth - 1) for key, item in value.items()}
    return [_folded(item, depth - 1) for item in value]
