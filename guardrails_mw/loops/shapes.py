"""What a word with digits in it is, by its shape: a clock, a date, a duration, a share, or what only a machine writes.

A word's shape is the word with ``0`` for every digit. Words of time and of size, and those that stand before a number
that means nothing, are closed classes, and listed; months, ids and addresses are open, and told by how they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import re2

__all__ = [
    "CLOCK_ENDS",
    "SECONDS",
    "SHORTEST",
    "SHORTEST_NUMBER",
    "SIZES",
    "TEMPORARY",
    "UNITS",
    "Label",
    "Shape",
    "dated",
    "is_stamp",
    "label_of",
    "seconds_in",
    "shape_of",
    "without_ids",
]


class Shape:
    """What a word with digits is: numbers, as they are faster than an enumeration."""

    MIXED: Final = 0
    PLAIN: Final = 1
    CLOCK: Final = 2
    DATE: Final = 3
    ZONE: Final = 4
    SPAN: Final = 5
    MINUTES: Final = 6
    SHARE: Final = 7
    SIZE: Final = 8
    RATIO: Final = 9
    UUID: Final = 10
    ENDING: Final = 11
    """Only its end is digits: a name with a number."""
    FRACTION: Final = 12
    """A part of one with many decimals: a score, a distance, a probability."""


class Label:
    """What the word before a number says of it."""

    NONE: Final = 0
    COUNT: Final = 1
    """It counts tries, or is a number of a process: any."""
    NAME: Final = 2
    """It names a request, a trace, a session: new each time."""
    TIME: Final = 3
    """It is a time if it is a field's."""
    HASH: Final = 4
    """It is made of the content, or leads to what follows: news when it changes."""
    NUMBER: Final = 5
    """It is a number of something: what of, the word before it says."""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_UNITS_OF_TIME = {
    1: "s sec secs second seconds sekunde sekunden sek sekund seg segundo segundos seconde secondes secondi сек секунд "
    "секунды секунда 秒 초",
    60: "min mins minute minutes minuten minuto minutos minuti minut мин минут минуты минута 分 분",
    3600: "h hr hrs hour hours std stunde stunden hora horas heure heures ora ore godz godziny ч час часа часов 时 時 "
    "시간",
}
SECONDS = {unit: seconds for seconds, units in _UNITS_OF_TIME.items() for unit in units.split()}
"""Units of time that somebody counts down in, and their seconds."""
_TINY = _set("ns us μs ms msec msecs millis millisecond milliseconds microseconds nanoseconds")
_CALENDAR = _set("年 月 日")
SHORTEST = 6
"""Characters of the shortest id."""
SHORTEST_NUMBER = 15
"""Digits of the shortest id that has no letters."""
SIZES = {"b": 1.0, "byte": 1.0, "bytes": 1.0}
SIZES |= {f"{k}{i}b": 1024.0**n for n, k in enumerate("kmgt", start=1) for i in ("", "i")}
UNITS = frozenset({*SECONDS, *_TINY, *_CALENDAR, *SIZES})
"""Whatever makes the number before it a time or a size."""
CLOCK_ENDS = _set("am pm a.m p.m z utc gmt uhr est edt pst pdt cet cest ist")
"""What may follow a clock and belongs to it."""
_WEEKDAYS = _set("mon tue wed thu fri sat sun monday tuesday wednesday thursday friday saturday sunday")
_MONTHS = _set("jan feb mar apr may jun jul aug sep oct nov dec")
_COUNTS = _set(
    "attempt try tries retry retries poll seq sequence counter serial request req call process goroutine pid ppid tid "
    "port fd"
)
_NUMBERED = _set("id ids no no. number nr nr. count")
_COUNTED = _set("s count no number id")
_NAMES = _set("request req trace correlation span session sid transaction txn nonce etag ref reference incident")
_TIMES = _set("timestamp time ts now date elapsed took duration latency generated uptime age")
_TIMED = _set("at ms s ns seconds time")
_HASHES = _set(
    "sha sha1 sha256 sha512 md5 base64 digest checksum hash fingerprint commit revision cursor next lsn checkpoint"
)
_HEX = frozenset("0123456789abcdef")
_HEX_LENGTHS = frozenset({8, 12, 16, 20, 24, 32, 40, 64})
_MASK = re2.compile("0x(?:0*[137]?f*|f*[8ce]?0*)")  # bits that are set from one end: it tells of progress
_NAMING = frozenset("abcdefghijklmnopqrstuvwxyz_-")  # before the number of a name
_NO_DIGITS = str.maketrans(dict.fromkeys("0123456789", " "))
_NO_LETTERS = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isdigit()})
_ZEROS = str.maketrans("123456789", "000000000")
_JOINTS = str.maketrans(dict.fromkeys("-_./:@+~\\#&?!$%", " "))
TEMPORARY = ("/tmp/", "/temp/", "/var/folders/", "\\temp\\", "\\tmp\\")  # noqa: S108 - in a text
_STAMP = 8  # digits of a date
_EPOCHS = frozenset({10, 13, 16, 19})  # digits of seconds, ..., nanoseconds since 1970
_LONGEST = 200  # characters of a word that is judged
_HASHED = 7  # of a short hash
_LONG = 16  # of an id that may be anything but a name
_NAME = 8  # letters of a name before an id
_FLIPS = 3  # changes between letters and digits that no word has

