"""Forms of values that Presidio's recognizers leave out: addresses under new domains, numbers of other countries.

They come on top of Presidio's findings. Web addresses are RE2; numbers are patterns without open repetition, so their
search is linear too, and Python's own engine tells a match in a fifth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import re2

from guardrails_mw.gates.pii.matching import Span
from guardrails_mw.gates.pii.presidio import Library
from guardrails_mw.gates.pii.sources import Search, Source, nothing

__all__ = ["forms"]

_ALONE, _GROUPED, _BESIDE_A_WORD = 0.4, 0.36, 0.3
"""Scores of telephone numbers: plain to see, enough for the strict profile, and only near a word such as "phone"."""

_URL = (
    r"(?i)(?:https?://(?:[^\s/@\"'<>()]+@)?|\bwww[0-9]{0,3}\.)(?:[\pL\pN](?:[\pL\pN_-]*[\pL\pN])?\.)+\pL[\pL\pN-]*"
    r"[\pL\pN](?::[0-9]{1,5})?(?:[/?#](?:[^\s()<>\"']|\([^\s()<>\"']*\))*)?"
)
_ABROAD = r"(?:\+|\b00 ?)[1-9][0-9]{0,2}(?:[ ./-]?\(0\))?(?:[ ./-]{0,2}\(?[0-9]{1,12}\)?){1,7}"
_TRUNK = r"\(?\b0[1-9][0-9]{0,4}\)?(?:[ ./-]{1,2}[0-9]{2,8}){2,4}"
_LOCAL = r"\(?\b[0-9]{1,14}\)?(?:[ ./-]{1,2}\(?[0-9]{1,8}\)?){0,6}"
_GROUPS = r"\(?\b[1-9][0-9]{0,4}\)?(?:[ ./-]{1,2}[0-9]{2,8}){1,4}"
_DIGITS = range(7, 16)
_WALLET = r"\bBC1[02-9AC-HJ-NP-Z]{25,59}\b"
_LONG_CARD = r"\b[46][0-9]{3}([ -]?)[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{3}\b"
_FIND_LONG_CARDS = re.compile(
    r"(?<![0-9][ -])\b[46][0-9]{3}([ -]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}\1[0-9]{3}\b(?![ -][0-9])", re.ASCII
).finditer
_BETWEEN = r"(?:[^\w]|_){1,3}"
_FIND_PARTED_CARDS = re.compile(
    rf"(?<![^\W_])(?:[2-6][0-9]{{3}}({_BETWEEN})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{3}})?"
    rf"|3[47][0-9]{{2}}({_BETWEEN})[0-9]{{6}}\2[0-9]{{5}})(?![^\W_])"
).finditer
_PARTED_CARD = [
    r"[2-6][0-9]{3}(?:[^0-9a-z]{1,3}[0-9]{4}){3}",
    r"3[47][0-9]{2}[^0-9a-z]{1,3}[0-9]{6}[^0-9a-z]{1,3}[0-9]{5}",
]
_UNUSUAL = frozenset({".", "_", "~", "*", "--", " - ", "\u2014"})
"""What stands between groups of digits in no list, table or path."""
_FIND_PARTED_SSNS = re.compile(
    rf"(?<![^\W_])(?!000|666|9)[0-9]{{3}}({_BETWEEN})(?!00)[0-9]{{2}}\1(?!0000)[0-9]{{4}}(?![^\W_])"
).finditer
_PARTED_SSN = r"[0-9]{3}[^0-9a-z]{1,3}[0-9]{2}[^0-9a-z]{1,3}[0-9]{4}"
_FIND_ACCOUNTS = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[A-Za-z0-9]{11,30}"
    r"|(?:[ ._/-][A-Za-z0-9]{4}){2,7}(?:[ ._/-][A-Za-z0-9]{1,3})?)(?![A-Za-z0-9])",
    re.ASCII,
).finditer
_ACCOUNT = r"[a-z]{2}[0-9]{2}(?:[ ._/-]?[a-z0-9]{4}){2}"
_GROUP_END = re.compile(r"(?<=[A-Za-z0-9])(?![A-Za-z0-9])")
_CARD_IN_A_ROW = 0.6
"""Enough for the strict profile, and for the other beside a word: one in ten long ids passes the check digit."""
_NO_ACCOUNT = re.compile(r"[^A-Za-z0-9]+")
_SHORTEST_ACCOUNT = 15
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


def _upper_wallets(library: Library) -> Search:
    """Bitcoin addresses of the newer kind in capitals, as QR codes hold them (BIP 173); their check is Presidio's."""
    valid = library.recognizers["CRYPTO"].validate_result
    find = re.compile(_WALLET, re.ASCII).finditer

    def search(text: str) -> Iterator[Span]:
        return ((*match.span(), 1.0) for match in find(text) if valid(match.group().lower()))

    return search


