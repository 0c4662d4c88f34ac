"""Codes: runs of characters that stand for letters, read; each reader gives nothing where its code says nothing."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable

import re2

__all__ = ["CODED", "CODES"]

_MOST = 65_536  # characters that a packed text may unfold to: enough to attack, too few to flood
_NOISE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")
_PROSE = re.compile(r"[A-Za-z ]")
_MORSE = dict(
    zip(
        [
            ".-",
            "-...",
            "-.-.",
            "-..",
            ".",
            "..-.",
            "--.",
            "....",
            "..",
            ".---",
            "-.-",
            ".-..",
            "--",
            "-.",
            "---",
            ".--.",
            "--.-",
            ".-.",
            "...",
            "-",
            "..-",
            "...-",
            ".--",
            "-..-",
            "-.--",
            "--..",
            "-----",
            ".----",
            "..---",
            "...--",
            "....-",
            ".....",
            "-....",
            "--...",
            "---..",
            "----.",
        ],
        "abcdefghijklmnopqrstuvwxyz0123456789",
        strict=True,
    )
)

CODED = re2.compile(
    r"[A-Za-z0-9+/_-]{16}|(?:[0-9A-Fa-f]{2}[\s:,-]){9}|(?:[01]{8}\s?){6}|(?:0x[0-9A-Fa-f]{2}[\s,;]{0,2}){6}"
    r"|(?:[0-9]{2,3}[\s,;-]{1,2}){9}|(?:[.-]{1,5}[ /|]{1,3}){8}|(?:[0-9]{1,2}-[0-9]{1,2}[ -]){3}|[!-~]{32}"
)
"""Where a text holds none of this, no reader has anything to read."""


def _readable(raw: bytes) -> str:
    """The bytes as text, or nothing where they are none."""
    if raw[:2] in (b"\x1f\x8b", b"\x78\x9c", b"\x78\xda"):
        try:
            raw = zlib.decompressobj(47).decompress(raw, _MOST)
        except zlib.error:
            return ""
    text = raw.decode("utf-16-le" if raw[1::2].count(0) * 3 > len(raw) else "utf-8", errors="replace")
    return text if len(_NOISE.findall(text)) * 20 <= len(text) else ""


def _prose(raw: bytes) -> str:
    """The bytes as text, if it is mostly letters: for codes that give some text for nearly everything."""
    text = _readable(raw)
    return text if text and len(_PROSE.findall(text)) * 10 >= len(text) * 8 else ""


def _from_base64(token: str) -> str:
    digits = "".join(token.split()).strip("=").replace("-", "+").replace("_", "/")
    for shift in range(4):  # whatever stands before it without a gap shifts the groups of four
        text = _unpacked(digits[shift:])
        if text:
            return text
    turned = token[:1] == "=" or (len(digits) > 23 and digits.isalnum())  # and not the path of an address
    return _from_base32(digits) or (_unpacked(digits[::-1], _prose) if turned else "")


def _unpacked(body: str, read: Callable[[bytes], str] = _readable) -> str:
    body = body[:-1] if len(body) % 4 == 1 else body
    return read(base64.b64decode(body + "=" * (-len(body) % 4))) if len(body) >= 16 else ""


def _from_base32(digits: str) -> str:
    if not re.fullmatch("[A-Z2-7]+|[a-z2-7]+", digits):
        return ""
    body = digits[: len(digits) // 8 * 8 + {2: 2, 4: 4, 5: 5, 7: 7}.get(len(digits) % 8, 0)]
    try:
        return _prose(base64.b32decode(body + "=" * (-len(body) % 8), casefold=True))
    except binascii.Error:
        return ""


def _from_base85(token: str) -> str:
    if "://" in token or token.isalnum() or token.count("/") > 3:
        return ""
    body = token.removeprefix("<~").removesuffix("~>")
    for decode in (base64.b85decode, base64.a85decode):
        try:
            text = _prose(decode(body))
        except ValueError:
            continue
        if text:
            return text
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
        if all(32 <= code < 127 for code in codes):
            text = _prose(bytes(codes))
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


CODES: tuple[tuple[re2._Regexp[str], Callable[[str], str]], ...] = (
    (re2.compile(r"\b(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,;-]{0,2}(?:0x)?[0-9A-Fa-f]{2}){9,}\b"), _from_hex),
    (re2.compile(r"\b[01]{8}(?:\s?[01]{8}){5,}\b"), _from_binary),
    (re2.compile(r"\b[0-9]{2,3}(?:[\s,;-]{1,2}[0-9]{2,3}){9,}\b"), _from_numbers),
    (re2.compile(r"\b(?:[0-9]{1,2}-){2,}[0-9]{1,2}(?: (?:[0-9]{1,2}-)*[0-9]{1,2}){2,}\b"), _from_places),
    (re2.compile(r"[.-]{1,5}(?:[ /|]{1,3}[.-]{1,5}){8,}"), _from_morse),
    (re2.compile(r"=?[A-Za-z0-9+/_-]{16,}(?:\r?\n[ \t]{0,8}[A-Za-z0-9+/_-]{8,})*={0,6}"), _from_base64),
    (re2.compile(r"[!-~]{32,}"), _from_base85),
)
"""Patterns of runs, and what reads them; a run that two can read is read by the one that begins first."""