_CLOCK = r"t?0?0:00(?::00(?:[.]0+)?)?(?:am|pm|z|[+-]00:?00)?|0?0h00"
_TIME_OF_DATE = r"(?:[t_:-]?0?0[:-]?00(?:[:-]?00(?:[.]0+)?)?(?:z|[+-]00:?00)?)?"
_UNIT = r"(?:ns|us|μs|ms|s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?)"
_SHAPES = {
    Shape.CLOCK: _CLOCK,
    Shape.DATE: r"(?:0000[-/.]0?0[-/.]0?0|0?0[-/.]0?0[-/.]0000|0?0/0?0/00|0?0[-/][a-z]{3,9}[-/]0000|0000-w00(?:-0)?|"
    rf"00000000t000000z?){_TIME_OF_DATE}",
    Shape.ZONE: r"[+-]00:?00",
    Shape.FRACTION: r"0[.]0{4,}",
    Shape.PLAIN: r"[-+$€£]?0+(?:[.]0+)*",
    Shape.SPAN: rf"(?:0+d)?(?:0+h)?(?:0+m(?:in)?)?0+(?:[.]0+)?{_UNIT}|0+h0+m(?:in)?|"
    r"p(?:0+d)?t(?:0+h)?(?:0+m)?(?:0+(?:[.]0+)?s)?",
    Shape.MINUTES: r"0+m",
    Shape.SHARE: r"[-+]?0+(?:[.]0+)?%",
    Shape.SIZE: r"0+(?:[.]0+)?(?:bytes?|[kmgt]i?b|b)",
    Shape.RATIO: r"0+/0+",
    Shape.UUID: r"[0a-f]{8}-[0a-f]{4}-[0a-f]{4}-[0a-f]{4}-[0a-f]{12}",
}
_ANY_SHAPE = re2.compile("|".join(_SHAPES.values()))
_DATE_IN_NAME = re2.compile(r"20\d\d-[01]\d-[0-3]\d(?:[t_-][0-2]\d[_:.-]?[0-5]\d(?:[_:.-]?[0-5]\d)?(?:[_.]\d+)?z?)?")
_DATED = 10  # characters of a date
_LONGEST_LABEL = 40  # characters
_SHAPED = [(shape, re2.compile(pattern)) for shape, pattern in _SHAPES.items()]
_PARTS = re2.compile(r"([0-9.]+)([a-zμ]+)")


def shape_of(word: str) -> int:
    """What a word with digits is."""
    return _shaped(word) if len(word) <= _LONGEST else Shape.PLAIN if word.isdecimal() else Shape.MIXED


@lru_cache(maxsize=4096)  # names of fields and days of a report come again
def _shaped(word: str) -> int:
    if word.isdecimal():
        return Shape.PLAIN
    zeros = word.translate(_ZEROS)
    first = zeros.find("0")
    ending = first > 0 and zeros[0].isalpha() and zeros[first - 1] in _NAMING and not zeros[first:].strip("0")
    named = ending and len(word) - first < _LONG and not (len(word) in _HEX_LENGTHS and _HEX.issuperset(word))
    return Shape.ENDING if named else _judged(zeros)


@lru_cache(maxsize=4096)
def _judged(zeros: str) -> int:
    if _ANY_SHAPE.fullmatch(zeros) is None:
        return Shape.MIXED
    return next(shape for shape, pattern in _SHAPED if pattern.fullmatch(zeros))


def label_of(word: str) -> int:
    """What a word before a number says of it.

    >>> label_of("request_id") == Label.NAME, label_of("attempt") == Label.COUNT, label_of("row") == Label.NONE
    (True, True, True)
    """
    return _labelled(word) if len(word) <= _LONGEST_LABEL else Label.NONE


@lru_cache(maxsize=4096)
def _labelled(word: str) -> int:
    first, *more = word.strip(":#").replace("-", "_").split("_")[:4]
    if first in _NUMBERED and not more:
        return Label.NUMBER
    if first == "ratelimit" or "ratelimit" in more or {"limit", "remaining"}.issubset(more):
        return Label.COUNT
    if first in _HASHES or not _HASHES.isdisjoint(more):
        return Label.HASH
    if first.removesuffix("id") in _NAMES or ("id" in more and not _NAMES.isdisjoint(more)):
        return Label.NAME
    if (first in _COUNTS or first.removesuffix("s") in _COUNTS) and _COUNTED.issuperset(more):
        return Label.COUNT
    return Label.TIME if first in _TIMES and _TIMED.issuperset(more) else Label.NONE


