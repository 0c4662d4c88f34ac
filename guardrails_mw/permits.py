"""Calls that were permitted where the model proposed them: each permit is good for one run of the tool.

A guarded model decides what it proposes where no tool seam will. If callbacks of the same guard hear the tool run after
that, the call has been decided and counted, and is not a second one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

__all__ = ["Permits"]

_MOST = 4096
"""Permits that are remembered; a call whose permit is forgotten is decided again."""


class Permits:
    """How often each call may run, by its run and by what it is known by (`exchange.mark_of`).

    >>> permits = Permits()
    >>> permits.give("run-1", "a")
    >>> permits.take("run-1", "a"), permits.take("run-1", "a")
    (True, False)
    """

    def __init__(self) -> None:
        self._given: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def give(self, run: str, call: str) -> None:
        """The call may run once more."""
        with self._lock:
            self._given[run, call] = self._given.get((run, call), 0) + 1
            while len(self._given) > _MOST:
                self._given.popitem(last=False)

    def take(self, run: str, call: str) -> bool:
        """Whether the call may run by a permit, which is used up by that."""
        with self._lock:
            left = self._given.pop((run, call), 0)
            if left > 1:
                self._given[run, call] = left - 1
            return left > 0
