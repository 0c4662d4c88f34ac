"""Views: what a text looks like to a reader who is not fooled by its spelling.

A view is a rewritten text together with a way back: every span of it leads to a span of the original, so that a
finding made in a view points into what was really sent. Views are cheap to make; the way back is only walked
when something was found.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import TypeAlias

__all__ = ["Change", "View", "Way", "plain", "rewritten", "stay", "translated"]

Way: TypeAlias = Callable[[int, int], tuple[int, int]]
"""Leads a span of a rewritten text, in code points, to the span of the original that it came from."""

_TABLE_LIMIT = 65_536  # entries a table may keep, so that hostile texts cannot grow it for ever
_BLANK = frozenset(  # drawn as nothing, yet neither format characters nor spaces by their category
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0xFFFD, *range(0x180B, 0x1810)}
    | {*range(0xFE00, 0xFE10), *range(0xFE20, 0xFE30), *range(0xE0100, 0xE01F0)}
)
_MARKS = tuple(range(*marks) for marks in ((0x483, 0x48A), (0x1AB0, 0x1B00), (0x1DC0, 0x1E00), (0x20D0, 0x2100)))
_QUOTES = {0x2018: "'", 0x2019: "'", 0x02BC: "'", 0x201C: '"', 0x201D: '"', 0x2010: "-", 0x2011: "-"}
_BADGES = {  # letters on a black disc or square, of flags, in brackets: no compatibility form is the letter
    first + index: chr(ord("a") + index) for first in (0x1F150, 0x1F170, 0x1F1E6, 0x249C) for index in range(26)
}


Change: TypeAlias = tuple[int, int, str]
"""``(start, end, new)``: the characters ``[start, end)`` of a text become `new`."""


def stay(start: int, end: int) -> tuple[int, int]:
    """The way of a text that was not rewritten."""
    return start, end


def rewritten(text: str, changes: Iterable[Change], way: Way) -> tuple[str, Way]:
    """The text with its changes made, in order and without overlap, and its way back.

    >>> text, way = rewritten("a%20bc", [(1, 4, " ")], stay)
    >>> text, way(1, 2), way(2, 4)
    ('a bc', (1, 4), (4, 6))
    """
    made = list(changes)
    out: list[str] = []
    position = 0
    for start, end, new in made:
        out += (text[position:start], new)
        position = end
    out.append(text[position:])
    return "".join(out), _through(made, len(text), way)


def translated(text: str, table: Mapping[int, str], way: Way) -> tuple[str, Way]:
    """The text with single characters replaced by any number of others, and its way back."""
    changes = ((index, index + 1, table[ord(char)]) for index, char in enumerate(text) if ord(char) in table)
    return text.translate(table), _through(changes, len(text), way)


def _through(changes: Iterable[Change], length: int, way: Way) -> Way:
    """The way back through changes of a text; drawn when it is first walked."""
    pieces: list[tuple[int, int]] = []  # where each piece came from: letter by letter where lengths agree
    offsets: list[int] = []  # where each piece begins, and where the last one ends

    def draw() -> None:
        position = offset = 0
        for start, end, new in (*changes, (length, length, "")):
            if start > position:
                offsets.append(offset)
                pieces.append((position, start))
                offset += start - position
            if new:
                offsets.append(offset)
                pieces.append((start, end))
                offset += len(new)
            position = end
        offsets.append(offset)

    def source(position: int) -> tuple[int, int]:
        index = bisect_right(offsets, position) - 1
        start, end = pieces[index]
        if offsets[index + 1] - offsets[index] == end - start:
            start += position - offsets[index]
            return start, start + 1
        return start, end

    def back(start: int, end: int) -> tuple[int, int]:
        if not offsets:
            draw()
        return way(source(start)[0], source(end - 1)[1])

    return back


def _is_accent(code: int) -> bool:
    return 0x0300 <= code <= 0x036F or (code >= 0x0483 and any(code in marks for marks in _MARKS))


def _is_invisible(code: int, char: str) -> bool:
    if code in _BLANK:
        return True
    return unicodedata.category(char) in ("Cf", "Cc") and not char.isspace()


def _without_accent(char: str) -> str:
    """The bare letter, for Latin letters only: elsewhere a mark makes another letter."""
    first = unicodedata.normalize("NFD", char)[0]
    return first if first.isascii() and first.isalpha() else char


class _Table(dict[int, str | None]):
    """Replacements for `str.translate`, worked out for each character when it is first seen."""

    def __init__(self, *, keep_disguise: bool) -> None:
        super().__init__({code: chr(code).lower() for code in range(128) if chr(code).isprintable()})
        self._keep_disguise = keep_disguise

    def __missing__(self, code: int) -> str | None:
        replaced = self._replace(code)
        if len(self) < _TABLE_LIMIT:
            self[code] = replaced
        return replaced

    def _replace(self, code: int) -> str | None:
        char = chr(code)
        if char.isspace():
            return " "
        if code in _QUOTES:
            return _QUOTES[code]
        if _is_accent(code):
            return None
        if _is_invisible(code, char):
            return char if self._keep_disguise else None
        if not self._keep_disguise:
            char = _BADGES.get(code) or unicodedata.normalize("NFKC", char)
        return "".join(_without_accent(c) for c in char.casefold() if not _is_accent(ord(c)))


_FOLD = _Table(keep_disguise=False)
_PLAIN = _Table(keep_disguise=True)


def _fold(text: str, table: _Table) -> str:
    return " ".join(text.translate(table).split())


_PIECES = re.compile("(?P<ascii>[!-~]+)|[^!-~]+")
"""Visible ASCII, of which every character becomes one, and the rest."""


def _positions(text: str) -> list[int]:
    """For every character of ``_fold(text, _FOLD)``, the index in `text` it came from."""
    positions: list[int] = []
    gap = -1  # index of the first blank since the last visible character
    for piece in _PIECES.finditer(text):
        start, end = piece.span()
        if piece.lastgroup:
            if gap >= 0 and positions:
                positions.append(gap)
            gap = -1
            positions.extend(range(start, end))
            continue
        for index in range(start, end):
            for new in _FOLD[ord(text[index])] or "":
                if new.isspace():
                    gap = index if gap < 0 else gap
                    continue
                if gap >= 0 and positions:
                    positions.append(gap)
                gap = -1
                positions.append(index)
    return positions


def plain(text: str) -> str:
    r"""The text as it stands, but for case, accents and line breaks: what a naive filter would read.

    >>> plain("IGNORE  all\nRules")
    'ignore all rules'
    """
    return _fold(text, _PLAIN)


class View:
    r"""One reading of a text.

    Args:
        name: how it was read; ``text`` for the text as it stands.
        source: the characters that were read.
        way: leads a span of `source` to the original; the same span if left out.
        folded: whether `source` is a folded text already.

    Attributes:
        text: lower case, compatible forms unified, invisible characters and accents gone, blanks collapsed.

    >>> view = View("text", "Ｉgno\u200bre  it")
    >>> view.text, view.span(0, 6), view.span(7, 9)
    ('ignore it', (0, 7), (9, 11))
    """

    def __init__(self, name: str, source: str, way: Way = stay, *, folded: bool = False) -> None:
        self.name = name
        self.source = source
        self.way = way
        self.folded = folded
        self.text = source if folded else _fold(source, _FOLD)

    @cached_property
    def _map(self) -> list[int]:
        return _positions(self.source)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original, in code points, that ``[start, end)`` of this view came from; not empty."""
        if not self.folded:
            start, end = self._map[start], self._map[end - 1] + 1
        return self.way(start, end)