def is_stamp(digits: str) -> bool:
    """Whether a number is a point in time: since 1970 (from 2017 to 2033) or the digits of a date.

    >>> is_stamp("1790000000.25"), is_stamp("1790000000123456789"), is_stamp("20261121"), is_stamp("12345678")
    (True, True, True, False)
    """
    if len(digits) < _STAMP:
        return False
    whole = digits.partition(".")[0]
    size = len(whole)
    if size in _EPOCHS:
        return "15" <= whole[:2] <= "19"
    return size in {8, 14} and whole[:2] in {"19", "20"} and "01" <= whole[4:6] <= "12" and "01" <= whole[6:8] <= "31"


def seconds_in(word: str) -> int | None:
    """How long a duration or how late a clock is; None where nobody counts down in such steps.

    >>> seconds_in("1m23s"), seconds_in("10:00:01"), seconds_in("PT0.5S".lower()), seconds_in("51ms")
    (83, 36001, None, None)
    """
    if ":" in word:
        hours, minutes, *seconds = word.strip("tz").split(":")[:3]
        second = seconds[0][:2] if seconds else "0"
        return int(hours) * 3600 + int(minutes[:2]) * 60 + (int(second) if second.isdecimal() else 0)
    total = 0
    for count, unit in _PARTS.findall(word):
        worth = 60 if unit == "m" else 86_400 if unit == "d" else SECONDS.get(unit.removeprefix("t"))
        if worth is None or not count.isdecimal():
            return None
        total += int(count[:9]) * worth
    return total


def dated(before: Sequence[str], clock: bool) -> int:
    """How many words before a clock, or else a year, are a day and a month, in any language, with the weekday.

    >>> dated(["due", "21", "de", "noviembre", "de"], clock=False), dated(["sat", "nov", "21"], clock=True)
    (4, 3)
    """
    pair: list[str] = []
    for size, word in enumerate(reversed(before[-4:]), start=1):
        if word != "de":
            pair.append(word.strip("."))
        if len(pair) == 2:
            month, day = pair if pair[1].isdecimal() else reversed(pair)
            if not (day.isdecimal() and len(day) <= 2 < len(month) and month.isalpha()):
                return 0
            if clock and month[:3] not in _MONTHS:
                return 0
            return size + (len(before) > size and before[-size - 1] in _WEEKDAYS)
    return 0


def without_ids(word: str) -> str:
    """A word with ``#`` for what in it only a machine writes: hashes, addresses, what is in a temporary directory.

    >>> without_ids("web-7f9c6d5b4-x2x9z"), without_ids("python3.11"), without_ids("/tmp/tmpab12cd/a.log")
    ('web-#', 'python3.11', '/tmp/#')
    """
    if len(word) <= _LONGEST:
        return _bared(word)
    place = _temporary(word)
    return word[: word.index(place) + len(place)] + "#" if place else word


def _temporary(word: str) -> str:
    """The temporary directory in a path."""
    return next((place for place in TEMPORARY if place in word), "")


@lru_cache(maxsize=4096)
def _bared(word: str) -> str:
    if place := _temporary(word):
        return word[: word.index(place) + len(place)] + "#"
    if len(word) > _DATED and "20" in word:
        word = _DATE_IN_NAME.sub("#", word)
    parts = word.translate(_JOINTS).split() or [word]
    if parts[0] in _HASHES:
        return word
    if len(word) >= _LONG and "/" not in word and _flips(word) > _FLIPS:
        label, joint, _ = word.partition("-")
        return f"{label}-#" if joint and label.isalpha() and len(label) <= _NAME else "#"
    for part in parts:
        if len(part) >= SHORTEST and (_is_machined(part) if not part.isdecimal() else _is_long(part, word)):
            word = word.replace(part, "#")
    return word


def _is_long(number: str, word: str) -> bool:
    return len(number) >= SHORTEST_NUMBER and "." not in word  # no fraction


def _is_machined(part: str) -> bool:
    if part.startswith("0x"):
        return _MASK.fullmatch(part) is None
    flips, size = _flips(part), len(part)
    if flips >= _FLIPS or (flips == _FLIPS - 1 and size >= _LONG):
        return True
    return size >= _HASHED and flips >= (1 if size in _HEX_LENGTHS else _FLIPS - 1) and _HEX.issuperset(part)


def _flips(word: str) -> int:
    """How often letters and digits take turns."""
    return len(word.translate(_NO_LETTERS).split()) + len(word.translate(_NO_DIGITS).split()) - 1
