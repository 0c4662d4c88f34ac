"""The connections to a PostgreSQL server: a small pool, time limits, and what goes wrong sorted out."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.stores.breaker import Breaker, forget_in_children

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.abc import PQGen
    from psycopg.rows import TupleRow

__all__ = ["PostgresServer"]

T = TypeVar("T")
Row = tuple[object, ...]

_CODES = {
    "08": "store.lost",
    "28": "store.denied",
    "3D": "store.denied",  # no such database
    "42501": "store.denied",
    "22": "store.value",
    "23": "store.constraint",
    "25006": "store.read_only",
    "40": "store.busy",
    "53100": "store.full",
    "53": "store.busy",  # too many connections, no memory
    "55P03": "store.busy",  # waited too long for a lock
    "57014": "store.busy",  # ran too long
    "57": "store.unreachable",  # shutting down, starting up
    "58": "store.io",
    "XX": "store.corrupt",
}


class PostgresServer:
    """A server at a URL. Raises `StoreError` only, and sends nothing twice.

    Args:
        url: see `PostgresStore`.
        setup: statement for every new connection.
        timeout: seconds that connecting, an answer, or waiting for a free connection may take.
        connections: most connections of this process.
        breaker: when to stop asking.
    """

    def __init__(self, url: str, setup: str, timeout: float, connections: int, breaker: Breaker) -> None:
        self._url, self._setup, self._timeout = _checked(url), setup, timeout
        self._most, self._breaker = connections, breaker
        self._type = _connection_type(timeout)
        self._closed = False
        self._fresh()
        forget_in_children(self)

    def _fresh(self) -> None:
        self._lock, self._free = threading.Lock(), threading.Semaphore(self._most)
        self._idle: list[Connection[TupleRow]] = []

    def forget(self) -> None:
        """In a forked child: never use, nor close, what belongs to the parent."""
        _orphans.append(self._idle)
        self._fresh()
        self._breaker = Breaker()

    def query(self, sql: str, args: Sequence[object] = ()) -> list[Row]:
        """The rows that one statement gives; the statement is a transaction of its own."""
        with self.session() as db:
            cursor = db.execute(sql, args, prepare=True)
            return cursor.fetchall() if cursor.description is not None else []

    @contextmanager
    def session(self) -> Iterator[Connection[TupleRow]]:
        """A connection, for more than one statement."""
        if self._closed:
            raise StoreError("store.closed")
        if not self._free.acquire(timeout=self._timeout):
            raise StoreError("store.busy")
        try:
            with self._breaker.call(), _sorted_out():
                db = self._taken()
                try:
                    yield db
                except BaseException:
                    self._give(db, broken=db.pgconn.transaction_status != _IDLE)
                    raise
                self._give(db, broken=False)
        finally:
            self._free.release()

    def close(self) -> None:
        """Close the connections. Closing twice is harmless; any other use afterwards is ``store.closed``."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def _taken(self) -> Connection[TupleRow]:
        """A connection that nobody uses, or a new one. One that the server has closed meanwhile is dropped."""
        while True:
            with self._lock:
                db = self._idle.pop() if self._idle else None
            if db is None:
                return self._connected()
            if not db.closed and not _readable(db.pgconn.socket):
                return db
            db.close()

    def _give(self, db: Connection[TupleRow], broken: bool) -> None:
        with self._lock:
            if not broken and not self._closed:
                self._idle.append(db)
                return
        with contextlib.suppress(Exception):
            db.close()

    def _connected(self) -> Connection[TupleRow]:
        db = self._type.connect(
            self._url, autocommit=True, connect_timeout=max(2, round(self._timeout)), application_name="guardrails-mw"
        )
        try:
            db.execute(self._setup.encode())
        except BaseException:
            db.close()
            raise
        return db


_IDLE = 0
_orphans: list[object] = []


def _checked(url: str) -> str:
    """A port that is no number: libpq says only that it cannot connect."""
    try:
        place = urlsplit(url)
        _ = "," in place.netloc or place.port  # several servers are told apart by libpq
    except ValueError:  # its text may hold the password
        raise PolicyError("not a URL of a PostgreSQL server", field="store") from None
    return url


def _readable(socket: int) -> bool:
    """Whether something came that nobody asked for: the server said farewell."""
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


@cache
def _connection_type(timeout: float) -> type[Connection[TupleRow]]:
    """A connection that gives up an answer after a time, and with it itself: psycopg would wait for ever."""
    try:
        from psycopg import Connection
        from psycopg.errors import OperationalError
    except ImportError:
        raise PolicyError("postgresql: needs pip install 'guardrails-mw[postgres]'", field="store") from None

    class Hasty(Connection["TupleRow"]):
        def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = timeout) -> T:
            """Wait for an answer."""
            until = time.monotonic() + (timeout or 0.0)
            try:
                return super().wait(gen, interval, timeout)
            except OperationalError:
                if timeout is not None and time.monotonic() >= until and not self.closed:
                    self.pgconn.finish()
                    raise StoreError("store.timeout") from None
                raise

    return Hasty


@contextmanager
def _sorted_out() -> Iterator[None]:
    """Errors of the client as codes; their texts may hold keys, values and addresses."""
    from psycopg import errors

    try:
        yield
    except errors.ConnectionTimeout:
        raise StoreError("store.timeout") from None
    except errors.ProgrammingError as error:
        if error.sqlstate is None:  # the URL cannot be read
            raise PolicyError("not a URL of a PostgreSQL server", field="store") from None
        raise StoreError(_code(error.sqlstate)) from None
    except errors.Error as error:
        unnamed = "store.unreachable" if isinstance(error, errors.OperationalError) else "store.failed"
        raise StoreError(_code(error.sqlstate) if error.sqlstate else unnamed) from None
    except (UnicodeEncodeError, OverflowError):
        raise StoreError("store.value") from None


def _code(state: str) -> str:
    return _CODES.get(state) or _CODES.get(state[:2]) or "store.failed"
