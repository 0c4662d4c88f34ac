"""Forms of values that Presidio's recognizers leave out: addresses under new domains, numbers of other countries.

They come on top of Presidio's findings. Web addresses are RE2; numbers are patterns without open repetition, so their
search is linear too, and Python's own engine tells a match in a fifth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from guardrails_mw.gates.pii.matching import Span
from guardrails_mw.gates.pii.sources import Source, nothing

__all__ = ["forms"]

_ALONE, _GROUPED, _BESIDE_A_WORD = 0.4, 0.36, 0.3
"""Scores of telephone numbers: plain to see, enough for the strict profile, and only near a word such as "phone"."""

_URL = (
    r"(?i)https?://(?:[^\s/@\"'<>()]+@)?(?:[\pL\pN](?:[\pL\pN_-]*[\pL\pN])?\.)+\pL[\pL\pN-]*[\pL\pN]"
    r"(?::[0-9]{1,5})?(?:[/?#][^\s()<>\"']*)?"
)
_ABROAD = r"(?:\+|\b00 ?)[1-9][0-9]{0,2}(?:[ ./-]?\(0\))?(?:[ ./-]{0,2}\(?[0-9]{1,12}\)?){1,7}"
_TRUNK = r"\(?\b0[1-9][0-9]{0,4}\)?(?:[ ./-]{1,2}[0-9]{2,8}){2,4}"
_LOCAL = r"\(?\b[0-9]{1,14}\)?(?:[ ./-]{1,2}\(?[0-9]{1,8}\)?){0,6}"
_GROUPS = r"\(?\b[1-9][0-9]{0,4}\)?(?:[ ./-]{1,2}[0-9]{2,8}){1,4}"
_DIGITS = range(7, 16)
_NOT_DIGITS = re.compile(r"\D+")


class _Addresses:
    """Web addresses with a scheme, under any domain, with port and query."""

    def __init__(self) -> None:
        self._find = re2.compile(_URL).finditer

    def __call__(self, text: str) -> Iterator[Span]:
        for match in self._find(text):
            yield match.start(), match.end(), 0.6


class _Numbers:
    """Numbers of as many digits as telephone numbers have (ITU E.164), that are no part of something longer."""

    def __init__(self, pattern: str, score: float) -> None:
        self._find, self._score = re.compile(pattern, re.ASCII).finditer, score

    def __call__(self, text: str) -> Iterator[Span]:
        for match in self._find(text):
            start, end = match.span()
            if end - start < _DIGITS.start or len(_NOT_DIGITS.sub("", match.group())) not in _DIGITS:
                continue
            while not text[end - 1].isdigit():
                end -= 1
            if _apart(text, start, end):
                yield start, end, self._score


def _apart(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    joined = before[-1:].isalnum() or after[:1].isalnum() or before[-1:] in ("_", "%", "$", "#")
    return (
        not joined
        and not (before[:1].isdigit() and before[1:] in ".,:" and text[start] != "+")
        and not (after[1:].isdigit() and after[0] in ".,:")
    )


def forms() -> list[Source]:
    """Searches for what Presidio does not know."""
    return [
        Source("URL", _Addresses(), needs=["https?://"], whole=True),
        Source("PHONE_NUMBER", _Numbers(_ABROAD, _ALONE), needs=[_ABROAD]),
        Source("PHONE_NUMBER", _Numbers(_TRUNK, _ALONE), needs=[_TRUNK]),
        Source("PHONE_NUMBER", _Numbers(_GROUPS, _GROUPED), needs=[_GROUPS]),
        Source(
            "PHONE_NUMBER",
            _Numbers(_LOCAL, _BESIDE_A_WORD),
            needs=[r"[0-9](?:[ ()./-]{0,3}[0-9]){6}"],
            alone=nothing,
        ),
    ]
