"""The placeholder of a hidden value, ``[[EMAIL_ADDRESS_1_kvqdzw]]``, and how it is known again.

A placeholder is a kind, a number and a check of six consonants, so that no word and no digits of a text
look like one. Models do not copy it faithfully: they change its case, its brackets, its spaces, escape its
underscores or put Markdown around it. All of that is tolerated, because the check decides: what does not
carry the right check for its number stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

import re2

__all__ = ["CHECK_LETTERS", "MAX_NUMBER", "Known", "Refilled", "check_of", "kind_of", "placeholder", "refilled"]

CHECK_LETTERS = "bcdfghjkmnpqrstvwxyz"
"""Letters of a check: 20 consonants, 26 bits in six of them."""

MAX_NUMBER = 99_999
"""Largest number of a placeholder: with a sixth digit it could hide a telephone number."""

_CHECK_SIZE = 6
_MAX_KIND = 40
_LOOK_LEFT, _LOOK_RIGHT = 160, 40
_FAMILIES = {
    char: family for family, chars in enumerate(("[]［］【】⟦⟧", "()（）", "{}｛｝", "<>＜＞‹›«»")) for char in chars
}
_SPACE = r"[\s\x{A0}\x{2007}\x{202F}\x{200B}-\x{200D}\x{2060}\x{FEFF}]"
_BREAK = r"[\\_\-\s\x{A0}\x{2007}\x{202F}\x{2010}-\x{2015}\x{2212}\x{200B}-\x{200D}\x{2060}\x{FEFF}]{0,4}"
_OPENING = rf"(?:(?:\\?[\[［【⟦(（{{｛<＜‹«]|%5[Bb]){_SPACE}?)"
_CLOSING = rf"(?:{_SPACE}?(?:\\?[\]］】⟧)）}}｝>＞›»]|%5[Dd]))"
_MARKS = r"[*_~`]{0,3}"


_CORE = re2.compile(rf"([0-9]{{1,5}}){_BREAK}([{CHECK_LETTERS}{CHECK_LETTERS.upper()}]{{{_CHECK_SIZE}}})")
_ALIKE = re2.compile(
    rf"{_OPENING}{_MARKS}[A-Za-z][A-Za-z_\\]{{0,60}}\\?_[0-9]{{1,9}}\\?_[A-Za-z0-9]{{4,8}}{_MARKS}{_CLOSING}"
)
_AFTER = re2.compile(rf"({_MARKS})({_CLOSING}{{0,3}})")
_BRACKET = re2.compile(r"%5[BbDd]|\\?[\[［【⟦(（{｛<＜‹«\]］】⟧)）}｝>＞›»]")


class Known(NamedTuple):
    """A value that a placeholder stands for, and its kind."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Refilled:
    """A text with values in place of placeholders: how many, and how many looked like one and were not."""

    text: str
    restored: int = 0
    unresolved: int = 0


class _Match(Protocol):
    """What RE2 gives back, as far as it is used here."""

    def start(self, group: int = 0) -> int: ...
    def end(self, group: int = 0) -> int: ...
    def group(self, group: int = 0) -> str: ...


class _Pattern(Protocol):
    def search(self, text: str) -> _Match | None: ...


class _Place(NamedTuple):
    """Where a placeholder stands with what belongs to it, and the Markdown inside its brackets."""

    start: int
    end: int
    before: str = ""
    after: str = ""


Lookup = Callable[[int, str], Known | None]
"""The value under a number, if this is its check (in lower case)."""


def kind_of(label: str) -> str:
    """The kind that a gate's label names, as placeholders spell it.

    >>> kind_of("[EMAIL_ADDRESS]"), kind_of("[SECRET:aws-key2]"), kind_of("***")
    ('EMAIL_ADDRESS', 'SECRET_AWS_KEY', 'VALUE')
    """
    letters = "".join(char if "A" <= char <= "Z" else " " for char in label.upper())
    return "_".join(letters.split())[:_MAX_KIND].strip("_") or "VALUE"


def check_of(digest: bytes) -> str:
    """The check that a keyed digest (8 bytes or more) gives.

    >>> check_of(bytes(8))
    'bbbbbb'
    """
    number, letters = int.from_bytes(digest[:8], "big"), []
    for _ in range(_CHECK_SIZE):
        number, digit = divmod(number, len(CHECK_LETTERS))
        letters.append(CHECK_LETTERS[digit])
    return "".join(letters)


