"""Telephone numbers in texts, as phonenumbers' matchers find them region by region, in one pass.

All regions look at the same candidates in the same order; a region that finds a number inside a candidate
goes on from there, the others from the candidate's end. So the candidates are searched once, and every
part of one is read once, for all regions.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple

from guardrails_mw.gates.pii.matching import Span
from guardrails_mw.gates.pii.numbering import USUAL, Plans

__all__ = ["PhoneFinder", "remembering"]

_SCORE = 0.4
_MAX_INPUT = 250
_PLUS = "+\uff0b"
_LEAD = "([\uff08\uff3b" + _PLUS
_BRACKETS = re.compile(r"[()\[\]\uff08\uff09\uff3b\uff3d]")
_PUNCTUATION = (
    "\\-\u2010-\u2015\u2212\u30fc\uff0d-\uff0f \u00a0\u00ad\u200b\u2060\u3000()\uff08\uff09\uff3b\uff3d.\\[\\]/"
)
_SIMPLE = re.compile(rf"[(\[\uff08\uff3b{_PUNCTUATION}]*([{_PLUS}]*)([\d{_PUNCTUATION}]*)")
"""A number without letters, tildes, commas and hash signs: no extension, carrier code or vanity number."""
_BARE = str.maketrans("", "", " -./()[]")
_NOT_DIGITS = re.compile(r"\D+")
_DAY = re.compile(r"/\d\d?/")
"""In every date with slashes."""
_LETTER = re.compile(r"[A-Za-z]")
_LONE_X = re.compile(r"[^xX]*[xX][^xX].*\d", re.DOTALL)
"""One x with digits behind it that are no extension, which the matcher never takes for a number."""
_EXTENDED = re.compile(rf"[^\d{_PUNCTUATION}\[\](){_PLUS}]")
"""What a number without extension does not have."""
_USUAL_END = re.compile(rf"(?:\D*\d){{{USUAL}}}\D*")
"""Of a candidate written backwards, its last digits."""
_SEPARATOR = re.compile(r"[\s().\-/]")
_MARKED_DIGITS, _MARKED_SEPARATORS = 9, 2
_SIGNS = ("/", "(", "-", None, ".", "")
"""What each of the matcher's patterns for parts of a number needs: a character; None for one that is not ASCII."""
_SUFFIXES = ("/", "-", None)
"""Those of the patterns whose matches reach to the end, so that further ones lie inside."""


class _Read(NamedTuple):
    """A candidate that was read.

    Attributes:
        numbers: its parts that are numbers somewhere: where each begins and ends in it, and its regions.
        whole: whether all parts were read; no more are needed once every region has a number.
    """

    numbers: tuple[tuple[int, int, int], ...]
    whole: bool


class _Memory:
    """What one kind of finder read: candidates with the regions that asked, and in which regions a part is a number."""

    def __init__(self) -> None:
        self.candidates: dict[tuple[str, int], _Read] = {}
        self.parts: dict[str, int] = {}


_SEEN: ContextVar[dict[tuple[object, ...], _Memory]] = ContextVar("guardrails_mw_phones_seen")


@contextmanager
def remembering() -> Iterator[None]:
    """Read no number twice inside; afterwards everything is forgotten."""
    token = _SEEN.set({})
    try:
        yield
    finally:
        _SEEN.reset(token)


