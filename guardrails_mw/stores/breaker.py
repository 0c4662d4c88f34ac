"""What stores on a network share: a server that is down is not waited for at every call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from guardrails_mw.errors import StoreError

__all__ = ["UNREACHABLE", "Breaker"]

UNREACHABLE = frozenset({"store.unreachable", "store.timeout", "store.lost"})
"""Codes that say nothing about the request: the server could not be reached, did not answer or went away."""


class Breaker:
    """Lets calls to a server through; after one that it did not answer, refuses them at once for a while.

    When the while is over, one call is let through as a probe; the others are refused until it is known how
    that ended. A dead server so costs its timeout once in `pause` seconds, not at every call.

    Args:
        pause: seconds for which calls are refused.
        clock: seconds that never go backwards.

    >>> breaker = Breaker(pause=5.0)
    >>> with breaker.call():
    ...     raise StoreError("store.timeout")
    Traceback (most recent call last):
    guardrails_mw.errors.StoreError: store.timeout
    >>> with breaker.call():
    ...     print("not reached")
    Traceback (most recent call last):
    guardrails_mw.errors.StoreError: store.down
    """

    def __init__(self, pause: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clock = pause, clock
        self._lock = threading.Lock()
        self._closed_until: float | None = None
        self._probing = False

    @contextmanager
    def call(self) -> Iterator[None]:
        """Around one operation. Raises `StoreError` (``store.down``) instead of running it while the server is down."""
        probe = self.enter()
        try:
            yield
        except BaseException as error:
            self.leave(probe, error)
            raise
        self.leave(probe, None)

    def enter(self) -> bool:
        """Before an operation: whether it is a probe, to be told to `leave`. Raises as `call` does."""
        return self._closed_until is not None and self._admit()

    def leave(self, probe: bool, error: BaseException | None) -> None:
        """After an operation: how it ended."""
        if error is None:
            if self._closed_until is not None:
                self._ended(down=False, probe=probe)
            return
        down = isinstance(error, StoreError) and error.code in UNREACHABLE
        if down or probe:
            self._ended(down, probe)

    def _admit(self) -> bool:
        with self._lock:
            if self._closed_until is None:
                return False
            if self._probing or self._clock() < self._closed_until:
                raise StoreError("store.down")
            self._probing = True
            return True

    def _ended(self, down: bool, probe: bool) -> None:
        with self._lock:
            if probe:
                self._probing = False
            self._closed_until = self._clock() + self._pause if down else None
