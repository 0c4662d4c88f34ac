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
    active: dict[str, tuple[int, list[Match]]] = {}
    for match in sorted(set(matches), key=_order):
        start, end, entity, score = match
        reach, around = active.get(entity, (-1, []))
        if reach < start:
            around = []
        elif any(end <= m.end and score <= m.score for m in around):
            continue
        elif len(around) > 1:
            around = [m for m in around if m.end >= start]
        around.append(match)
        kept.append(match)
        active[entity] = max(reach, end), around
    return kept


def _order(match: Match) -> tuple[int, int, float, str]:
    return match.start, -match.end, -match.score, match.entity
