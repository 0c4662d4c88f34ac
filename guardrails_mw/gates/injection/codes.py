"""Codes: runs of characters that stand for letters, read; each reader gives nothing where its code says nothing."""

from __future__ import annotations

import base64
import binascii
import re
import string
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import re2

from guardrails_mw.gates.injection.folding import Change

__all__ = ["CODED", "CODES"]

_MOST = 65_536  # characters that a packed text may unfold to: enough to attack, too few to flood
_NOISE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
_CLEAN = re.compile("[^\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]{12,}")  # chance seldom makes as much
_PROSE = re.compile(r"[A-Za-z ]")
_BASE32 = re.compile("[A-Z2-7]+|[a-z2-7]+")
_CAPITALS, _SMALL = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
_SIGNS = (
    ".- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --.. "
    "----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----."
)
_MORSE = dict(zip(_SIGNS.split(), "abcdefghijklmnopqrstuvwxyz0123456789", strict=True))


def _text(raw: bytes) -> str:
    if raw[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\xda"):
        try:
            raw = zlib.decompressobj(47).decompress(raw, _MOST)
        except zlib.error:
            return ""
    return raw.decode("utf-16-le" if raw[1::2].count(0) * 3 > len(raw) else "utf-8", errors="replace")


def _whole(raw: bytes) -> str:
    """The bytes as text, or nothing where they are none."""
    text = _text(raw)
    return text if len(_NOISE.findall(text)) * 20 <= len(text) else ""


def _readable(raw: bytes) -> str:
    """The bytes as text, what is text among other bytes, or nothing."""
    return _whole(raw) or "\n".join(_CLEAN.findall(_text(raw)))


def _prose(raw: bytes) -> str:
    """The bytes as text, if it is mostly letters: for codes that give some text for nearly everything."""
    text = _readable(raw)
    return text if text and len(_PROSE.findall(text)) * 10 >= len(text) * 8 else ""


def _from_base64(token: str) -> str:
    digits = "".join(token.split()).strip("=").replace("-", "+").replace("_", "/")
    capitals, small = _letters(digits)
    if capitals * 6 < len(digits) or small * 10 < len(digits):
        return _from_base32(digits)  # a path or a name: the bytes of text have letters of both sizes in base64
    shifted = [
        digits[shift:] for shift in range(4)
    ]  # whatever stands before it without a gap shifts the groups of four
    for body in shifted:
        text = _unpacked(body, _whole)
        if text:
            return text
    turned = token[:1] == "=" or (len(digits) > 23 and digits.isalnum())  # and not the path of an address
    parts = [*map(_unpacked, shifted), _unpacked(digits[::-1], _prose) if turned else ""]
    return "\n".join(filter(None, parts))


def _letters(digits: str) -> tuple[int, int]:
    """How many are capitals, and how many small letters."""
    raw = digits.encode()
    return len(raw) - len(raw.translate(None, _CAPITALS)), len(raw) - len(raw.translate(None, _SMALL))


def _unpacked(body: str, read: Callable[[bytes], str] = _readable) -> str:
    body = body[:-1] if len(body) % 4 == 1 else body
    return read(base64.b64decode(body + "=" * (-len(body) % 4))) if len(body) >= 16 else ""


def _from_base32(digits: str) -> str:
    if len(digits) < 16 or not _BASE32.fullmatch(digits):
        return ""
    body = digits[: len(digits) // 8 * 8 + {2: 2, 4: 4, 5: 5, 7: 7}.get(len(digits) % 8, 0)]
    try:
        return _prose(base64.b32decode(body + "=" * (-len(body) % 8), casefold=True))
    except binascii.Error:
        return ""


def _from_hex(token: str) -> str:
    digits = re.sub(r"0x|[^0-9A-Fa-f]", "", token)
    return _readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))


def _from_binary(token: str) -> str:
    digits = "".join(token.split())
    return _readable(bytes(int(digits[index : index + 8], 2) for index in range(0, len(digits), 8)))


