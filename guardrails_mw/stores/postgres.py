"""A store in PostgreSQL, for many processes on many machines, where the log has to be kept and queried.

Every operation is one statement, committed before it returns; what has to be decided in between is decided in
functions that live in the database (see `guardrails_mw.stores.postgres_schema`). How long writes last is the
server's configuration, by default ``synchronous_commit = on``: they survive a power cut. No statement is sent
twice: where a connection breaks in the middle, the caller is told, and what was asked may have happened.

Needs the extra ``postgres``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, cast

from guardrails_mw.errors import StoreError
from guardrails_mw.store import AGAIN, Again, Claim, Entry, Refusal, RunSummary
from guardrails_mw.stores.breaker import Breaker
from guardrails_mw.stores.claims import one_each, refusal, times
from guardrails_mw.stores.postgres_schema import MIGRATIONS
from guardrails_mw.stores.postgres_server import PostgresServer
from guardrails_mw.stores.postgres_wire import Wire
from guardrails_mw.stores.prefix import beyond
from guardrails_mw.stores.schema import Schema

__all__ = ["PostgresStore"]

_PAGE = 500
_LOCK = 0x67756172  # "guar": of those who migrate at once, one does
_LARGEST = 2**63 - 1
_PAUSE = 60.0
"""Seconds between two looks at a thousand holds for those that nobody has settled."""

_APPEND = "SELECT * FROM guardrails.append($1, $2, $3, $4, $5, $6, $7)"
_APPEND_FORMATS = (0, 0, 0, 0, 0, 1, 1)
_ENTRY = "SELECT run, seq, key, at, kind, body, prev, hash FROM guardrails.log WHERE run = $1"
_RESERVE = "SELECT guardrails.reserve($1, $2, $3, $4, $5)"
_FORGET = "SELECT guardrails.forget($1, $2)"
_SETTLE = "SELECT guardrails.settle($1, $2, $3, $4)"


class PostgresStore:
    """A store in a PostgreSQL server, from version 12 on, with an encoding of UTF-8. See `Store` for its promises.

    Args:
        url: ``postgresql://user:password@host:port/database?sslmode=verify-full``, as libpq reads it.
        durability: ``process``: as the server is configured. ``power``: ``synchronous_commit`` is turned on
            for this store's connections, and a server without ``fsync`` is refused.
        timeout: seconds that connecting or an answer may take.
        connections: most connections of this process; further callers wait for one of them.
        breaker: when to stop asking a server that does not answer.

    Raises:
        PolicyError: not a URL of a PostgreSQL server, or the extra is missing.
        StoreError: ``store.unreachable``, ``store.timeout``, ``store.denied`` (user, password or rights),
            ``store.newer_version``, ``store.older_version`` (and no right to migrate it), ``store.not_ours``,
            ``store.not_durable``; later also ``store.lost``, ``store.down`` (not asked, because the server was
            away a moment ago), ``store.busy``, ``store.full``, ``store.read_only``, ``store.io``,
            ``store.corrupt``, ``store.value``, ``store.closed``, ``store.failed``.
    """

    VERSION = len(MIGRATIONS)
    """The newest version of the schema."""

    def __init__(
        self,
        url: str,
        durability: Literal["process", "power"] = "process",
        *,
        timeout: float = 3.0,
        connections: int = 8,
        breaker: Breaker | None = None,
    ) -> None:
        self._looked, self._after = -math.inf, ""
        setup = _setup(timeout) + ("; SET synchronous_commit = on" if durability == "power" else "")
        self._server = PostgresServer(url, setup, timeout, connections, breaker or Breaker())
        try:
            _migrate(self._server)
            if durability == "power" and _setting(self._server, "fsync") != "on":
                raise StoreError("store.not_durable")
        except BaseException:
            self._server.close()
            raise

    @property
    def blocking(self) -> bool:
        """Every call waits for the network."""
        return True

    # the log

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        """Add an entry to a run's chain; with a key that the run has, return what is there instead."""
        at = float(at)
        if not math.isfinite(at):
            raise StoreError("store.value")
        # the two pieces of `ledger.link` that do not depend on the chain; a hash has 64 digits
        middle = f" {at + 0.0!r} 64 {len(run)} {len(key)} {len(kind)} {len(body)}\n".encode()
        try:
            tail = f"{run}{key}{kind}{body}".encode()
        except UnicodeEncodeError:
            raise StoreError("store.value") from None
        texts = (_kept(run), _kept(key), at, _kept(kind), _kept(body))
        try:
            [row] = self._server.query(_APPEND, (*texts, middle, tail), _APPEND_FORMATS)
        except StoreError as error:
            if error.code != "store.constraint":
                raise
            [row] = self._server.query(f"{_ENTRY} AND key = $2", (texts[0], texts[1]))  # another was first
        return _entry(row)

    def read(self, run: str, after: int = 0) -> Iterator[Entry]:
        """The entries of a run with a sequence number above `after`, in order; read page by page."""
        query = f"{_ENTRY} AND seq > $2 ORDER BY seq LIMIT {_PAGE}"
        while True:
            rows = self._server.query(query, (_kept(run), after))
            for row in rows:
                yield _entry(row)
            if len(rows) < _PAGE:
                return
            after = cast("int", rows[-1][1])

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""
        query = "SELECT run, first, last, seq FROM guardrails.run ORDER BY last DESC, run LIMIT $1"
        rows = cast("list[tuple[str, float, float, int]]", self._server.query(query, (max(limit, 0),)))
        return [RunSummary(_given(run), first, last, count) for run, first, last, count in rows]

    # the counter

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        """Hold all claims or none; see `Store.reserve`."""
        expires, stale = times(now, ttl)
        if abs(now - self._looked) >= _PAUSE:
            self._forget(now, stale)
        asked = one_each(claims, _LARGEST)  # sorted: rows are locked in one order, whoever asks
        scopes = [claim.scope for claim in asked]
        amounts = _numbers([claim.amount for claim in asked])
        rooms = _numbers([claim.cap - claim.amount for claim in asked])
        answer = self._server.query(_RESERVE, (_kept(key), _texts(scopes), amounts, rooms, repr(expires)))
        [[used]] = cast("list[tuple[list[int] | None]]", answer)
        if used == []:
            return AGAIN
        return None if used is None else refusal(claims, dict(zip(scopes, used, strict=True)), _LARGEST)

    def _forget(self, now: float, stale: float) -> None:
        """Forget holds whose time was over then, among the next thousand."""
        self._looked = now
        [[self._after]] = cast("list[tuple[str]]", self._server.query(_FORGET, (self._after, stale)))

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used; see `Store.settle`."""
        if min(amounts.values(), default=0) < 0:
            raise StoreError("store.value")
        return self._closed(key, _texts(list(amounts)), _numbers(list(amounts.values())), "f")

    def release(self, key: str) -> bool:
        """Drop a hold and forget its key; see `Store.release`."""
        return self._closed(key, "{}", "{}", "t")

    def _closed(self, key: str, units: str, amounts: str, forget: str) -> bool:
        [[held]] = self._server.query(_SETTLE, (_kept(key), units, amounts, forget))
        return cast("bool", held)

    def used(self, scope: str) -> int:
        """Charged plus held."""
        rows = self._server.query("SELECT amount FROM guardrails.used WHERE scope = $1", (_kept(scope),))
        return cast("int", rows[0][0]) if rows else 0

    # the register

    def get(self, key: str) -> str | None:
        """The value under a key, or None."""
        rows = self._server.query("SELECT value FROM guardrails.register WHERE key = $1", (_kept(key),))
        return _given(cast("str", rows[0][0])) if rows else None

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Set a key if it holds what is expected (None: absent), in one step. `new=None` deletes."""
        name, old, value = _kept(key), _kept(expected or ""), _kept(new or "")
        if expected is None:
            if new is None:
                return self.get(key) is None
            query = "INSERT INTO guardrails.register (key, value, due) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
            return bool(self._server.query(query + " RETURNING 1", (name, value, due)))
        if new is None:
            query = "DELETE FROM guardrails.register WHERE key = $1 AND value = $2 RETURNING 1"
            return bool(self._server.query(query, (name, old)))
        query = "UPDATE guardrails.register SET value = $3, due = $4 WHERE key = $1 AND value = $2 RETURNING 1"
        return bool(self._server.query(query, (name, old, value, due)))

    def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with a prefix, oldest first."""
        return self._named(prefix, "true", "id", ())

    def due(self, prefix: str, before: float) -> Sequence[str]:
        """Keys under a prefix whose `due` has come, earliest first."""
        return self._named(prefix, "due <= $2", "due, id", (float(before),))

    def _named(self, prefix: str, where: str, order: str, args: tuple[float, ...]) -> Sequence[str]:
        start = _kept(prefix)
        end = beyond(start)
        below, more = ("true", ()) if end is None else (f"key < ${len(args) + 2}", (end,))
        where = f"key >= $1 AND {below} AND {where}"
        query = f"SELECT key FROM guardrails.register WHERE {where} ORDER BY {order}"  # noqa: S608 - constants of ours
        return [_given(cast("str", row[0])) for row in self._server.query(query, (start, *args, *more))]

    def close(self) -> None:
        """Close the connections. Closing twice is harmless; any other use afterwards is ``store.closed``."""
        self._server.close()

    @classmethod
    def schema(cls, url: str) -> Schema:
        """What a database has, without changing it. Raises `StoreError`, `PolicyError`."""
        server = PostgresServer(url, _setup(3.0), 3.0, 1, Breaker())
        try:
            return Schema(_version(server), cls.VERSION, tuple(_notes(server)))
        finally:
            server.close()


def _setup(timeout: float) -> str:
    """What each connection is set to.

    The server ends a statement before we stop waiting for it, so that a busy server is not taken for a dead one. A
    plan that was made while a table was small stays when it is large, so it may not be to read the whole table.
    """
    limit = max(1, round(timeout * 900))
    plans = "SET default_transaction_isolation = 'read committed'; SET enable_seqscan = off"
    return f"SET statement_timeout = {limit}; SET client_encoding = 'UTF8'; SET search_path = pg_catalog; {plans}"


def _kept(text: str) -> str:
    """A text as PostgreSQL can hold it: it has no NUL. What begins alike still does, and order is not needed."""
    if "\x00" in text or "\x1b" in text:
        return text.replace("\x1b", "\x1b\x1b").replace("\x00", "\x1b0")
    return text


def _given(text: str) -> str:
    if "\x1b" not in text:
        return text
    return "\x1b".join(piece.replace("\x1b0", "\x00") for piece in text.split("\x1b\x1b"))


def _entry(row: tuple[object, ...]) -> Entry:
    run, seq, key, at, kind, body, prev, hash_ = cast("tuple[str, int, str, float, str, str, str, str]", row)
    return Entry(_given(run), seq, _given(key), at, _given(kind), _given(body), prev, hash_)


def _texts(texts: Sequence[str]) -> str:
    """Texts, as PostgreSQL can hold them, in the writing of an array."""
    together = "".join(texts)
    if '"' in together or "\\" in together or "\x00" in together or "\x1b" in together:
        texts = [_kept(text).replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(texts) + '"}' if texts else "{}"


def _numbers(numbers: list[int]) -> str:
    """Integers in the writing of an array."""
    return "{" + str(numbers)[1:-1] + "}"


def _setting(server: PostgresServer, name: str) -> str:
    [[found]] = server.query("SELECT current_setting($1)", (name,))
    return str(found)


def _notes(server: PostgresServer) -> Iterator[str]:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    yield ", ".join(f"{name} is {_setting(server, name)}" for name in names)
    if _setting(server, "server_encoding") != "UTF8":
        yield "server_encoding is not UTF8: texts that the database has no letters for are refused"


def _version(server: PostgresServer) -> int:
    """Version of the schema that is there, 0 for none. Raises `StoreError`, also where it belongs to something else."""
    [[schema, table]] = server.query(
        "SELECT count(*), to_regclass('guardrails.version')::text FROM pg_namespace WHERE nspname = 'guardrails'"
    )
    if not schema:
        return 0
    if table is None:
        raise StoreError("store.not_ours")
    [[number]] = server.query("SELECT number FROM guardrails.version")
    return cast("int", number)


def _migrate(server: PostgresServer) -> None:
    """Bring a database to the newest schema. Several processes may do it at once: one does, the others find it done."""
    found = _version(server)
    if found < len(MIGRATIONS):
        try:
            found = server.run(_raise)
        except StoreError as error:
            if error.code == "store.denied":
                raise StoreError("store.older_version") from None
            raise
    if found > len(MIGRATIONS):
        raise StoreError("store.newer_version")


def _raise(wire: Wire) -> int:
    """Raise the schema, in one transaction; the version that was found once nobody else was at it."""
    found = 0
    wire.script("BEGIN; SET LOCAL statement_timeout = 0")
    wire.query("SELECT pg_advisory_xact_lock($1)", (_LOCK,))
    wire.script("CREATE SCHEMA IF NOT EXISTS guardrails")
    if wire.query("SELECT 1 WHERE to_regclass('guardrails.version') IS NOT NULL"):
        [[found]] = cast("list[tuple[int]]", wire.query("SELECT number FROM guardrails.version"))
    for step in MIGRATIONS[found:]:
        wire.script(step)
    if found < len(MIGRATIONS):
        wire.query("UPDATE guardrails.version SET number = $1", (len(MIGRATIONS),))
    wire.script("COMMIT")
    return found
