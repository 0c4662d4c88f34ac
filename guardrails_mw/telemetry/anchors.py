"""Anchors: spans that later spans and decisions hang under, found again by what hosts know of a run."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Literal

from opentelemetry.trace import SpanContext

__all__ = ["Anchor", "Anchors"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A span that others may hang under, the graph step it belongs to, and, at a root, the run's id."""

    context: SpanContext
    step: int | None = None
    run: str = ""


class Anchors:
    """The latest spans by what hosts know (run id, guardrail run, thread) and roots by trace. Forgets the oldest."""

    def __init__(self, limit: int = 20_000) -> None:
        self._known: OrderedDict[tuple[str, str], Anchor] = OrderedDict()
        self._limit, self._lock = limit, Lock()

    def put(self, sort: Literal["span", "run", "thread", "trace"], key: str, anchor: Anchor) -> None:
        """Remember a span."""
        with self._lock:
            self._known[sort, key] = anchor
            self._known.move_to_end((sort, key))
            while len(self._known) > self._limit:
                self._known.popitem(last=False)

    def get(self, sort: Literal["span", "run", "thread", "trace"], key: str) -> Anchor | None:
        """The span known under this key."""
        return self._known.get((sort, key)) if key else None
