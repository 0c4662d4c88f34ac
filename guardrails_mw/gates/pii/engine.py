"""Finds personal data in a text: Presidio's recognizers, run only where they can find something.

The recognizers supply patterns, check digits and context words; the searching is done here, so that the
slow ones are linear, a search that runs out of time is an error and not silence, and no text is ever
sent anywhere. Findings are the same as Presidio's on the version it knows (`Engine.exact`); on any
other version every recognizer searches in its own way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

import regex

from guardrails_mw.errors import GateError
from guardrails_mw.gate import DEADLINE, WINDOW, windows
from guardrails_mw.gates.disguise import Plain
from guardrails_mw.gates.pii.context import boosted, occurring
from guardrails_mw.gates.pii.disguise import narrowed, read, spelled_ssns
from guardrails_mw.gates.pii.escapes import decoded
from guardrails_mw.gates.pii.finders import EmailFinder, UrlFinder
from guardrails_mw.gates.pii.matching import Match, Span, distinct
from guardrails_mw.gates.pii.ner import Ner
from guardrails_mw.gates.pii.phones import PhoneFinder, remembering
from guardrails_mw.gates.pii.prefilter import Prefilter, relaxed
from guardrails_mw.gates.pii.presidio import Library, Recognizer, load
from guardrails_mw.gates.pii.profiles import Profile
from guardrails_mw.gates.pii.sources import Search, Source, nothing

__all__ = ["LONGEST", "Engine"]

LONGEST = 1024
"""Characters of the longest finding. Mail has 320 (RFC 5321)."""
_GROWING = frozenset({"IP_ADDRESS", "URL"})
"""What has no longest form, no space in it, and is found from its beginning on."""
_OVERLAP = 2048
_TIMEOUT = 5.0
"""Seconds one pattern may take on one window, if the deadline does not come first."""


class Engine:
    """Looks for the entities of a profile.

    Args:
        profile: what counts.
        entities: what is looked for with Presidio's recognizers.
        library: those recognizers; the installed Presidio's if left out.
        added: further searches.
        model: finds what patterns cannot.
        longest: characters of the longest finding.

    >>> from guardrails_mw.gates.pii.profiles import PROFILES
    >>> Engine(PROFILES["agent"], ["EMAIL_ADDRESS"]).find("write to bob@example.com")
    [Match(start=9, end=24, entity='EMAIL_ADDRESS', score=1.0)]
    """

    def __init__(
        self,
        profile: Profile,
        entities: Iterable[str],
        library: Library | None = None,
        added: Sequence[Source] = (),
        model: Ner | None = None,
        *,
        longest: int = LONGEST,
    ) -> None:
        self.longest = longest
        library = library or load()
        self.exact = library.known
        self.model = model
        patterns = (p for entity in entities for p in getattr(library.recognizers[entity], "patterns", None) or ())
        self.local = self.exact and model is None and not any(_AHEAD in p.regex for p in patterns)
        """Whether what is found in a text depends on what stands near it only."""
        self._profile = profile
        make = _source if self.exact else _plain_source
        chosen = {entity: library.recognizers[entity] for entity in sorted(entities)}
        phones = chosen.get("PHONE_NUMBER") if self.exact else None
        self._regions = phones.supported_regions if phones is not None else ()
        sources = [*(make(entity, each, profile) for entity, each in chosen.items()), *added]
        self._sources = {f"{source.entity}/{i}": source for i, source in enumerate(sources)}
        self._words: dict[str, list[str]] = {}
        for source in sources:
            self._words.setdefault(source.entity, []).extend(source.words)
        self._lone = {key for key, source in self._sources.items() if source.alone is not None}
        self._prefilter = Prefilter({key: each.needs or [""] for key, each in self._sources.items()})

    remembering = staticmethod(remembering)
    """For several searches of the same text: telephone numbers are looked up once."""

    def find(self, text: str, hints: Sequence[str] = ()) -> list[Match]:
        """What counts, in order. `hints` are words that hold for the whole text.

        Raises `GateError` (``pii.timeout`` or ``deadline``) rather than leaving something out.
        """
        literal = decoded(text)
        if literal is not None:
            text = literal.text
        plain = read(text)
        text = narrowed(text)  # whatever else is undone elsewhere in it: what is found here must not hang on that
        found = self._counting(text, hints)
        if self.model is not None:
            found = distinct([*found, *self.model.find(text)])
        if plain is not None and plain.text != text:
            spelled = spelled_ssns(text) if "US_SSN" in self._words else []
            found = distinct([*found, *_led(plain, self._counting(plain.text, hints)), *spelled])
        if literal is not None:
            found = _led(literal, found)
        return [each for match in found for each in _bounded(match, self.longest)]

    def load(self) -> None:
        """Load what the first search would load."""
        if self.model is not None:
            self.model.load()
        if self._regions:
            PhoneFinder(self._regions).load()
        self.find(_EVERYTHING)

    def _counting(self, text: str, hints: Sequence[str]) -> list[Match]:
        keys = self._prefilter.hits(text)
        if not keys:
            return []
        lone = self._without_words(keys & self._lone, text, hints)
        matches = self._matches(text, [(self._sources[key], key in lone) for key in keys])
        if not matches:
            return matches
        counting = boosted(text, matches, self._words, self._profile.keeps, hints)
        return [_trimmed(text, match) for match in counting]

    def _without_words(self, keys: AbstractSet[str], text: str, hints: Sequence[str]) -> set[str]:
        """The sources of these of which no word can stand near a match."""
        entities = {self._sources[key].entity for key in keys}
        supported = {entity for entity in entities if occurring(self._words[entity], text, hints)}
        return {key for key in keys if self._sources[key].entity not in supported}

    def matches(self, text: str) -> list[Match]:
        """Everything the searches match, before context and profile."""
        return self._matches(text, [(self._sources[key], False) for key in self._prefilter.hits(text)])

    def _matches(self, text: str, sources: Iterable[tuple[Source, bool]]) -> list[Match]:
        found: list[Match] = []
        for source, lone in sources:
            search = source.alone if lone and source.alone is not None else source.search
            if search is not nothing:
                found += [Match(start, end, source.entity, score) for start, end, score in _spans(source, search, text)]
        return distinct(found) if len(found) > 1 else found


_EVERYTHING = "\u0130 a@b.co http://x.org 4111 1111 1111 1111 +1 212-555-0123 DE89370400440532013000 219-09-9999"


def _spans(source: Source, search: Search, text: str) -> Iterator[Span]:
    if len(text) <= WINDOW or source.whole:
        yield from search(text)
        return
    margin = _OVERLAP // 2
    for offset, window in windows(text, _OVERLAP):
        low = margin if offset else 0
        high = len(window) if offset + len(window) == len(text) else len(window) - margin
        for start, end, score in search(window):
            if start < high and end > low:  # the neighbour sees the rest with more around it
                yield offset + start, offset + end, score


def _led(plain: Plain, matches: Iterable[Match]) -> list[Match]:
    """The matches in a plain text, where they stand in the original."""
    return [Match(*plain.span(match.start, match.end), match.entity, match.score) for match in matches]


def _trimmed(text: str, match: Match) -> Match:
    """A quoted address without its quotes, so that what is left is quoted."""
    if match.entity == "URL" and text[match.start] in "\"'" and match.end - match.start > 2:
        return match._replace(start=match.start + 1, end=match.end - 1)
    return match


def _bounded(match: Match, longest: int) -> list[Match]:
    """The match if it is no longer; pieces of what grows from its beginning, and of anything else the end."""
    if match.end - match.start <= longest:
        return [match]
    if match.entity not in _GROWING:
        return [match._replace(start=match.end - longest)]
    starts = range(match.start, match.end, longest)
    return [match._replace(start=start, end=min(start + longest, match.end)) for start in starts]


def _source(entity: str, recognizer: Recognizer, profile: Profile) -> Source:
    """A recognizer, searched in the fast way."""
    words = profile.words(entity, recognizer.context)
    needs = _necessary(entity, recognizer, profile)
    if entity == "PHONE_NUMBER":
        finder = partial(PhoneFinder, recognizer.supported_regions, profile.least_digits, _remaining)
        marked = finder(marked=True).spans if profile.marked_numbers else None
        return Source(entity, finder().spans, words, needs, alone=marked)
    if entity == "EMAIL_ADDRESS":
        return Source(entity, _Validated(recognizer, EmailFinder().spans), words, needs, whole=True)
    if entity == "URL":
        # the expression for an address without scheme is the second pattern, behind its flag
        finder_of_urls = UrlFinder(recognizer.patterns[1].regex.removeprefix("(?i)"))
        return Source(entity, finder_of_urls.spans, words, needs, whole=True)
    if entity == "IBAN_CODE":
        return Source(entity, _Iban(recognizer), words, needs)
    search = _Patterns(recognizer)
    alone = search.at_least(profile.min_score.get(entity, profile.default))
    return Source(entity, search, words, needs, alone=alone)


def _plain_source(entity: str, recognizer: Recognizer, profile: Profile) -> Source:
    return Source(entity, _Plain(entity, recognizer), profile.words(entity, recognizer.context))


def _necessary(entity: str, recognizer: Recognizer, profile: Profile) -> list[str]:
    """RE2 patterns of which one occurs in every text that the recognizer finds something in."""
    if entity in profile.requires:
        return [profile.requires[entity]]
    if entity == "EMAIL_ADDRESS":
        return ["@"]
    if entity == "PHONE_NUMBER":
        return ["[0-9]"]
    try:
        return [relaxed(pattern.regex.replace(r"[^\s()<>\"']*", "")) for pattern in recognizer.patterns]
    except ValueError:  # it runs on every text
        return []


def _remaining() -> float:
    left = DEADLINE.get() - time.perf_counter()
    if left <= 0:
        raise GateError("deadline")
    return min(left, _TIMEOUT)


class _Validated:
    """Spans of a finder that a recognizer's check confirms."""

    def __init__(self, recognizer: Recognizer, spans: Search) -> None:
        self._valid, self._find = recognizer.validate_result, spans

    def __call__(self, text: str) -> Iterator[Span]:
        for start, end, _ in self._find(text):
            if self._valid(text[start:end]):
                yield start, end, 1.0


