r"""Texts that hold JSON: what their string literals say, and how a value in one is replaced without breaking it.

In ``{"m": "call\nbob@example.com"}`` a pattern sees the mailbox ``nbob``; replacing that would leave a lone
backslash. So literals are read decoded, with every character's place in the text as it is.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from guardrails_mw.gates.disguise import Change, Plain, rewritten
from guardrails_mw.gates.pii.matching import Match

__all__ = ["Token", "decoded", "fitted", "tokens"]

_LITERAL = re.compile(r'"(?:[^"\\\n]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"?')
"""A string literal, or what has come of it so far: how it ends does not change how it is read."""
_ESCAPE = re.compile(r'\\(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|["\\/bfnrt])')
_NESTED = re.compile(r'\\+(u[0-9A-Fa-f]{4}|["/bfnrt])')
"""The same in a literal that holds JSON itself, where each level doubles the backslashes."""
_HOLDS_JSON = re.compile(r'"\s*[{\[].{0,256}?\\"', re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|(-?[0-9][-+.0-9eE]*)', re.DOTALL)
_SURROGATES = range(0xD800, 0xE000)


def decoded(text: str) -> Plain | None:
    r"""The text with the escapes in its string literals undone, or None when there are none.

    >>> decoded(r'{"m": "a\nb"}').text
    '{"m": "a\nb"}'
    """
    if "\\" not in text or '"' not in text:
        return None
    return rewritten(text, _undone(text))


def _undone(text: str) -> Iterator[Change]:
    """The escapes of its literals, and what they say."""
    for literal in _LITERAL.finditer(text):
        escapes = _NESTED if _HOLDS_JSON.match(literal.group()) else _ESCAPE
        for escape in escapes.finditer(text, literal.start() + 1, literal.end()):
            yield *escape.span(), _said(escape)


def _said(escape: re.Match[str]) -> str:
    written = f"\\{escape.group(1)}" if escape.re is _NESTED else escape.group()
    said: str = json.loads(f'"{written}"')
    return "\ufffd" if len(said) == 1 and ord(said) in _SURROGATES else said


class Token(NamedTuple):
    """A number of a JSON text, or what stands between the quotes of a string."""

    start: int
    end: int
    number: bool


def tokens(text: str) -> list[Token]:
    """The scalar values and keys of a text that is JSON as a whole; nothing for any other text.

    >>> tokens('{"n": 12}')
    [Token(start=2, end=3, number=False), Token(start=6, end=8, number=True)]
    """
    if text.lstrip()[:1] not in ("{", "["):
        return []
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [
        Token(*each.span(1), number=True) if each.group(1) else Token(each.start() + 1, each.end() - 1, number=False)
        for each in _TOKEN.finditer(text)
    ]


def fitted(matches: Iterable[Match], among: Sequence[Token]) -> list[Match]:
    """Matches cut at the ends of strings and widened to whole numbers, so that replacing them leaves JSON."""
    if not among:
        return list(matches)
    found = []
    for match in matches:
        k = bisect_right(among, match.start, key=lambda token: token.end)
        while k < len(among) and among[k].start < match.end:
            token = among[k]
            start, end = (
                (token.start, token.end) if token.number else (max(match.start, token.start), min(match.end, token.end))
            )
            if start < end:
                found.append(match._replace(start=start, end=end))
            k += 1
    return found
