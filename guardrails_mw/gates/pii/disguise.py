"""Texts written so that patterns miss what people still read, and where their characters came from.

Full-width letters and digits, invisible characters inside a value, percent encoding and digits set apart
by single spaces are undone; the spans found in the result are carried back to the original.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from dataclasses import dataclass

import re2

from guardrails_mw.gates.pii.matching import Match

__all__ = ["Plain", "narrowed", "spelled_ssns", "undisguised"]

_ASCII_SIGN = re2.compile(r"%[2-7][0-9A-Fa-f]|[0-9](?: {1,2}(?:- )?[0-9]){8}")
_INVISIBLE = "\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff"
_GAPS = " \u00a0\u2009\u202f"
_WIDE = "\uff01-\uff5e"
_JOINS = "(?<=[0-9A-Z])[\u00a0\u2007\u2009\u202f\u2010\u2011](?=[0-9A-Z])"  # what keeps a number on one line
_DISGUISE = re.compile(
    rf"%[2-7][0-9A-Fa-f]|(?P<apart>\b\d(?:[{_GAPS}]{{1,2}}(?:-[{_GAPS}])?\d){{8,18}}\b(?![{_GAPS}]\d))|[{_INVISIBLE}]+|[{_WIDE}\u3000]+|{_JOINS}|(?:(?![0-9])\d)+"
)
_ALIGNED = re.compile(rf"[{_WIDE}\u3000]+|{_JOINS}|(?:(?![0-9])\d)+")
_HIDDEN = re.compile(f"[{_INVISIBLE}]").match
_WIDE_SHIFT = 0xFEE0
_SPELLED = re.compile(rf"(?<!\d[{_GAPS}])\b\d(?:[{_GAPS}]\d){{8}}\b(?![{_GAPS}]\d)")
_NO_SSN = re.compile(r"000|666|9|...00|.....0000")
_LEAST_DIFFERENT = 5


@dataclass(frozen=True, slots=True)
class Plain:
    """A text without its disguise.

    Attributes:
        text: what a reader sees.
        pieces: where each run of `text` begins in it and in the original, and whether the two have the
            same length; the last one marks the ends.
    """

    text: str
    pieces: tuple[tuple[int, int, bool], ...]

    @property
    def aligned(self) -> bool:
        """Whether every character stands for one, so that places are the same."""
        return all(same for _, _, same in self.pieces)

    def original(self, match: Match) -> Match:
        """The same match in the original text."""
        return match._replace(start=self._begin(match.start), end=self._begin(match.end - 1, after=True))

    def _begin(self, position: int, *, after: bool = False) -> int:
        k = bisect_right(self.pieces, position, key=lambda piece: piece[0]) - 1
        start, origin, same = self.pieces[k]
        if same:
            return origin + position - start + after
        return self.pieces[k + 1][1] if after else origin


def narrowed(text: str) -> str:
    """The text with full-width characters and digits of other scripts as ASCII; every character keeps its place.

    >>> narrowed("\uff14\uff11\uff11\uff11 a\uff20b")
    '4111 a@b'
    """
    if text.isascii():
        return text
    return _ALIGNED.sub(lambda found: "".join(map(_shown, found.group())), text)


def undisguised(text: str) -> Plain | None:
    """The text as it reads, or None when nothing in it is disguised.

    >>> plain = undisguised("to bob%40example.com")
    >>> plain.text, plain.original(Match(3, 18, "EMAIL_ADDRESS", 1.0))[:2]
    ('to bob@example.com', (3, 20))
    """
    if text.isascii() and not _ASCII_SIGN.search(text):
        return None
    written: list[str] = []
    pieces: list[tuple[int, int, bool]] = []
    length = end = 0
    for found in _DISGUISE.finditer(text):
        for origin, new, same in ((end, text[end : found.start()], True), *_undone(found)):
            if new:
                pieces.append((length, origin, same))
                written.append(new)
                length += len(new)
            elif not same:
                pieces.append((length, origin, same))
        end = found.end()
    if not pieces:
        return None
    pieces += [(length, end, True), (length + len(text) - end, len(text), True)]
    return Plain("".join([*written, text[end:]]), tuple(pieces))


def spelled_ssns(text: str) -> list[Match]:
    """Nine digits written one by one: somebody hides a number, and it is as long as an SSN.

    >>> spelled_ssns("it is 2 1 9 0 9 9 8 7 6")
    [Match(start=6, end=23, entity='US_SSN', score=0.5)]
    """
    found = []
    for spelled in _SPELLED.finditer(text):
        digits = "".join(filter(str.isdecimal, spelled.group()))
        if len(set(digits)) >= _LEAST_DIFFERENT and digits not in "0123456789" and not _NO_SSN.match(digits):
            found.append(Match(*spelled.span(), "US_SSN", 0.5))
    return found


def _undone(found: re.Match[str]) -> list[tuple[int, str, bool]]:
    """Origin and replacement of the characters of a disguise, and whether they stand one for one."""
    value, start = found.group(), found.start()
    if value[0] == "%":
        return [(start, chr(int(value[1:], 16)), False)]
    if found.lastgroup == "apart":
        return [(start + i, _shown(each) if each.isdecimal() else "", False) for i, each in enumerate(value)]
    if _HIDDEN(value):
        return [(start, "", False)]
    return [(start, "".join(map(_shown, value)), True)]


def _shown(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - _WIDE_SHIFT)
    if character in "\u2010\u2011":
        return "-"
    return " " if character.isspace() else character