_AHEAD = "(?=.*?[a-zA-Z])(?=.*?[0-9]{4})"
"""Look-aheads over the rest of the text, which take quadratic time: a match begins before the last of both."""
_LETTER_BEHIND, _DIGITS_BEHIND = regex.compile("(?r)[a-zA-Z]", regex.IGNORECASE), regex.compile("(?r)[0-9]{4}")


def _last_ahead(text: str) -> int:
    """The last position from which both look-aheads hold; -1 if there is none."""
    letter, digits = _LETTER_BEHIND.search(text), _DIGITS_BEHIND.search(text)
    return min(letter.start(), digits.start()) if letter and digits else -1


class _Patterns:
    """A recognizer's patterns, checks and scores, with a time limit that is an error."""

    def __init__(self, recognizer: Recognizer, least: float = 0.0) -> None:
        self._recognizer, flags = recognizer, recognizer.global_regex_flags
        self._patterns = [
            (regex.compile(p.regex.replace(_AHEAD, ""), flags), p.score, _AHEAD in p.regex)
            for p in recognizer.patterns
            if p.score >= least
        ]
        self._valid = None if _inherited(recognizer.validate_result) else recognizer.validate_result
        self._invalid = None if _inherited(recognizer.invalidate_result) else recognizer.invalidate_result

    def at_least(self, score: float) -> Search | None:
        """The search for matches that have this score without a word near them; None if it is no shorter."""
        if self._valid is not None:
            return None
        patterns = [each for each in self._patterns if each[1] >= score]
        if not patterns:
            return nothing
        if len(patterns) == len(self._patterns):
            return None
        return _Patterns(self._recognizer, score)

    def __call__(self, text: str) -> Iterator[Span]:
        for pattern, score, ahead in self._patterns:
            last = _last_ahead(text) if ahead else len(text)
            try:
                for match in pattern.finditer(text, timeout=_remaining()):
                    if match.start() > last:
                        break
                    yield from self._judge(match, score)
            except TimeoutError:
                raise GateError("pii.timeout") from None

    def _judge(self, match: regex.Match[str], score: float) -> Sequence[Span]:
        final = self._score(match.group(), score)
        return (((*match.span(), final)),) if final > 0 else ()

    def _score(self, value: str, score: float) -> float:
        if self._valid is not None:
            valid = self._valid(value)
            if valid is not None:
                score = float(valid)
        return 0.0 if self._invalid is not None and score > 0 and self._invalid(value) else score


