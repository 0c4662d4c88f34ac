"""Numbers written so that patterns miss what people still read: digits apart, dashes that look alike, other scripts.

It comes on top of what `guardrails_mw.gates.disguise` undoes in every text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import pairwise

import re2

from guardrails_mw.gates.disguise import Change, Plain, rewritten, undisguised
from guardrails_mw.gates.pii.matching import Match

__all__ = ["narrowed", "read", "spelled_ssns"]

_GAPS = " \u00a0\u2009\u202f"
_WIDE = "\uff01-\uff5e"
_DASHES, _STOPS = "\u2010\u2011\u2012\u2013\u2212", "\u00b7\u2022\u2024\u2027\u2219\u22c5\u30fb"
_JOINS = f"(?<=[0-9A-Z])[\u00a0\u2007\u2009\u202f{_DASHES}{_STOPS}](?=[0-9A-Z])"
"""What keeps a number on one line, and signs drawn like a dash or a full stop between its groups."""
_SPREAD = re2.compile(r"[0-9](?: {1,2}(?:- )?[0-9]){8}")
_APART = re.compile(rf"\b\d(?:[{_GAPS}]{{1,2}}(?:-[{_GAPS}])?\d){{8,18}}\b(?![{_GAPS}]\d)")
_ALIGNED = re.compile(rf"[{_WIDE}\u3000]+|{_JOINS}|(?:(?![0-9])\d)+")
_WIDE_SHIFT = 0xFEE0
_SPELLED = re.compile(rf"(?<!\d[{_GAPS}])\b\d(?:[{_GAPS}]\d){{8}}\b(?![{_GAPS}]\d)")
_NO_SSN = re.compile(r"000|666|9|...00|.....0000")
_LEAST_DIFFERENT = 5


def narrowed(text: str) -> str:
    """The text with full-width characters and digits of other scripts as ASCII; every character keeps its place.

    >>> narrowed("\uff14\uff11\uff11\uff11 a\uff20b")
    '4111 a@b'
    """
    if text.isascii():
        return text
    return _ALIGNED.sub(lambda found: "".join(map(_shown, found.group())), text)


def read(text: str) -> Plain | None:
    """The text as it reads, digits that stand apart joined, or None when nothing in it is disguised.

    >>> plain = read("to bob%40example.com")
    >>> plain.text, plain.span(3, 18)
    ('to bob@example.com', (3, 20))
    """
    plain = undisguised(text)
    if plain is not None:
        text = plain.text
    narrow = narrowed(text)
    if narrow != text:
        plain = Plain(narrow, ((0, 0, True), (len(text), len(text), True)), plain)
    return (rewritten(narrow, _joined(narrow), plain) if _SPREAD.search(narrow) else None) or plain


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


def _joined(text: str) -> Iterator[Change]:
    """What stands between digits that are written one by one."""
    for row in _APART.finditer(text):
        start, digits = row.start(), [i for i, each in enumerate(row.group()) if each.isdecimal()]
        for before, after in pairwise(digits):
            yield start + before + 1, start + after, ""


def _shown(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - _WIDE_SHIFT)
    if character in _DASHES:
        return "-"
    if character in _STOPS:
        return "."
    return " " if character.isspace() else character