def _from_numbers(token: str) -> str:
    """Code points in decimal or, where every digit is below eight, octal."""
    numbers = re.findall(r"\d+", token)
    for base in (10, 8):
        if base == 8 and not set("89").isdisjoint(token):
            continue
        codes = [int(number, base) for number in numbers]
        text = _prose(bytes(code if 32 <= code < 127 or code in (9, 10, 13) else 0 for code in codes))
        if text:
            return text
    return ""


def _from_places(token: str) -> str:
    """Places in the alphabet: 9-7-14-15-18-5."""
    words = [word.split("-") for word in token.split()]
    if not all(0 < int(place) < 27 for word in words for place in word):
        return ""
    return " ".join("".join(chr(96 + int(place)) for place in word) for word in words)


def _from_morse(token: str) -> str:
    words = [word.split() for word in re.split(r"[/|]|\s{2,}", token)]
    letters = ["".join(_MORSE.get(sign, "") for sign in word) for word in words]
    return " ".join(word for word in letters if word)


class _Match(Protocol):
    """A match of either library."""

    def start(self) -> int: ...
    def end(self) -> int: ...
    def group(self) -> str: ...


class _Pattern(Protocol):
    """A pattern of either library."""

    def finditer(self, text: str, /) -> Iterator[_Match]: ...


class Code:
    """One way to write letters as something else.

    Args:
        sign: RE2 for what every run of it holds and ordinary text does not.
        run: all of one run; only looked for where there is a sign.
        read: what the run says, or nothing.
    """

    def __init__(self, sign: str, run: _Pattern, read: Callable[[str], str]) -> None:
        self.sign = sign
        self._signed = re2.compile(sign)
        self._run = run
        self._read = read

    def found(self, source: str) -> Iterator[Change]:
        """Every run that says something, and what."""
        if self._signed.search(source):
            for match in self._run.finditer(source):
                text = self._read(match.group())
                if text:
                    yield match.start(), match.end(), text


CODES = (
    Code(
        r"(?:[0-9A-Fa-f]{2}[\s:,;-]{1,2}){9}|[0-9a-f]{20}|[0-9A-F]{20}|(?:0x[0-9A-Fa-f]{2}[\s,;]{0,2}){6}",
        re2.compile(r"\b(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,;-]{0,2}(?:0x)?[0-9A-Fa-f]{2}){9,}\b"),
        _from_hex,
    ),
    Code(r"(?:[01]{8}\s?){6}", re2.compile(r"\b[01]{8}(?:\s?[01]{8}){5,}\b"), _from_binary),
    Code(r"(?:[0-9]{2,3}[\s,;-]{1,2}){9}", re2.compile(r"\b[0-9]{2,3}(?:[\s,;-]{1,2}[0-9]{2,3}){9,}\b"), _from_numbers),
    Code(
        r"(?:[0-9]{1,2}-[0-9]{1,2}[ -]){3}",
        re2.compile(r"\b(?:[0-9]{1,2}-){2,}[0-9]{1,2}(?: (?:[0-9]{1,2}-)*[0-9]{1,2}){2,}\b"),
        _from_places,
    ),
    Code(r"(?:[.-]{1,5}[ /|]{1,3}){8}", re2.compile(r"[.-]{1,5}(?:[ /|]{1,3}[.-]{1,5}){8,}"), _from_morse),
    Code(
        r"(?:[A-Z][A-Z0-9+/_-]{0,9}[a-z][a-z0-9+/_-]{0,9}){3}|[A-Z2-7]{20}|[a-z2-7]{24}",
        re.compile(r"=?[A-Za-z0-9+/_-]{16,}(?:\r?\n[ \t]{0,8}[A-Za-z0-9+/_-]{8,})*={0,6}"),  # linear: nothing follows
        _from_base64,
    ),
)
"""The codes that are read."""

CODED = re2.compile("|".join(code.sign for code in CODES))
"""Where a text holds none of this, no reader has anything to read."""
