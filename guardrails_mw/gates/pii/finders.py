"""Linear replacements for the searches that Presidio does slowly: web addresses and mail addresses.

Each finds exactly the spans that the recognizer's own patterns give on the same text (held by property
tests), but in time proportional to the text: eight kilobytes of dots take Presidio's patterns ten
seconds. The patterns below are cut from the recognizers' own sources, not written anew.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import regex

from guardrails_mw.gates.pii.matching import Span

__all__ = ["EmailFinder", "UrlFinder"]

_HOST_MAX = 253
_FLAGS = regex.IGNORECASE | regex.MULTILINE | regex.DOTALL


class EmailFinder:
    """Mail addresses: from every ``@``, the domain forwards and the mailbox backwards.

    >>> list(EmailFinder().spans("to bob@example.com."))
    [(3, 18, 0.5)]
    """

    _inner = r"!#$%&'*+\-/=?^_`{|}~\w"
    _outside = regex.compile(rf"(?r)[^.{_inner}]", _FLAGS)
    _first = regex.compile(rf"\b[{_inner}]", _FLAGS)
    _last = regex.compile(rf"[{_inner}]", _FLAGS)
    _domain = regex.compile(r"@\w+(?:-+\w+)*(?:\.\w+(?:-+\w+)*)+\b", _FLAGS)

    def spans(self, text: str) -> Iterator[Span]:
        """Candidates in order; whether the domain exists is another question."""
        done, before, at = 0, -1, text.find("@")
        while at >= 0:
            domain = self._domain.match(text, at) if at > done and self._last.match(text, at - 1) else None
            if domain:
                low = max(done, before + 1)
                stop = self._outside.search(text, low, at)
                first = self._first.search(text, stop.end() if stop else low, at)
                if first:
                    done = domain.end()
                    yield first.start(), done, 0.5
            before, at = at, text.find("@", at + 1)


@dataclass(slots=True)
class _Run:
    """A maximal run of host characters, with the dots that a top-level domain follows."""

    start: int
    end: int
    dots: list[int]
    ends: list[int]


class UrlFinder:
    """Web addresses: hosts are runs of host characters cut at their last top-level domain.

    Args:
        base: the expression for an address without scheme, as the recognizer has it.
    """

    def __init__(self, base: str) -> None:
        opening = base.index("[.](?:(?:com)") + len("[.]")
        domains = base[opening : base.rindex("(?:/[^")]
        self._dot = regex.compile(rf"\.{domains}", regex.IGNORECASE)
        self._run = regex.compile(r"[a-z0-9.\-]+", regex.IGNORECASE)
        self._www = regex.compile(r"www\d{0,3}[.]", regex.IGNORECASE)
        self._scheme = regex.compile(r"https?://", regex.IGNORECASE)
        self._path = regex.compile(r"/[^\s()<>\"']*")
        self._quote = regex.compile("[\"']")

    def spans(self, text: str) -> Iterator[Span]:
        """Addresses with and without scheme and in quotes, each kind in order."""
        runs = list(self._runs(text))
        if not runs:
            return
        starts = [run.start for run in runs]
        yield from self._bare(text, runs)
        yield from self._schemed(text, runs, starts)
        yield from self._quoted(text, runs, starts)

    def _runs(self, text: str) -> Iterator[_Run]:
        for match in self._run.finditer(text):
            start, end = match.span()
            if text.find(".", start, end) < 0:
                continue
            dots = [(dot.start(), dot.end()) for dot in self._dot.finditer(text, start + 1, end)]
            if dots:
                yield _Run(start, end, [d[0] for d in dots], [d[1] for d in dots])

    def _tail(self, text: str, end: int) -> int:
        path = self._path.match(text, end)
        return path.end() if path else end

    def _hosts(self, text: str, begin: int, run: _Run) -> tuple[int, ...]:
        """Where the host's repeated part may begin: behind ``www.`` first, then at once."""
        prefix = self._www.match(text, begin, run.end)
        return (prefix.end(), begin) if prefix else (begin,)

    def _address(self, text: str, begin: int, run: _Run) -> int | None:
        """End of the address that begins here: the last top-level domain within reach, and the path."""
        for host in self._hosts(text, begin, run):
            k = bisect_right(run.dots, host + _HOST_MAX) - 1
            if k >= 0 and run.dots[k] > host:
                return self._tail(text, run.ends[k])
        return None

    def _bare(self, text: str, runs: Sequence[_Run]) -> Iterator[Span]:
        done = 0
        for run in runs:
            begin = max(run.start, done)
            while begin < run.end:
                k = bisect_left(run.dots, begin + 1)
                if k == len(run.dots):
                    break
                reach = max(begin, run.dots[k] - _HOST_MAX)
                found = self._first(text, run, max(begin, reach - 7), reach)  # "www123." is 7 long
                if found is None:
                    begin = reach + 1
                    continue
                yield *found, 0.5
                begin = done = found[1]

    def _first(self, text: str, run: _Run, low: int, high: int) -> tuple[int, int] | None:
        for begin in range(low, high + 1):
            end = self._address(text, begin, run)
            if end is not None:
                return begin, end
        return None

    def _schemed(self, text: str, runs: Sequence[_Run], starts: Sequence[int]) -> Iterator[Span]:
        done = 0
        for match in self._scheme.finditer(text, overlapped=True):
            run = _around(runs, starts, match.end())
            if run is None or match.start() < done:
                continue
            end = self._address(text, match.end(), run)
            if end is not None:
                done = end
                yield match.start(), end, 0.6

    def _quoted(self, text: str, runs: Sequence[_Run], starts: Sequence[int]) -> Iterator[Span]:
        schemed = bare = 0
        for quote in self._quote.finditer(text):
            begin = quote.start()
            scheme = self._scheme.match(text, begin + 1) if begin >= schemed else None
            if scheme:
                end = self._closed(text, scheme.end(), _around(runs, starts, scheme.end()))
                if end is not None:
                    schemed = end
                    yield begin, end, 0.6
            if begin >= bare:
                end = self._closed(text, begin + 1, _around(runs, starts, begin + 1))
                if end is not None:
                    bare = end
                    yield begin, end, 0.5

    def _closed(self, text: str, begin: int, run: _Run | None) -> int | None:
        """End of the closing quote of an address that must fill its whole run."""
        if run is None:
            return None
        dot = text.rfind(".", begin, run.end)
        if dot < 0 or not self._dot.fullmatch(text, dot, run.end):
            return None
        if not any(1 <= dot - host <= _HOST_MAX for host in self._hosts(text, begin, run)):
            return None
        end = self._tail(text, run.end)
        return end + 1 if text[end : end + 1] in ("'", '"') else None


def _around(runs: Sequence[_Run], starts: Sequence[int], position: int) -> _Run | None:
    k = bisect_right(starts, position) - 1
    return runs[k] if k >= 0 and position < runs[k].end else None
