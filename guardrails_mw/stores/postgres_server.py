"""The connections to a PostgreSQL server: a small pool, and a breaker before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.forks import forget_in_children
from guardrails_mw.stores.breaker import Breaker
from guardrails_mw.stores.postgres_wire import Arg, Row, Wire

__all__ = ["PostgresServer"]

P = ParamSpec("P")
T = TypeVar("T")


class PostgresServer:
    """A server at a URL. Raises `StoreError` only, and sends nothing twice.

    Args:
        url: see `PostgresStore`.
        setup: statements for every new connection.
        timeout: seconds that connecting, an answer, or waiting for a free connection may take.
        connections: most connections of this process.
        breaker: when to stop asking.
    """

    def __init__(self, url: str, setup: str, timeout: float, connections: int, breaker: Breaker) -> None:
        self._url, self._setup, self._timeout = _checked(url), setup, timeout
        self._most, self._breaker = connections, breaker
        self._closed = False
        self._fresh()
        forget_in_children(self)

    def _fresh(self) -> None:
        # as many tokens as there may be connections; those that are not in use are appended and popped in one step
        self._tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._most):
            self._tokens.put(None)
        self._idle: list[Wire] = []

    def forget(self) -> None:
        """In a forked child: never use, nor close, what belongs to the parent."""
        _orphans.append(self._idle)
        self._fresh()
        self._breaker = Breaker()

    def query(self, sql: str, args: Sequence[Arg] = (), formats: Sequence[int] | None = None) -> list[Row]:
        """The rows that one statement gives; see `Wire.query`."""
        return self.run(Wire.query, sql, args, formats)

    def run(self, work: Callable[Concatenate[Wire, P], T], *args: P.args, **keys: P.kwargs) -> T:
        """What some work with a connection gives, which may be more than one statement."""
        if self._closed:
            raise StoreError("store.closed")
        try:
            self._tokens.get(timeout=self._timeout)
        except Empty:
            raise StoreError("store.busy") from None
        try:
            probe = self._breaker.enter()
            try:
                wire = self._taken()
                try:
                    found = work(wire, *args, **keys)
                finally:
                    self._give(wire)
            except BaseException as error:
                self._breaker.leave(probe, error)
                raise
            self._breaker.leave(probe, None)
            return found
        finally:
            self._tokens.put(None)

    def close(self) -> None:
        """Close the connections. Closing twice is harmless; any other use afterwards is ``store.closed``."""
        self._closed = True
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _taken(self) -> Wire:
        """A connection that nobody uses, or a new one. One that the server has closed meanwhile is dropped."""
        while self._idle:
            try:
                wire = self._idle.pop()
            except IndexError:  # another thread was first
                break
            if not wire.gone:
                return wire
            wire.close()
        return Wire(self._url, self._setup, self._timeout)

    def _give(self, wire: Wire) -> None:
        """Keep a connection for the next, unless it is in the middle of something."""
        if not wire.idle:
            wire.close()
            return
        self._idle.append(wire)
        if self._closed:  # meanwhile
            self.close()


_orphans: list[object] = []


def _checked(url: str) -> str:
    """A port that is no number: libpq says only that it cannot connect."""
    try:
        place = urlsplit(url)
        _ = "," in place.netloc or place.port  # several servers are told apart by libpq
    except ValueError:  # its text may hold the password
        raise PolicyError("not a URL of a PostgreSQL server", field="store") from None
    return url
