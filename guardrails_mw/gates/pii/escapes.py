r"""Texts that hold JSON: what their string literals say, and how a value in one is replaced without breaking it.

In ``{"m": "call\nbob@example.com"}`` a pattern sees the mailbox ``nbob``; replacing that would leave a lone
backslash. So literals are read decoded, with every character's place in the text as it is.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right

from guardrails_mw.gates.pii.disguise import Plain

__all__ = ["decoded", "number_tokens", "token_around"]

_LITERAL = re.compile(r'"(?:[^"\\\n]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"')
_ESCAPE = re.compile(r'\\(?:u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|["\\/bfnrt])')
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|(-?[0-9][-+.0-9eE]*)', re.DOTALL)
_SURROGATES = range(0xD800, 0xE000)


def decoded(text: str) -> Plain | None:
    r"""The text with the escapes in its string literals undone, or None when there are none.

    >>> decoded(r'{"m": "a\nb"}').text
    '{"m": "a\nb"}'
    """
    if "\\" not in text or '"' not in text:
        return None
    written: list[str] = []
    pieces: list[tuple[int, int, bool]] = []
    length = end = 0
    for literal in _LITERAL.finditer(text):
        for escape in _ESCAPE.finditer(text, literal.start() + 1, literal.end() - 1):
            for origin, new, same in ((end, text[end : escape.start()], True), (escape.start(), _said(escape), False)):
                if new:
                    pieces.append((length, origin, same))
                    written.append(new)
                    length += len(new)
            end = escape.end()
    if not pieces:
        return None
    pieces += [(length, end, True), (length + len(text) - end, len(text), True)]
    return Plain("".join([*written, text[end:]]), tuple(pieces))


def _said(escape: re.Match[str]) -> str:
    said: str = json.loads(f'"{escape.group()}"')
    return "\ufffd" if len(said) == 1 and ord(said) in _SURROGATES else said


def number_tokens(text: str) -> list[tuple[int, int]]:
    """Where numbers stand in a text that is JSON as a whole; nothing for any other text.

    >>> number_tokens('{"ssn": 219099999, "n": "1"}')
    [(8, 17)]
    """
    if text.lstrip()[:1] not in ("{", "["):
        return []
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [token.span(1) for token in _TOKEN.finditer(text) if token.group(1)]


def token_around(tokens: list[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """The number that a span lies in."""
    k = bisect_right(tokens, (start, len(tokens) and tokens[-1][1])) - 1
    return tokens[k] if k >= 0 and tokens[k][0] <= start and end <= tokens[k][1] else None
