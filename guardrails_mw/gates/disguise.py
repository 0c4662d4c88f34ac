r"""Texts written so that patterns miss what people and programs still read, and where their characters came from.

Percent signs, character references, backslash escapes, invisible characters, letters and digits of other alphabets
that look like ASCII: all are undone, up to three of them around one another. What is found in the result is carried
back to the text as it stands, so that an edit replaces the whole of a disguised value.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import re2

__all__ = ["UNSEEN", "Plain", "before_end", "plainly", "rewritten", "undisguised"]

_LAYERS = 3
_NOTHING = (
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFD), (0xE0000, 0xE007F), (0xE0100, 0xE01EF),
)  # fmt: skip
_UNSEEN = "".join(f"{chr(first)}-{chr(last)}" for first, last in _NOTHING)
UNSEEN = frozenset(chr(code) for first, last in _NOTHING for code in range(first, last + 1))
"""Characters that are drawn as nothing, and what stands for one that cannot be read, such as half a surrogate pair."""
_CONTROLS = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_MARKS = "\u0300-\u034e\u0350-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_TWINS = str.maketrans(
    "АВЕКМНОРСТУХЅІЈԚԜаеорсухіјѕһԁԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧονι" + "\u2010\u2011\u2012\u2013\u2212\u3002",
    "ABEKMHOPCTYXSIJQWaeopcyxijshdqwABEZHIKMNOPTYXovi" + "-----.",
)
"""Cyrillic and Greek letters that are drawn like Latin ones; dashes, and the full stop of Chinese and Japanese."""
_JOINS = "\u2010-\u2013\u2212\u3002"
_TWIN = "".join(chr(code) for code in _TWINS if code < 0x1000)
_SHOWN = {
    **{
        code: shown
        for codes in (
            (0xB2, 0xB3, 0xB9), range(0x2070, 0x209D), range(0x2100, 0x2150), range(0x2460, 0x24EB),
            range(0xFE50, 0xFE6C), range(0xFF01, 0xFF5F), range(0x1D400, 0x1D800),
        )
        for code in codes
        if len(shown := unicodedata.normalize("NFKC", chr(code))) == 1 and shown.isascii()
    },
    **dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " "),
}  # fmt: skip
"""Letters, digits and signs in other styles (wide, mathematical, raised, in circles), and blanks of other widths."""
_STYLES = "\u00b2\u00b3\u00b9\u2070-\u209c\u2100-\u214f\u2460-\u24ea\ufe50-\ufe6b\uff01-\uff5e\U0001d400-\U0001d7ff"
_NEAR = rf"!-~\d{_STYLES}{_TWIN}"
"""Beside what invisible characters hide something: not in emoji, and not in scripts that need them."""
_STYLED = re2.compile("[" + "".join(map(chr, _SHOWN)) + "]")
_CODE = r"u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|U[0-9A-Fa-f]{8}|x[0-9A-Fa-f]{2}|[nrt]"
_REFERENCE = r"#0{0,9}[0-9]{1,7};?|#[xX]0{0,9}[0-9A-Fa-f]{1,6};?|[A-Za-z][A-Za-z0-9]{1,30};"
_SIGN = re2.compile(
    rf"%[2-7][0-9A-Fa-f]|&(?:{_REFERENCE})|\\(?:{_CODE})|[{_CONTROLS}{_UNSEEN}{_MARKS}]"
    rf"|[0-9A-Za-z][{_JOINS}{_TWIN}]|[{_TWIN}][0-9A-Za-z]"
)
_DISGUISE = re.compile(  # one class comes first: Python skips what is not in it fast, and looks back for what it was
    rf"[%&\\{_CONTROLS}{_UNSEEN}{_MARKS}{_TWIN}{_JOINS}](?:"
    rf"(?P<escape>(?<=%)[2-7][0-9A-Fa-f]|(?<=&)(?:{_REFERENCE})|(?<=\\)\\{{0,3}}(?:{_CODE}))"
    rf"|(?P<nothing>(?<=\x1b)\[[0-9;]{{0,12}}[A-Za-z]|(?<=[{_CONTROLS}])[{_CONTROLS}]*|(?<=[0-9A-Za-z][{_MARKS}])[{_MARKS}]*"
    rf"|(?<![{_UNSEEN}][{_UNSEEN}])(?:(?<=[{_NEAR}][{_UNSEEN}])[{_UNSEEN}]*|(?<=[{_UNSEEN}])[{_UNSEEN}]*+(?=[{_NEAR}])))"
    rf"|(?P<twin>(?<![{_TWIN}][{_TWIN}])(?:(?<=[0-9A-Za-z][{_TWIN}])[{_TWIN}]*|(?<=[{_TWIN}])[{_TWIN}]*+(?=[0-9A-Za-z])))"
    rf"|(?P<join>(?<=[0-9A-Za-z][{_JOINS}])(?=[0-9A-Za-z])))"
)
_BREAKS = {"n": "\n", "r": "\r", "t": "\t"}
_UNREADABLE = "\ufffd"

Change = tuple[int, int, str]
"""``(start, end, new)``: the characters ``[start, end)`` of a text become `new`."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A text without its disguise.

    Attributes:
        text: what a reader sees.
        pieces: where each run of `text` begins in it and in the text that it was made of, and whether the two have
            the same length; the last one marks the ends.
        within: what that text itself was made of, where it is no original.
    """

    text: str
    pieces: tuple[tuple[int, int, bool], ...]
    within: Plain | None = None

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span of the original, for one of `text` that is not empty."""
        start, end = self._origin(start), self._origin(end - 1, after=True)
        return self.within.span(start, end) if self.within is not None else (start, end)

    def origin(self, position: int) -> int:
        """Where in the original a position of `text` lies."""
        origin = self._origin(position)
        return self.within.origin(origin) if self.within is not None else origin

    def place(self, origin: int) -> int:
        """Where in `text` a position of the original lies; the first such place."""
        if self.within is not None:
            origin = self.within.place(origin)
        k = max(0, bisect_right(self.pieces, origin, key=lambda piece: piece[1]) - 1)
        while k and self.pieces[k][1] == origin and self.pieces[k - 1][1] == origin:
            k -= 1
        start, begin, same = self.pieces[k]
        return min(start + origin - begin, len(self.text)) if same else start

    def _origin(self, position: int, *, after: bool = False) -> int:
        k = bisect_right(self.pieces, position, key=lambda piece: piece[0]) - 1
        start, origin, same = self.pieces[k]
        if same:
            return origin + position - start + after
        return self.pieces[k + 1][1] if after else origin


