"""What a recognizer finds: spans with a score, and which of them say nothing new."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Match", "Span", "distinct"]

Span = tuple[int, int, float]
"""Start, end and score."""


class Match(NamedTuple):
    """``[start, end)`` of a text may be an entity. Sorted by where it starts."""

    start: int
    end: int
    entity: str
    score: float


def distinct(matches: Iterable[Match]) -> list[Match]:
    """Drop what lies inside another match of the same entity with an equal or higher score.

    >>> distinct([Match(0, 5, "URL", 0.6), Match(2, 5, "URL", 0.5), Match(2, 5, "UUID", 0.5)])
    [Match(start=0, end=5, entity='URL', score=0.6), Match(start=2, end=5, entity='UUID', score=0.5)]
    """
    kept: list[Match] = []
    active: dict[str, list[Match]] = {}
    for match in sorted(set(matches), key=lambda m: (m.start, -m.end, -m.score, m.entity)):
        around = [m for m in active.get(match.entity, ()) if m.end >= match.start]
        if not any(match.end <= m.end and match.score <= m.score for m in around):
            around.append(match)
            kept.append(match)
        active[match.entity] = around
    return kept
