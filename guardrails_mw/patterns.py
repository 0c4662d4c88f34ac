"""Many RE2 patterns, one pass over the text: which of them match, and where.

RE2 runs in time linear in the text whatever the pattern. `re2.Filter` first looks for the literals that
patterns need and only tries those that can match, so a hundred patterns cost plain text about as much as
one. When its automaton runs out of memory RE2 reports "no match"; a canary in every scan notices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from itertools import pairwise

import re2

from guardrails_mw.errors import GateError

__all__ = ["PatternSet"]

_CANARY = "\ncanary:guardrails-mw"
_LONG = 2500  # characters of a pattern; joined, longer ones outgrow RE2's automaton
_QUIET = re2.Options()
_QUIET.log_errors = False  # the exception says it, and says it once
_BEYOND = 512
"""Characters behind a group that a match may reach which begins inside of it."""


class PatternSet:
    r"""Compiled patterns with names; ``^`` and ``$`` match at line ends.

    Args:
        patterns: RE2 by name, or several of which one is enough.
        groups: engines that share the patterns, neighbours together. The automaton that looks for literals has a
            state for every set of them met so far, so two small ones have far fewer states than one large one and
            meet a new text much faster; each reads the text once.

    Raises:
        ValueError: a pattern is not valid RE2; names the pattern.

    >>> patterns = PatternSet({"digits": r"\d+", "word": "hello$"})
    >>> patterns.matching("say hello"), patterns.search("word", "say hello")
    (['word'], (4, 9))
    """

    def __init__(self, patterns: Mapping[str, str | Sequence[str]], groups: int = 1) -> None:
        self._names = list(patterns)
        one_of = [[pattern] if isinstance(pattern, str) else pattern for pattern in patterns.values()]
        entries = [(index, pattern) for index, either in enumerate(one_of) for pattern in either]
        cuts = [round(len(entries) * group / groups) for group in range(groups + 1)]
        self._engines = [self._engine(entries[first:last]) for first, last in pairwise(cuts)]
        self._singles = {
            name: [re2.compile(f"(?m:{pattern})", _QUIET) for pattern in _joined(either)]
            for name, either in zip(patterns, one_of, strict=True)
        }

    def _engine(self, entries: Sequence[tuple[int, str]]) -> tuple[re2.Filter, list[int]]:
        """A filter of some patterns and, for each of them, the place of its name; the canary comes last."""
        engine = re2.Filter()
        for index, pattern in entries:
            try:
                engine.Add(f"(?m:{pattern})", _QUIET)
            except re2.error:
                raise ValueError(f"{self._names[index]}: not an RE2 pattern") from None
        engine.Add(re2.escape(_CANARY))
        engine.Compile()
        return engine, [index for index, _ in entries]

    def matching(self, text: str) -> list[str]:
        """Names of the patterns that match somewhere. Raises `GateError` (``pattern_memory``)."""
        read, found = (text + _CANARY).encode(), set[int]()
        for engine, owners in self._engines:
            hits: list[int] | None = engine.Match(read)
            if not hits or len(owners) not in hits:
                raise GateError("pattern_memory")
            if len(hits) > 1:
                found.update(owners[hit] for hit in hits if hit < len(owners))
        return [self._names[index] for index in sorted(found)]

    def search(self, name: str, text: str) -> tuple[int, int] | None:
        """Span of the first match of one pattern, in code points."""
        matches = (pattern.search(text) for pattern in self._singles[name])
        return min(((match.start(), match.end()) for match in matches if match is not None), default=None)

    def spans(self, name: str, text: str) -> Iterator[tuple[int, int]]:
        """Spans of all matches of one pattern: of the first group that took part, if it has groups.

        A match may begin inside of what such a group holds of another, so that what comes first hides none. Each is
        told once; those in a row of such overlaps come before the matches after them.
        """
        end, seen = 0, set[int]()
        either = (_matches(pattern, text) for pattern in self._singles[name])
        for match, pattern in merge(*either, key=lambda found: found[0].start()):
            if match.start() < end:
                continue  # within a match of another alternative
            end = match.end()
            for span in _nested(pattern, match, text):
                if span[0] in seen:
                    break
                seen.add(span[0])
                yield span


def _matches(pattern: re.Pattern[str], text: str) -> Iterator[tuple[re.Match[str], re.Pattern[str]]]:
    return ((match, pattern) for match in pattern.finditer(text))


def _nested(pattern: re.Pattern[str], match: re.Match[str], text: str) -> Iterator[tuple[int, int]]:
    """The span of a match, and of those that begin inside of it, one in the other."""
    begin, (start, end) = match.start(), _taken(match)
    while True:
        yield start, end
        inner = pattern.search(text[start : end + _BEYOND]) if begin < start else None
        if inner is None or inner.start() >= end - start:
            return
        offset, (low, high) = start, _taken(inner)
        begin, start, end = offset + inner.start(), offset + low, offset + high


def _taken(match: re.Match[str]) -> tuple[int, int]:
    """Span of the first group that took part, or of the match."""
    return match.span(next((index for index, group in enumerate(match.groups(), 1) if group is not None), 0))


def _joined(either: Sequence[str]) -> Sequence[str]:
    """Alternatives as one pattern, which costs one pass, unless it is too long."""
    return ["|".join(either)] if sum(map(len, either)) <= _LONG else either
