"""Requests that wait for a gate to come back, where the policy says `on_error: queue`.

Whoever waits is in the register under ``queue:``, so that people see it, and leaves when the wait is over. An entry
whose process died stays until its time is over, and is taken out by the next that looks.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from guardrails_mw.errors import GateError, StoreError
from guardrails_mw.store import Store

__all__ = ["Backlog", "Waiting"]

_PREFIX = "queue:"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a gate.

    Attributes:
        gate: the gate that did not answer, by its name in the policy.
        stage: where the request stands.
        run: the run it belongs to; empty outside of one.
        code: how the gate failed, as a reason code.
        since: when it began to wait, in seconds since the epoch.
        until: when it gives up.
    """

    gate: str
    stage: str
    run: str
    code: str
    since: float
    until: float


class Backlog:
    """The requests of this process that wait, and in the register those of all.

    Args:
        store: where they are shown.
        limit: most that may wait in this process at once.
        clock: seconds since the epoch.
    """

    def __init__(self, store: Store, limit: int = 64, clock: Callable[[], float] = time.time) -> None:
        self._store, self._limit, self._clock = store, limit, clock
        self._lock = threading.Lock()
        self._waiting = 0

    @contextmanager
    def place(self, waiting: Waiting) -> Iterator[None]:
        """A place among those who wait, while the block runs. Raises `GateError` (``queue_full``).

        A store that fails shows nobody; the wait goes on, because it permits nothing.
        """
        with self._lock:
            if self._waiting >= self._limit:
                raise GateError("queue_full")
            self._waiting += 1
        key, body = f"{_PREFIX}{secrets.token_hex(8)}", json.dumps(asdict(waiting))
        try:
            with suppress(StoreError):
                self._store.swap(key, None, body, waiting.until)
            yield
        finally:
            with suppress(StoreError):
                self._store.swap(key, body, None)
            with self._lock:
                self._waiting -= 1

    def waiting(self) -> Sequence[Waiting]:
        """Who waits now, in any process, oldest first. Raises `StoreError`."""
        found = []
        for key in self._store.keys(_PREFIX):
            kept = self._store.get(key)
            if kept is None:
                continue
            entry = Waiting(**json.loads(kept))
            if entry.until + 60.0 < self._clock():  # its process is gone; a last question may outlast the wait a little
                self._store.swap(key, kept, None)
            else:
                found.append(entry)
        return found
