"""Calls of a host that several handlers of one guard hear of: each is one call, however many hear of it.

Ids do not tell calls apart: callers may give several runs one id, and models number their calls anew. What a host
tells of one call is one object for all handlers, and another one for the next call.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

__all__ = ["Hearing"]

_MOST = 10_000
"""Calls whose number is remembered."""
_CLAIMS = 256
"""Model calls whose conversation is held to know them by; all handlers hear of one at the same moment."""


class Hearing:
    """Which handler counts a model call, and which of several calls of one key a tool call is.

    >>> hearing, one, other = Hearing(), object(), object()
    >>> [hearing.counts("run-1", told, who) for told, who in ((one, "a"), (one, "b"), (other, "b"))]
    [True, False, True]
    >>> [hearing.turn("run-1", "key", told, 0) for told in (one, one, other)]
    [0, 0, 1]
    """

    def __init__(self) -> None:
        self._claimed: OrderedDict[str, tuple[object, int]] = OrderedDict()
        self._turns: OrderedDict[tuple[object, str], tuple[int, object, object]] = OrderedDict()
        self._lock = threading.Lock()

    def counts(self, run: str, told: object, who: object) -> bool:
        """Whether a handler is the one that counts a model call that it was `told` of under a run's id."""
        with self._lock:
            first = self._claimed.get(run)
            if first is None or first[0] is not told:  # the end of the one before may never be told
                first = self._claimed[run] = (told, id(who))
                self._claimed.move_to_end(run)
            while len(self._claimed) > _CLAIMS:
                self._claimed.popitem(last=False)
            return first[1] == id(who)

    def over(self, run: str, who: object) -> None:
        """The call has ended."""
        with self._lock:
            first = self._claimed.get(run)
            if first is not None and first[1] == id(who):
                del self._claimed[run]

    def turn(self, scope: object, key: str, told: object, least: int) -> int:
        """Which call of its key a tool call is, within a run or an invocation of a graph: `least`, or a later one."""
        name = (scope if isinstance(scope, str) else id(scope), key)
        with self._lock:
            last = self._turns.pop(name, None)
            if last is None or last[1] is not told:
                number = least if last is None else max(least, last[0] + 1)
                last = (number, told, scope)  # held, so that no other one has their ids
            self._turns[name] = last
            while len(self._turns) > _MOST:
                self._turns.popitem(last=False)
            return last[0]
