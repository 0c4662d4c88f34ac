"""Where things last: a log, a counter and a register behind one protocol.

A store is synchronous and safe to use from several threads; SQLite and the servers also from several
processes. Every operation is atomic and may be repeated with the same key without effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

__all__ = ["AGAIN", "KEPT", "Again", "Claim", "Entry", "Refusal", "RunSummary", "Store", "unit_of"]

KEPT = 30 * 86_400.0
"""Seconds for which a hold whose time is over can still be settled or released."""


def unit_of(scope: str) -> str:
    """What a scope is counted in: the part after its last colon.

    >>> unit_of("tenant:acme:2026-11:usd")
    'usd'
    """
    return scope.rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. `body` is canonical JSON; `hash` covers everything and the entry before."""

    run: str
    seq: int
    key: str
    at: float
    kind: str
    body: str
    prev: str
    hash: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in the log: when it began and was last seen (epoch seconds), and how many entries it has."""

    run: str
    first: float
    last: float
    entries: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Part of a reservation: `amount` (an integer, >= 0) under a scope that may never exceed `cap`.

    A scope names whose budget it is and, after its last colon, in what unit: ``tenant:acme:2026-11:usd``.
    """

    scope: str
    amount: int
    cap: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reservation was not made: the first scope that could not take it and what it had used."""

    scope: str
    cap: int
    used: int
    asked: int


class Again(Enum):
    """That a key was used before, so that nothing is held anew. What its call was is not known."""

    AGAIN = "again"


AGAIN = Again.AGAIN


@runtime_checkable
class Store(Protocol):
    """Log, counter and register. Every method raises `StoreError` when the store cannot do it."""

    @property
    def blocking(self) -> bool:
        """Whether calls may wait for a disk or a network, so that an event loop should not make them."""

    # the log
    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        """Add an entry to a run's chain; with a key that the run has, return what is there instead."""

    def read(self, run: str, after: int = 0) -> Iterator[Entry]:
        """The entries of a run with a sequence number above `after`, in order."""

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""

    # the counter
    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        """Hold all claims or none. None means held. A key that was used before holds nothing anew: `AGAIN`.

        Who is told `AGAIN` may settle what the key holds, if it still does, but must not release it: that call may
        have happened.

        What is held counts as used from here on. Nothing changes that when `ttl` (seconds) is over: its caller is
        then taken for gone, and what it held for spent, until it comes back and settles or releases it all the
        same. `KEPT` seconds later that is for good: reservations, whatever their scopes, forget such holds, some at
        a time where they are many. Repeating the key of one still holds nothing.
        """

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used, however long it took; False if not held.

        Args:
            key: the reservation's key.
            amounts: per unit, which is what follows a scope's last colon; 0 where left out. Every scope that was
                held in a unit is charged its amount, so who settles need not know which windows were held.
        """

    def release(self, key: str) -> bool:
        """Drop a hold, also one that is overdue, and forget its key, which may be reserved anew; False if not held."""

    def used(self, scope: str) -> int:
        """Charged plus held."""

    # the register
    def get(self, key: str) -> str | None:
        """The value under a key, or None."""

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Set a key if it holds what is expected (None: absent), in one step. `new=None` deletes."""

    def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with a prefix, oldest first."""

    def due(self, prefix: str, before: float) -> Sequence[str]:
        """Keys under a prefix whose `due` has come, earliest first."""

    def close(self) -> None:
        """Release files and connections. Closing twice is harmless."""
