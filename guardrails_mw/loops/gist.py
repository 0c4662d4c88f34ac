"""What a result says without what changes by itself: clocks, dates, durations, ids, addresses, counters of attempts.

Results of real services carry such things; compared literally, no two of them are ever the same. They come in more
forms than can be listed, so a text is read word by word and a word is judged by its shape: digits with a unit of time,
digits in the order of a date, letters and digits mixed as only a machine mixes them. Figures that may tell of progress
are kept apart: a count of seconds that falls is a countdown, and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import re2

from guardrails_mw.loops.shapes import (
    CLOCK_ENDS,
    SECONDS,
    SHORTEST,
    SHORTEST_NUMBER,
    SIZES,
    TEMPORARY,
    UNITS,
    Label,
    Shape,
    dated,
    is_stamp,
    label_of,
    seconds_in,
    shape_of,
    without_ids,
)

__all__ = ["Gist", "encodable", "gist_of", "spaced"]

_BOUND = 65_536  # characters that are read; what follows is compared as it is
_MOST = 6  # figures that are kept of one text
_IDS = 3  # more ids than this are what the text is about
_WORDS = 2  # fewer words than this, and ids and shares are all that it says
_WORDS_EACH = 10  # or so many words for each
_ENDS = ".:!?#~_"
_END = frozenset(_ENDS)
_OF = frozenset({"of", "/", "von", "de", "sur"})  # between a counter and its end
_THOUSAND = 3  # digits between commas
_GONE, _ID = "#", "#id"
_YEAR, _CENTURIES = 4, frozenset({"19", "20"})
_TIMELY = frozenset({Shape.CLOCK, Shape.DATE, Shape.ZONE, Shape.SPAN, Shape.MINUTES})
_AMOUNTS = frozenset({Shape.SHARE, Shape.SIZE})
_DECIMALS = frozenset({Shape.PLAIN, Shape.FRACTION})
_EXACT = 12  # decimals that nobody measures
_MEANINGLESS = frozenset({Label.COUNT, Label.NAME})
_TEMPORARY = tuple(f"{place}#" for place in TEMPORARY)
_DIGITS = frozenset("0123456789")
_BLANKS = "\"'`();|<>*\n\r\t"
_WIDE_BLANKS = "，；（）、。「」《》"
_APART = {"=": " : "} | {bracket: f" {bracket} " for bracket in "[]{}"}
_WIDE = (
    {"小时": "时", "小時": "時"}
    | {unit: f" {unit} " for unit in ("年", "月", "日", "时", "時", "分", "秒", "초", "분", "시간")}
    | {"μs": " μs "}
)
_ESCAPE = re2.compile(r"\x1b\[[0-9;?]*[a-z]")
_SPINNER = re2.compile(r"(?:^|\s)[-|/\\\x{2800}-\x{28ff}](?:\s|$)")
_AGO = re2.compile(r"\bjust now\b|(?:# |\b(?:moments?|(?:an?|one|a few|few) (?:second|minute|hour|moment)s?) )ago\b")


class Gist(NamedTuple):
    """What a text says.

    Attributes:
        text: its words in lower case, ``#`` for whatever changes by itself.
        figures: numbers that were taken out and may tell that something goes on, each with a sign for what that would
            be. ``-`` is a time, progress when it falls; ``~`` what is left until a counter of attempts is at its end,
            likewise; ``+`` a share or a size, progress when it moves one way; ``*`` a score, likewise, of which the
            text keeps two digits.
    """

    text: str
    figures: tuple[str, ...] = ()


def gist_of(text: str) -> Gist:
    """Read a text.

    >>> gist_of('{"left": "12 s", "at": "10:00:01"}')
    Gist(text='{ left : # at : # }', figures=('-12', '-36001'))
    >>> gist_of("job 64fa0c1db7e2 is running, attempt 2 of 5").text
    'job #id is running attempt #'
    """
    gist = _read(text[:_BOUND])
    return gist if len(text) <= _BOUND else gist._replace(text=f"{gist.text}\n{text[_BOUND:]}")


def _read(text: str) -> Gist:
    head = encodable(text.casefold())
    if "\x1b" in head:
        head = _SPINNER.sub(" ", _ESCAPE.sub(" ", head))
    words, figures = spaced(head).split(), list[str]()
    temporary = "tmp" in head or "temp" in head or "/var/folders" in head
    if temporary or any(map(head.__contains__, "0123456789")):
        reader = _Reader(words, temporary)
        words, figures = reader.read(), reader.figures
    said = _AGO.sub(_GONE, " ".join(words)) if " ago" in head or "just now" in head else " ".join(words)
    return Gist(said, tuple(figures))


def spaced(text: str) -> str:
    """A text in which quotes and commas are blanks, and brackets and signs of assignment stand alone."""
    for mark in _BLANKS:  # a replacement each is several times faster than a translation
        if mark in text:
            text = text.replace(mark, " ")
    for mark, apart in _APART.items():
        if mark in text:
            text = text.replace(mark, apart)
    if not text.isascii():
        for mark, apart in _WIDE.items():
            text = text.replace(mark, apart)
        for mark in _WIDE_BLANKS:
            text = text.replace(mark, " ")
    return text.replace(", ", " ").replace(" :", " : ")


def encodable(text: str) -> str:
    """A text without lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class _Reader:
    """Reads words from left to right and keeps what does not change by itself."""

    __slots__ = ("_doubtful", "_ids", "_next", "_out", "_span", "_temporary", "_wanted", "_words", "figures")

    def __init__(self, words: list[str], temporary: bool) -> None:
        self._temporary = temporary  # whether there are names of temporary files, which may have no digit
        self._words = words
        self._out: list[str] = []
        self._doubtful: list[tuple[int, str, str]] = []  # where in `_out`, what stood there, the figure that it made
        self._ids, self._wanted = 0, 1
        self._next = 0  # the first of `_words` that was not looked at
        self._span = -1  # how long `_out` was after a duration that made the last figure
        self.figures: list[str] = []

    def read(self) -> list[str]:
        """The words that are kept."""
        words, out, disjoint = self._words, self._out, _DIGITS.isdisjoint
        telling = [at for at, word in enumerate(words) if not (word.isalpha() or disjoint(word))]
        if self._temporary:
            telling = sorted(
                {*telling, *(at for at, word in enumerate(words) if any(map(word.__contains__, TEMPORARY)))}
            )
        for at in telling:
            if at >= self._next:
                out += words[self._next : at]
                self._next = at + 1
                self._number(words[at])
        out += words[self._next :]
        if self._doubtful and not self._says_more():
            for place, word, figure in self._doubtful:
                out[place] = word
                if figure in self.figures:
                    self.figures.remove(figure)
        return out

    def _says_more(self) -> bool:
        """Whether there are words enough that ids and shares are not what the text is about."""
        said = [word for word in self._out if word[0].isalpha()]
        text = " ".join(said)
        words = len(said) + text.count("_") + text.count(",")
        return words >= self._wanted and self._ids <= max(_IDS, words // _WORDS_EACH)

    def _number(self, word: str) -> None:
        """Take in a word with digits, and what follows if it is part of it."""
        if word.isdecimal():
            self._plain(word, word)
            return
        if not word.isascii() and word[-1] in _DIGITS:
            before = word.rstrip("0123456789.,:")
            self._out.append(before)
            word = word[len(before) :]
        if "," in word:
            parts = [part for part in word.split(",") if part]
            if not all(map(str.isdecimal, parts)):
                self._several(parts)
                return
            word = ("" if all(len(part) == _THOUSAND for part in parts[1:]) else ".").join(parts)
        core = word.strip(_ENDS)
        shape = shape_of(core)
        if shape == Shape.ENDING and not self._temporary:
            self._drop() if self._label() == Label.NAME else self._out.append(word)
        elif shape in _DECIMALS:
            self._decimal(word, core, shape)
        elif shape in _TIMELY:
            self._time(word, core, shape)
        elif shape in _AMOUNTS:
            number = core.rstrip("%abcdefghijklmnopqrstuvwxyz")
            self._doubt(word, float(number) * SIZES.get(core[len(number) :], 1.0))
        elif shape == Shape.UUID:
            self._id(word, _GONE)
        elif shape == Shape.RATIO and self._label() in _MEANINGLESS:
            self._counts(*core.split("/"))
        else:
            self._mixed(word, core)

    def _decimal(self, word: str, core: str, shape: int) -> None:
        """Take in a number: two digits of a score, and of others all that are no errors of arithmetic."""
        if shape == Shape.FRACTION:
            self._figure("*", float(core))
            self._out.append(f"{float(core):.2g}")
        elif len(core.partition(".")[2]) >= _EXACT and core.replace(".", "", 1).isdecimal():
            exact = f"{float(core):.9g}"
            self._plain(exact, exact)
        else:
            self._plain(word, core)

    def _time(self, word: str, core: str, shape: int) -> None:
        """Take out a clock, a date, a zone after one, a duration."""
        if shape == Shape.CLOCK:
            self._when(clock=True)
            self._figure("-", seconds_in(core))
            self._next += self._after() in CLOCK_ENDS
        elif shape == Shape.DATE or (shape == Shape.ZONE and self._last() == _GONE):
            self._drop()
        elif shape == Shape.SPAN or (shape == Shape.MINUTES and self._goes_on()):
            self._lasts(seconds_in(core))
        else:
            self._out.append(word)

    def _goes_on(self) -> bool:
        """Whether ``5m`` are minutes: what follows is seconds, or ``ago``."""
        after = self._after()
        return after == "ago" or shape_of(after) == Shape.SPAN

    def _several(self, parts: Sequence[str]) -> None:
        """Take in what is between commas; nothing that follows is part of it."""
        following, self._next = self._next, len(self._words)
        for part in parts:
            if _DIGITS.isdisjoint(part):
                self._out.append(part)
            else:
                self._number(part)
        self._next = following

    def _plain(self, word: str, core: str) -> None:
        """Take in digits that stand alone: what they are is told by what is next to them."""
        after = self._after()
        if after in UNITS:
            self._next += 1
            if after in SECONDS:
                self._lasts(int(core[:9]) * SECONDS[after] if core.isdecimal() else None)
            elif after in SIZES and core.replace(".", "", 1).isdecimal():
                self._doubt(f"{core} {after}", float(core) * SIZES[after])
            else:
                self._drop()
            return
        label, size = self._label(), len(core)
        if label in _MEANINGLESS and after in _OF and self._after(1).isdecimal():
            self._counts(core, self._after(1))
            self._next += 2
        elif label in _MEANINGLESS or (label == Label.TIME and self._last() == ":") or is_stamp(core):
            self._drop()
        elif size == _YEAR and core[:2] in _CENTURIES and (self._last() == _GONE or dated(self._out[-5:], clock=False)):
            self._when(clock=False)
        elif size < SHORTEST_NUMBER or "." in core or label == Label.HASH:
            self._out.append(word)
        else:
            self._id(word, _ID)

    def _mixed(self, word: str, core: str) -> None:
        """Take in letters and digits mixed, or more digits than a number has."""
        label = self._label()
        if label == Label.NAME:
            self._drop()
        elif len(core) < SHORTEST or label == Label.HASH or (bare := without_ids(core)) == core:
            self._out.append(word)
        else:
            self._id(word, _ID if bare == _GONE else bare)

    def _id(self, word: str, bare: str) -> None:
        """Take out an id, unless it turns out to be all that is said."""
        self._ids += 1
        if bare != _GONE and not bare.endswith(_TEMPORARY):
            self._wanted = _WORDS
        self._doubtful.append((len(self._out), word, ""))
        self._out.append(bare)

    def _when(self, clock: bool) -> None:
        """Take out a clock or a year, with the day and the month before it."""
        if self._last() == _GONE and not (self._doubtful and self._doubtful[-1][0] == len(self._out) - 1):
            self._out.pop()  # a date in digits; an id may yet be put back
        if before := dated(self._out[-5:], clock):
            del self._out[-before:]
        self._drop()

    def _lasts(self, seconds: int | None) -> None:
        """Take out a duration; one that follows another is part of it."""
        if self._span == len(self._out) and seconds is not None and self.figures[-1][0] == "-":
            self.figures[-1] = f"-{int(self.figures[-1][1:]) + seconds}"
            return
        self._drop()
        self._span = len(self._out) if self._figure("-", seconds) else -1

    def _counts(self, tries: str, most: str) -> None:
        """Take out a counter of attempts that has an end."""
        self._drop()
        left = int(most[:9]) - int(tries[:9])
        self._figure("~", left if left >= 0 else None)

    def _doubt(self, word: str, value: float) -> None:
        """Take out a share or a size, unless it turns out to be all that is said."""
        figure = self._figure("+", value)
        if figure:
            self._wanted = _WORDS
            self._doubtful.append((len(self._out), word, figure))
        self._out.append("#%" if figure else word)

    def _figure(self, sign: str, value: float | None) -> str:
        """Keep a figure, if there are not too many."""
        if value is None or len(self.figures) >= _MOST:
            return ""
        self.figures.append(f"{sign}{value:g}" if isinstance(value, float) else f"{sign}{value}")
        return self.figures[-1]

    def _drop(self) -> None:
        if self._last() != _GONE:
            self._out.append(_GONE)

    def _after(self, further: int = 0) -> str:
        at = self._next + further
        word = self._words[at] if at < len(self._words) else ""
        return word.rstrip(_ENDS) if word[-1:] in _END else word

    def _last(self) -> str:
        return self._out[-1] if self._out else ""

    def _label(self) -> int:
        """What is said of a number by the word before it, or before ``:``, or before ``id``."""
        out = self._out
        at = len(out) - 1
        if at > 0 and out[at] == ":":
            at -= 1
        label = label_of(out[at]) if at >= 0 else Label.NONE
        return label_of(out[at - 1]) if label == Label.NUMBER and at > 0 else label