def rewritten(text: str, changes: Iterable[Change], within: Plain | None = None) -> Plain | None:
    """The text with changes made, in order and without overlap; None where there are none.

    >>> plain = rewritten("a%20bc", [(1, 4, " ")])
    >>> plain.text, plain.span(1, 3), plain.place(4)
    ('a bc', (1, 5), 2)
    """
    written: list[str] = []
    pieces: list[tuple[int, int, bool]] = []
    length = position = 0
    for start, end, new in changes:
        if start > position:
            pieces.append((length, position, True))
            written.append(text[position:start])
            length += start - position
        pieces.append((length, start, len(new) == end - start))
        written.append(new)
        length, position = length + len(new), end
    if not pieces:
        return None
    pieces += [(length, position, True), (length + len(text) - position, len(text), True)]
    return Plain("".join([*written, text[position:]]), tuple(pieces), within)


def undisguised(text: str) -> Plain | None:
    """The text as it reads, or None when nothing in it is disguised.

    >>> plain = undisguised("to bob&#37;40example.com")
    >>> plain.text, plain.span(3, 18)
    ('to bob@example.com', (3, 24))
    """
    plain: Plain | None = None
    if text.isascii() and text.isprintable() and not any(sign in text for sign in "%&\\"):
        return None  # most texts
    for _ in range(_LAYERS):
        shown = text if text.isascii() or not _STYLED.search(text) else text.translate(_SHOWN)
        if shown != text:
            plain, text = Plain(shown, ((0, 0, True), (len(text), len(text), True)), plain), shown
        layer = rewritten(text, _changes(text), plain) if _SIGN.search(text) else None
        if layer is None:
            break
        plain, text = layer, layer.text
    return plain


def before_end(text: str, plain: Plain | None, lag: int) -> int:
    """The position in a text that so many characters follow, as it reads; `plain` if it reads otherwise.

    >>> before_end("abcdef", None, 2), before_end("ab%41%42", undisguised("ab%41%42"), 1)
    (4, 5)
    """
    return len(text) - lag if plain is None else plain.origin(max(0, len(plain.text) - lag))


def plainly(text: str) -> str:
    """The text as it reads.

    >>> plainly("pass\u200bword")
    'password'
    """
    plain = undisguised(text)
    return text if plain is None else plain.text


def _changes(text: str) -> Iterator[Change]:
    """What disguises something, and what it stands for."""
    for found in _DISGUISE.finditer(text):
        kind, value = found.lastgroup, found.group()
        if kind == "nothing":
            new = ""
        elif kind == "escape":
            new = _meaning(value)
            if new == value:
                continue
        else:
            new = value.translate(_TWINS)
        yield found.start(), found.end(), new


def _meaning(escape: str) -> str:
    if escape[0] == "%":
        return chr(int(escape[-2:], 16))
    if escape[0] == "&":
        said = html.unescape(escape)
        return " " if said.isspace() and not said.isascii() else said
    name = escape.lstrip("\\")
    if name in _BREAKS:
        return _BREAKS[name]
    code = int(name.strip("uUx{}"), 16)
    return chr(code) if code < 0xD800 or 0xDFFF < code < 0x110000 else _UNREADABLE