class PhoneFinder:
    """Telephone numbers that are valid in one of the regions.

    Args:
        regions: two-letter regions whose national numbers count.
        least_digits: numbers with fewer digits are not looked for.
        tick: called for every candidate; may raise when time is over.
        marked: look only for numbers as people write them: a plus sign or two separators, and nine digits.

    >>> list(PhoneFinder(["US"]).spans("call (212) 555-0123 now"))
    [(5, 19, 0.4)]
    """

    def __init__(
        self, regions: Sequence[str], least_digits: int = 0, tick: Callable[[], object] = bool, *, marked: bool = False
    ) -> None:
        from phonenumbers import phonenumbermatcher as matching
        from phonenumbers import phonenumberutil as parsing

        self._matching, self._parsing, self._names = matching, parsing, tuple(regions)
        self._plans, self._tick, self._marked = _plans(self._names), tick, marked
        self._least = max(least_digits, self._plans.shortest)
        self._kind = (self._names, self._least, marked)
        inners = matching._INNER_MATCHES  # noqa: SLF001
        rare = f"(?![{self._plans.usual}])(."
        self._long = {inner: re.compile(inner.pattern.replace("(.", rare)) for inner in inners}

    def load(self) -> None:
        """Load the numbering plans that the first numbers would load."""
        self._plans.load()

    def spans(self, text: str) -> Iterator[Span]:
        """Spans of all regions, each once; one may hold another."""
        memory = _SEEN.get({}).setdefault(self._kind, _Memory())
        search = self._matching._PATTERN.search  # noqa: SLF001 - its own pattern, not a copy
        waiting = {0: self._plans.all}
        queue = [0]
        while queue:
            index = heapq.heappop(queue)
            found = search(text, index)
            if not found:
                return
            start = found.start()
            regions = waiting.pop(index)
            while queue and queue[0] <= start:
                regions |= waiting.pop(heapq.heappop(queue))
            candidate = self._alone(found.group())
            resumed: list[tuple[int, int]] = []
            for begin, end, bits in self._numbers(text, start, candidate, regions, memory):
                yield begin, end, _SCORE
                resumed.append((end, bits))
                regions &= ~bits
            for position, bits in (*resumed, (start + len(candidate), regions)):
                if bits and position not in waiting:
                    heapq.heappush(queue, position)
                if bits:
                    waiting[position] = waiting.get(position, 0) | bits

    def _alone(self, candidate: str) -> str:
        if "x" not in candidate:
            return candidate
        second = self._parsing._SECOND_NUMBER_START_PATTERN.search(candidate)  # noqa: SLF001
        return candidate[: second.start()] if second else candidate

    def _numbers(
        self, text: str, offset: int, candidate: str, regions: int, memory: _Memory
    ) -> Iterator[tuple[int, int, int]]:
        """For each part of a candidate that is a number: its span, and the regions that had found none before."""
        key = candidate, regions
        read = memory.candidates.get(key)
        if read is None:
            self._tick()
            read = memory.candidates[key] = self._read(candidate, regions, memory)
        if not read.numbers or self._is_clock(text, offset, candidate):
            return
        left = regions
        for _ in range(2):
            for begin, end, bits in read.numbers:
                fresh = bits & left
                if fresh and self._apart(text, offset + begin, offset + end):
                    yield offset + begin, offset + end, fresh
                    left &= ~fresh
            if read.whole or not left:
                return
            read = memory.candidates[key] = self._read(candidate, regions, memory, whole=True)

    def _read(self, candidate: str, regions: int, memory: _Memory, *, whole: bool = False) -> _Read:
        """The parts of a candidate that are numbers, up to where every region has one if not `whole`."""
        if not self._enough(candidate) or (self._marked and not _is_marked(candidate)):
            return _Read((), whole=True)
        if _DAY.search(candidate) and self._matching._SLASH_SEPARATED_DATES.search(candidate):  # noqa: SLF001
            return _Read((), whole=True)
        numbers: list[tuple[int, int, int]] = []
        parts, left = memory.parts, regions
        for position, part in self._parts(candidate):
            bits = parts.get(part)
            if bits is None:
                bits = parts[part] = self._regions(part) if len(part) >= self._least else 0
            if bits & regions:
                numbers.append((position, position + len(part), bits & regions))
                left &= ~bits
                if not left and not whole:
                    return _Read(tuple(numbers), whole=False)
        return _Read(tuple(numbers), whole=True)

    def _enough(self, candidate: str) -> bool:
        least = max(self._least, _MARKED_DIGITS) if self._marked else self._least
        if len(candidate) < least:
            return False
        digits = candidate.translate(_BARE)
        return len(digits if digits.isdigit() else _NOT_DIGITS.sub("", digits)) >= least

    def _is_clock(self, text: str, offset: int, candidate: str) -> bool:
        """Whether it is a date and an hour, and minutes follow."""
        after = offset + len(candidate)
        if text[after : after + 1] != ":":
            return False
        clock = self._matching._TIME_STAMPS.search(candidate)  # noqa: SLF001
        return bool(clock and self._matching._TIME_STAMPS_SUFFIX.match(text, after))  # noqa: SLF001

    def _parts(self, candidate: str) -> Iterator[tuple[int, str]]:
        """The candidate, and what slashes, brackets, dashes, full stops and spaces set apart in it, if long enough."""
        yield 0, candidate
        if candidate.isdigit():
            return
        least = self._least
        for sign, inner in zip(_SIGNS, self._matching._INNER_MATCHES, strict=True):  # noqa: SLF001
            if candidate.isascii() if sign is None else sign not in candidate:
                continue
            first = inner.search(candidate)
            if first and first.start() >= least:
                yield 0, self._trimmed(candidate[: first.start()])
            for found in self._ends(inner, candidate) if sign in _SUFFIXES else inner.finditer(candidate):
                begin, end = found.span(1)
                if end - begin >= least:
                    yield begin, self._trimmed(candidate[begin:end])

    def _ends(self, inner: re.Pattern[str], candidate: str) -> Iterator[re.Match[str]]:
        """Matches that reach to the end, overlapping, but for those with too many digits for how they begin."""
        low = 0
        if len(candidate) > USUAL and not _EXTENDED.search(candidate):
            last = _USUAL_END.match(candidate[::-1])
            low = len(candidate) - last.end() if last else 0
        found = self._long[inner].search(candidate) if low else inner.search(candidate)
        while found and found.start() < low:
            yield found
            found = self._long[inner].search(candidate, found.start() + 1)
        if low:
            found = inner.search(candidate, low)
        while found:
            yield found
            found = inner.search(candidate, found.start() + 1)

    @staticmethod
    def _trimmed(part: str) -> str:
        """The part without the punctuation at its end."""
        if part[-1].isalnum():
            return part
        end = len(part)
        while end and not part[end - 1].isalnum() and part[end - 1] != "#":
            end -= 1
        return part[:end]

    def _apart(self, text: str, begin: int, end: int) -> bool:
        """Not joined to a Latin letter, a percent or a currency sign."""
        if begin > 0 and text[begin] not in _LEAD and self._joins(text[begin - 1]):
            return False
        return end >= len(text) or not self._joins(text[end])

    def _joins(self, character: str) -> bool:
        if character.isascii():
            return character.isalpha() or character in "%$"
        kind = self._matching.PhoneNumberMatcher
        return bool(kind._is_invalid_punctuation_symbol(character) or kind._is_latin_letter(character))  # noqa: SLF001

    def _regions(self, part: str) -> int:
        """A bit for each of the regions in which the part, standing alone, is a valid number."""
        if len(part) > _MAX_INPUT:
            return 0
        digits = part.translate(_BARE)
        plus = False
        if not (digits.isascii() and digits.isdigit()):
            simple = _SIMPLE.fullmatch(part)
            if not simple:
                return self._labelled(part) if self._enough(part) and not self._is_reference(part) else 0
            digits = _digits(simple.group(2))
            plus = bool(simple.group(1))
        if len(digits) < self._least:
            return 0
        bits = self._plans.valid(digits, digits, plus=plus)
        return 0 if bits and self._is_reference(part) else bits

    def _is_reference(self, part: str) -> bool:
        """Brackets that do not match, or pages of a publication."""
        if not _BRACKETS.search(part):
            return False
        unmatched = not self._matching._MATCHING_BRACKETS.fullmatch(part)  # noqa: SLF001
        return unmatched or bool(self._matching._PUB_PAGES.search(part))  # noqa: SLF001

    def _labelled(self, part: str) -> int:
        """Of a number with letters or signs, such as an extension."""
        parsing = self._parsing
        number = parsing._extract_possible_number(part)  # noqa: SLF001
        if not parsing._is_viable_phone_number(number):  # noqa: SLF001
            return 0
        _, rest = parsing._maybe_strip_extension(number)  # noqa: SLF001
        if _LONE_X.match(rest):
            return 0
        if len(_LETTER.findall(rest)) >= 3:
            return self._asked(part, self._plans.all)
        bits = self._plans.valid(_digits(rest), _digits(part), plus=rest[:1] in _PLUS)
        return self._asked(part, bits) if bits and "x" in part.lower() else bits

    def _asked(self, part: str, regions: int) -> int:
        """The regions of these in which phonenumbers itself takes the part for a number."""
        taken = 0
        for i, name in enumerate(self._names):
            if regions >> i & 1:
                matcher = self._matching.PhoneNumberMatcher(part, name)
                taken |= (matcher._parse_and_verify(part, 0) is not None) << i  # noqa: SLF001
        return taken


def _is_marked(candidate: str) -> bool:
    return "+" in candidate or len(_SEPARATOR.findall(candidate)) >= _MARKED_SEPARATORS


def _digits(part: str) -> str:
    digits = _NOT_DIGITS.sub("", part)
    return digits if digits.isascii() else str(int(digits)).zfill(len(digits))


_plans = cache(Plans)
