"""Many RE2 patterns, one pass over the text: which of them match, and where.

RE2 runs in time linear in the text whatever the pattern. `re2.Filter` first looks for the literals that
patterns need and only tries those that can match, so a hundred patterns cost plain text about as much as
one. When its automaton runs out of memory RE2 reports "no match"; a canary in every scan notices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import re2

from guardrails_mw.errors import GateError

__all__ = ["PatternSet"]

_CANARY = "\ncanary:guardrails-mw"


class PatternSet:
    r"""Compiled patterns with names; ``^`` and ``$`` match at line ends.

    Raises:
        ValueError: a pattern is not valid RE2; names the pattern.

    >>> patterns = PatternSet({"digits": r"\d+", "word": "hello$"})
    >>> patterns.matching("say hello"), patterns.search("word", "say hello")
    (['word'], (4, 9))
    """

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._names = list(patterns)
        self._filter = re2.Filter()
        options = re2.Options()
        options.log_errors = False  # the error says it, and says it once
        for name, pattern in patterns.items():
            try:
                self._filter.Add(f"(?m:{pattern})", options)
            except re2.error:
                raise ValueError(f"{name}: not an RE2 pattern") from None
        self._filter.Add(re2.escape(_CANARY))
        self._filter.Compile()
        self._singles = {name: self._filter.re(index) for index, name in enumerate(self._names)}

    def matching(self, text: str) -> list[str]:
        """Names of the patterns that match somewhere. Raises `GateError` (``pattern_memory``)."""
        hits: list[int] | None = self._filter.Match(text + _CANARY)
        if not hits or len(self._names) not in hits:
            raise GateError("pattern_memory")
        return [self._names[index] for index in sorted(hits) if index < len(self._names)]

    def search(self, name: str, text: str) -> tuple[int, int] | None:
        """Span of the first match of one pattern, in code points."""
        match = self._singles[name].search(text)
        return None if match is None else (match.start(), match.end())

    def spans(self, name: str, text: str) -> Iterator[tuple[int, int]]:
        """Spans of all matches of one pattern: of the first group that took part, if it has groups."""
        for match in self._singles[name].finditer(text):
            groups = range(1, len(match.groups()) + 1)
            taken = next((index for index in groups if match.start(index) >= 0), 0)
            yield match.start(taken), match.end(taken)