def placeholder(kind: str, number: int, check: str) -> str:
    """The placeholder as it is written.

    >>> placeholder("EMAIL_ADDRESS", 1, "kvqdzw")
    '[[EMAIL_ADDRESS_1_kvqdzw]]'
    """
    return f"[[{kind}_{number}_{check}]]"


def refilled(text: str, lookup: Lookup) -> Refilled:
    r"""Put values in place of their placeholders, however these were mangled. Time is linear in the text.

    Two brackets of any shape around a placeholder, and one square pair, belong to it. One round, curly or
    angle pair is the text's own, unless nothing else is there; so is the square pair of a Markdown link.

    >>> known = {(1, "kvqdzw"): Known("EMAIL", "bob@x.org")}
    >>> refilled(r"To **email\_1\_KVQDZW** (see [[EMAIL_1_kvqdzx]])", lambda *key: known.get(key))
    Refilled(text='To **bob@x.org** (see [[EMAIL_1_kvqdzx]])', restored=1, unresolved=1)
    """
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    done = 0
    for core in _CORE.finditer(text):
        if core.start() < done or text[core.end() : core.end() + 1].isalnum():
            continue
        known = lookup(int(core.group(1)), core.group(2).lower())
        place = _place(text, core.start(), core.end(), known.kind, done) if known else None
        if known is not None and place is not None:
            pieces += [text[done : place.start], place.before, known.value, place.after]
            spans.append((place.start, place.end))
            done = place.end
    return Refilled("".join([*pieces, text[done:]]), len(spans), _unresolved(text, spans))


def _unresolved(text: str, restored: list[tuple[int, int]]) -> int:
    """How many look-alikes are left outside what was restored."""
    ahead: Iterator[tuple[int, int]] = iter(restored)
    count, span = 0, next(ahead, None)
    for alike in _ALIKE.finditer(text):
        while span is not None and span[1] <= alike.start():
            span = next(ahead, None)
        count += span is None or span[0] >= alike.end()
    return count


def _place(text: str, start: int, end: int, kind: str, done: int) -> _Place | None:
    """The whole of a placeholder whose number and check stand from `start` to `end`."""
    offset = max(done, start - _LOOK_LEFT)
    left = _before(kind).search(text[offset:start])
    right = cast("_Match", _AFTER.match(text[end : end + _LOOK_RIGHT]))
    if left is None:
        return None
    first = offset + left.start()
    opened = [(b.group(), first + b.start()) for b in _BRACKET.finditer(left.group(1))][::-1]
    closed = [(b.group(), end + right.start(2) + b.end()) for b in _BRACKET.finditer(right.group(2))]
    marks = left.group(2)
    if not opened and not marks.strip("_") and first > 0 and text[first - 1].isalnum():
        return None  # the end of a longer word
    bare = _Place(offset + left.end(2), end)
    pairs = min(_alike(opened), _alike(closed))
    if not pairs or _family(opened[0][0]) != _family(closed[0][0]):
        return bare
    outer = opened[pairs - 1]
    stray = outer[0].startswith("\\") and not closed[pairs - 1][0].startswith("\\")  # a backslash of the text
    whole = _Place(outer[1] + stray, closed[pairs - 1][1], marks, right.group(1))
    if pairs == 1 and not _own(text, whole, opened[0][0]):
        return bare
    return whole


def _own(text: str, place: _Place, bracket: str) -> bool:
    """Whether a single pair of brackets belongs to the placeholder and not to the text around it."""
    if _family(bracket) == 0:
        return bracket.startswith(("\\", "%")) or text[place.end : place.end + 1] != "("
    return not (text[: place.start].strip() or text[place.end :].strip())


def _alike(brackets: list[tuple[str, int]]) -> int:
    """How many of the innermost brackets, two at most, have the same shape."""
    if len(brackets) > 1 and _family(brackets[0][0]) == _family(brackets[1][0]):
        return 2
    return min(len(brackets), 1)


def _family(bracket: str) -> int:
    return _FAMILIES.get(bracket[-1], 0)


@lru_cache(maxsize=512)
def _before(kind: str) -> _Pattern:
    """What stands before the number of a placeholder of this kind."""
    words = _BREAK.join(kind.split("_"))
    return cast("_Pattern", re2.compile(rf"(?i)({_OPENING}{{0,3}})({_MARKS}){words}{_BREAK}$"))