def _long_cards(text: str) -> Iterator[Span]:
    """Card numbers of nineteen digits (ISO/IEC 7812), which are certain when they stand in groups."""
    for match in _FIND_LONG_CARDS(text):
        digits = _NOT_DIGITS.sub("", match.group())
        if _luhn(digits):
            yield *match.span(), 1.0 if match.group(1) else _CARD_IN_A_ROW


def _parted_cards(text: str) -> Iterator[Span]:
    """Card numbers in their groups, with one sign between them that Presidio does not expect."""
    for match in _FIND_PARTED_CARDS(text):
        between = match.group(1) or match.group(2)
        if between in (" ", "-") or not _by_itself(text, *match.span(), between):
            continue
        if _luhn(_NOT_DIGITS.sub("", match.group())):
            yield *match.span(), 1.0 if between in _UNUSUAL else _CARD_IN_A_ROW


def _parted_ssns(text: str) -> Iterator[Span]:
    """The same of social security numbers: a word such as "ssn" has to say what they are."""
    for match in _FIND_PARTED_SSNS(text):
        if match.group(1) not in (" ", "-", ".") and _by_itself(text, *match.span(), match.group(1)):
            yield *match.span(), 0.05


def _by_itself(text: str, start: int, end: int, between: str) -> bool:
    """Whether the row of groups does not go on."""
    width = len(between)
    before, after = text[max(0, start - width - 1) : start], text[end : end + width + 1]
    return not ((before[1:] == between and before[0].isdigit()) or (after[:-1] == between and after[-1].isdigit()))


def _accounts(library: Library) -> Search:
    """Account numbers (IBAN) in small letters, or with other signs between their groups."""
    valid = library.recognizers["IBAN_CODE"].validate_result

    def search(text: str) -> Iterator[Span]:
        for match in _FIND_ACCOUNTS(text):
            start, end = match.span()
            cuts = [cut.start() for cut in _GROUP_END.finditer(text, start, end)]
            for cut in reversed([*cuts, end]):
                number = _NO_ACCOUNT.sub("", text[start:cut]).upper()
                if len(number) >= _SHORTEST_ACCOUNT and _checks(number) and valid(number):
                    yield start, cut, 1.0
                    break

    return search


def _checks(number: str) -> bool:
    """Whether an account number's check digits are right (ISO 7064)."""
    return int("".join(str(int(each, 36)) for each in number[4:] + number[:4])) % 97 == 1


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(each), 10)) for each in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def forms(library: Library) -> list[Source]:
    """Searches for what Presidio does not know."""
    return [
        Source("URL", _Addresses(), needs=["https?://", r"www[0-9]{0,3}\."], whole=True),
        Source("CRYPTO", _upper_wallets(library), needs=[_WALLET]),
        Source("CREDIT_CARD", _long_cards, needs=[_LONG_CARD]),
        Source("CREDIT_CARD", _parted_cards, needs=_PARTED_CARD),
        Source("US_SSN", _parted_ssns, needs=[_PARTED_SSN], alone=nothing),
        Source("IBAN_CODE", _accounts(library), needs=[_ACCOUNT]),
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
