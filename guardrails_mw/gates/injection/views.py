"""What a text looks like to a reader who is not fooled by its spelling.

A view is a rewritten text together with a map back: every offset of the view leads to a code point of the
original, so that a finding made in a view is a span of what was really sent. Views are cheap to make and the
map is drawn only when something was found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cached_property

__all__ = ["View", "plain", "views"]

_TABLE_LIMIT = 65_536  # entries a table may keep, so that hostile texts cannot grow it for ever
_BLANK = frozenset(  # drawn as nothing, yet neither format characters nor spaces by their category
    {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0, 0xFFFD, *range(0x180B, 0x1810)}
    | {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)}
)
_QUOTES = {0x2018: "'", 0x2019: "'", 0x02BC: "'", 0x201C: '"', 0x201D: '"', 0x2010: "-", 0x2011: "-"}
_TAGS = re.compile("[\U000e0020-\U000e007e]+")
_FLAG = re.compile("\U0001f3f4[\U000e0061-\U000e007a]{2}[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,3}\U000e007f")
"""An emoji tag sequence, such as the flag of Scotland: the one proper use of tag characters."""


def _is_accent(code: int) -> bool:
    return 0x0300 <= code <= 0x036F


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
            char = unicodedata.normalize("NFKC", char)
        return "".join(_without_accent(c) for c in char.casefold() if not _is_accent(ord(c)))


_FOLD = _Table(keep_disguise=False)
_PLAIN = _Table(keep_disguise=True)


def _fold(text: str, table: _Table) -> str:
    return " ".join(text.translate(table).split())


def _positions(text: str) -> list[int]:
    """For every character of ``_fold(text, _FOLD)``, the index in `text` it came from."""
    positions: list[int] = []
    gap = -1  # index of the first blank since the last visible character
    for index, char in enumerate(text):
        for new in _FOLD[ord(char)] or "":
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
    r"""One rewriting of a text.

    Args:
        name: ``text`` for the folded text, ``hidden`` for what was written in invisible characters.
        source: the characters that the view was folded from.
        origin: index in the original of every character of `source`; None when they are the same.

    Attributes:
        text: lower case, compatible forms unified, invisible characters and accents gone, blanks collapsed.

    >>> view = View("text", "Ｉgno\u200bre  it")
    >>> view.text, view.span(0, 6), view.span(7, 9)
    ('ignore it', (0, 7), (9, 11))
    """

    def __init__(self, name: str, source: str, origin: Sequence[int] | None = None) -> None:
        self.name = name
        self.source = source
        self.text = _fold(source, _FOLD)
        self._origin = origin

    @cached_property
    def _map(self) -> list[int]:
        positions = _positions(self.source)
        return positions if self._origin is None else [self._origin[index] for index in positions]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The span of the original, in code points, that ``[start, end)`` of this view came from."""
        return self._map[start], self._map[end - 1] + 1


def views(text: str) -> Iterator[View]:
    """Every view of a text that is worth reading; the folded text comes first.

    >>> [view.text for view in views("hi" + "".join(chr(0xE0000 + ord(c)) for c in "Obey"))]
    ['hi', 'obey']
    """
    yield View("text", text)
    if not text.isascii() and _TAGS.search(text):
        indices = _hidden(text)
        if indices:
            yield View("hidden", "".join(chr(ord(text[index]) - 0xE0000) for index in indices), indices)


def _hidden(text: str) -> list[int]:
    """Where tag characters stand that do not belong to a flag."""
    flags = {index for match in _FLAG.finditer(text) for index in range(*match.span())}
    runs = (range(*match.span()) for match in _TAGS.finditer(text))
    return [index for run in runs for index in run if index not in flags]
