"""One connection to a PostgreSQL server, asked through libpq itself.

psycopg makes the connection. Its cursors find out anew for every statement what is known here beforehand: that
statements are few, so that each is prepared once, and that what they take and give are integers, floats, truths,
texts and arrays of integers. That took more than a third of the time of a reservation.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from guardrails_mw.errors import PolicyError, StoreError

if TYPE_CHECKING:
    from psycopg import Connection, Error
    from psycopg.pq.abc import PGconn, PGresult
    from psycopg.rows import TupleRow

__all__ = ["Arg", "Row", "Wire"]

Arg = str | bytes | int | float | None
Row = tuple[object, ...]
Ready = Callable[[float], object]
"""Waits for at most so many milliseconds; what it returns is true when there is something to do."""

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
_GIVEN: dict[int, Callable[[bytes], object]] = {
    16: lambda value: value == b"t",
    20: int,
    21: int,
    23: int,
    701: float,
    1016: lambda value: [int(number) for number in value[1:-1].split(b",") if number],
}
"""How values are read, by the number that PostgreSQL gives their type; every other one is a text."""
# what psycopg.pq names, without importing it
_IDLE = 0
_OPEN = 0
_DONE = (1, 2)
_SQLSTATE = ord("C")


class Wire:
    """A connection. Raises `StoreError`; it is `idle` after that if the server has answered with an error.

    Args:
        url: as libpq reads it.
        setup: statements for the new connection.
        timeout: seconds that connecting or an answer may take.

    Raises:
        PolicyError: the URL cannot be read, or the extra is missing.
        StoreError: there is no connection.
    """

    def __init__(self, url: str, setup: str, timeout: float) -> None:
        self._timeout = timeout
        self._statements: dict[str, _Statement] = {}
        self._numbers = itertools.count()
        self._db = _connected(url, timeout)
        self._conn: PGconn = self._db.pgconn
        self._read, self._written = _waiters(self._conn.socket)
        self._trouble = self._db.Error
        try:
            self.script(setup)
        except BaseException:
            self.close()
            raise

    @property
    def idle(self) -> bool:
        """Whether it can be asked something."""
        return self._conn.transaction_status == _IDLE

    @property
    def gone(self) -> bool:
        """Whether it is closed, or something came that nobody asked for: the server said farewell."""
        return self._conn.status != _OPEN or bool(self._read(0.0))

    def query(self, sql: str, args: Sequence[Arg] = (), formats: Sequence[int] | None = None) -> list[Row]:
        """The rows that one statement gives. It is a transaction of its own, where none was begun.

        Args:
            sql: the statement, with ``$1`` for the first argument.
            args: the arguments. A text has no NUL.
            formats: 1 for each argument that is of type bytea, 0 for every other; None where there are none.
        """
        sent = _sent(args)
        statement = self._statements.get(sql)
        if statement is None:
            statement = _Statement(b"s%d" % next(self._numbers))
            self._answer(self._conn.send_prepare, statement.name, sql.encode())
            self._statements[sql] = statement
        return statement.rows(self._answer(self._conn.send_query_prepared, statement.name, sent, formats))

    def script(self, sql: str) -> None:
        """Run several statements, without arguments."""
        self._answer(self._conn.send_query, sql.encode())

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(Exception):
            self._db.close()

    def _answer(self, send: Callable[..., None], *args: object) -> PGresult:
        conn, until = self._conn, time.monotonic() + self._timeout
        answer: PGresult | None = None
        try:
            send(*args)
            while conn.flush():  # more than the network takes at once
                self._wait(self._written, until)
                conn.consume_input()
            while True:
                while conn.is_busy():
                    self._wait(self._read, until)
                    conn.consume_input()
                result = conn.get_result()
                if result is None:
                    break
                answer = result
        except self._trouble as error:
            raise _sorted_out(error) from None
        if answer is None:
            raise StoreError("store.lost")
        if answer.status not in _DONE:
            state = (answer.error_field(_SQLSTATE) or b"").decode()  # none, where the connection broke
            raise StoreError(_code(state) if state else "store.unreachable")
        return answer

    def _wait(self, ready: Ready, until: float) -> None:
        if not ready(max(0.0, until - time.monotonic()) * 1000):
            self._conn.finish()
            raise StoreError("store.timeout")


class _Statement:
    """A prepared statement: its name, and how the columns of its rows are read, once there was an answer."""

    __slots__ = ("_columns", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self._columns: list[tuple[int, Callable[[bytes], object]]] | None = None

    def rows(self, result: PGresult) -> list[Row]:
        if self._columns is None:
            self._columns = [(at, _GIVEN.get(result.ftype(at), bytes.decode)) for at in range(result.nfields)]
        found: list[Row] = []
        for row in range(result.ntuples):
            values: list[object] = []
            for at, read in self._columns:
                value = result.get_value(row, at)
                values.append(None if value is None else read(value))
            found.append(tuple(values))
        return found


def _connected(url: str, timeout: float) -> Connection[TupleRow]:
    try:
        from psycopg import Connection, Error
    except ImportError:
        raise PolicyError("postgresql: needs pip install 'guardrails-mw[postgres]'", field="store") from None
    try:
        return Connection.connect(
            url, autocommit=True, connect_timeout=max(2, round(timeout)), application_name="guardrails-mw"
        )
    except Error as error:
        raise _sorted_out(error) from None


def _waiters(socket: int) -> tuple[Ready, Ready]:
    """Waiting for something to read; and for that or room to write."""
    if not hasattr(select, "poll"):
        return (
            lambda most: any(select.select([socket], [], [], most / 1000)),
            lambda most: any(select.select([socket], [socket], [], most / 1000)),
        )
    reads, both = select.poll(), select.poll()
    reads.register(socket, select.POLLIN)
    both.register(socket, select.POLLIN | select.POLLOUT)
    return reads.poll, both.poll


def _sent(args: Sequence[Arg]) -> list[bytes | None]:
    try:
        sent = [arg.encode() if isinstance(arg, str) else _plain(arg) for arg in args]
    except UnicodeEncodeError:
        raise StoreError("store.value") from None
    return sent


def _plain(arg: bytes | float | None) -> bytes | None:
    return arg if arg is None or isinstance(arg, bytes) else repr(arg).encode()


def _sorted_out(error: Error) -> StoreError | PolicyError:
    """An error of the client as one of ours; its text may hold keys, values and addresses."""
    from psycopg import errors

    if isinstance(error, errors.ConnectionTimeout):
        return StoreError("store.timeout")
    if isinstance(error, errors.ProgrammingError) and error.sqlstate is None:  # the URL cannot be read
        return PolicyError("not a URL of a PostgreSQL server", field="store")
    unnamed = "store.unreachable" if isinstance(error, errors.OperationalError) else "store.failed"
    return StoreError(_code(error.sqlstate) if error.sqlstate else unnamed)


def _code(state: str) -> str:
    return _CODES.get(state) or _CODES.get(state[:2]) or "store.failed"