def _inherited(check: Callable[[str], bool | None]) -> bool:
    """Whether a recognizer's check is the one that decides nothing."""
    return check.__qualname__.startswith("PatternRecognizer.")


class _Iban(_Patterns):
    """Account numbers: the longest of the pattern's nested groups whose check digits are right."""

    def _judge(self, match: regex.Match[str], score: float) -> Sequence[Span]:
        for group in range(len(match.groups()), 0, -1):
            end = match.end(group) if match.end(group) > 0 else match.end()
            final = self._score(match.string[match.start() : end], score)
            if final > 0:
                return ((match.start(), end, final),)
        return ()


class _Plain:
    """A recognizer that searches its own way, watched for the patterns it skips."""

    def __init__(self, entity: str, recognizer: Recognizer) -> None:
        self._entity, self._recognizer = entity, recognizer

    def __call__(self, text: str) -> Iterator[Span]:
        _remaining()
        with _SKIPS:
            results = self._recognizer.analyze(text, [self._entity])
        for result in results:
            yield result.start, result.end, result.score


class _SkipWatch(logging.Handler):
    """Turns Presidio's log line about a pattern that timed out into an error of the calling thread."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen = threading.local()
        logging.getLogger("presidio-analyzer").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a skipped pattern."""
        if "timed out" in str(record.msg):
            self._seen.skipped = True

    def __enter__(self) -> None:
        self._seen.skipped = False

    def __exit__(self, *_: object) -> None:
        if self._seen.skipped:
            raise GateError("pii.timeout")


_SKIPS = _SkipWatch()
