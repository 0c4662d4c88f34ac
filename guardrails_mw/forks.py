"""What a forked child must not share with its parent: threads, pipes, connections, numbers that are given out once."""

from __future__ import annotations

import itertools
import os
import secrets
import weakref
from typing import Protocol

__all__ = ["Numbers", "forget_in_children"]


class Forgetful(Protocol):
    """Something that begins anew in a forked child."""

    def forget(self) -> None:
        """In a forked child: neither use nor end what belongs to the parent."""


_known: weakref.WeakSet[Forgetful] = weakref.WeakSet()


def forget_in_children(thing: Forgetful) -> None:
    """Have it begin anew in every process that is forked from this one, for as long as it lives."""
    _known.add(thing)


def _after_fork() -> None:
    for thing in list(_known):
        thing.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Numbers:
    """Numbers as texts, each given out once; those of a forked child are another series.

    >>> numbers = Numbers()
    >>> numbers.next(), numbers.next()
    ('1', '2')
    """

    def __init__(self) -> None:
        self._series, self._count = "", itertools.count(1)
        forget_in_children(self)

    def forget(self) -> None:
        """Begin a series that no other process has."""
        self._series = f"{secrets.token_hex(4)}."

    def next(self) -> str:
        """The next one; safe in several threads."""
        return f"{self._series}{next(self._count)}"
