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
from guardrails_mw.store import Claim, Entry, Refusal, RunSummary
from guardrails_mw.stores.breaker import Breaker
from guardrails_mw.stores.postgres_schema import MIGRATIONS
from guardrails_mw.stores.postgres_server import PostgresServer
from guardrails_mw.stores.prefix import beyond
from guardrails_mw.stores.schema import Schema

__all__ = ["PostgresStore"]

_PAGE = 500
_LOCK = 0x67756172  # "guar": of those who migrate at once, one does
_LARGEST = 2**63 - 1

_APPEND = "SELECT * FROM guardrails.append(%s, %s, %s, %s, %s, %b, %b)"
_ENTRY = "SELECT run, seq, key, at, kind, body, prev, hash FROM guardrails.log WHERE run = %s"
_RESERVE = (
    "SELECT place, taken FROM "
    "guardrails.reserve(%s, %s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::float8, %s::float8)"
)
_SETTLE = "SELECT guardrails.settle(%s, %s::text[], %s::bigint[], %s::bool)"


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
            [row] = self._server.query(_APPEND, (*texts, middle, tail))
        except StoreError as error:
            if error.code != "store.constraint":
                raise
            [row] = self._server.query(f"{_ENTRY} AND key = %s", (texts[0], texts[1]))  # another was first
        return _entry(row)

    def read(self, run: str, after: int = 0) -> Iterator[Entry]:
        """The entries of a run with a sequence number above `after`, in order; read page by page."""
        query = f"{_ENTRY} AND seq > %s ORDER BY seq LIMIT {_PAGE}"
        while True:
            rows = self._server.query(query, (_kept(run), after))
            for row in rows:
                yield _entry(row)
            if len(rows) < _PAGE:
                return
            after = cast("int", rows[-1][1])

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""
        query = "SELECT run, first, last, seq FROM guardrails.run ORDER BY last DESC, run LIMIT %s"
        rows = cast("list[tuple[str, float, float, int]]", self._server.query(query, (max(limit, 0),)))
        return [RunSummary(_given(run), first, last, count) for run, first, last, count in rows]

    # the counter

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | None:
        """Hold all claims or none; see `Store.reserve`."""
        priors: list[int] = []
        claimed: dict[str, int] = {}
        for claim in claims:
            priors.append(claimed.get(claim.scope, 0))
            claimed[claim.scope] = priors[-1] + claim.amount
        scopes = [_kept(claim.scope) for claim in claims]
        amounts, caps = _amounts([c.amount for c in claims]), _integers([c.cap for c in claims])
        args = (_kept(key), scopes, amounts, caps, _amounts(priors), float(now), float(now + ttl))
        for place, taken in cast("list[tuple[int, int]]", self._server.query(_RESERVE, args)):
            refused = claims[place - 1]
            return Refusal(refused.scope, refused.cap, taken, refused.amount)
        return None

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used; see `Store.settle`."""
        units = [_kept(unit) for unit in amounts]
        return self._closed(_kept(key), units, _amounts(list(amounts.values())), False)

    def release(self, key: str) -> bool:
        """Drop a hold and forget its key; see `Store.release`."""
        return self._closed(_kept(key), [], "{}", True)

    def _closed(self, key: str, units: list[str], amounts: str, forget: bool) -> bool:
        [[closed]] = self._server.query(_SETTLE, (key, units, amounts, forget))
        return closed != 0

    def used(self, scope: str) -> int:
        """Charged plus held."""
        rows = self._server.query("SELECT amount FROM guardrails.used WHERE scope = %s", (_kept(scope),))
        return cast("int", rows[0][0]) if rows else 0

    # the register

    def get(self, key: str) -> str | None:
        """The value under a key, or None."""
        rows = self._server.query("SELECT value FROM guardrails.register WHERE key = %s", (_kept(key),))
        return _given(cast("str", rows[0][0])) if rows else None

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Set a key if it holds what is expected (None: absent), in one step. `new=None` deletes."""
        name, old, value = _kept(key), _kept(expected or ""), _kept(new or "")
        if expected is None:
            if new is None:
                return self.get(key) is None
            query = "INSERT INTO guardrails.register (key, value, due) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
            return bool(self._server.query(query + " RETURNING 1", (name, value, due)))
        if new is None:
            query = "DELETE FROM guardrails.register WHERE key = %s AND value = %s RETURNING 1"
            return bool(self._server.query(query, (name, old)))
        query = "UPDATE guardrails.register SET value = %s, due = %s WHERE key = %s AND value = %s RETURNING 1"
        return bool(self._server.query(query, (value, due, name, old)))

    def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with a prefix, oldest first."""
        return self._named("true", prefix, (), "id")

    def due(self, prefix: str, before: float) -> Sequence[str]:
        """Keys under a prefix whose `due` has come, earliest first."""
        return self._named("due <= %s", prefix, (float(before),), "due, id")

    def _named(self, where: str, prefix: str, args: tuple[float, ...], order: str) -> Sequence[str]:
        start = _kept(prefix)
        end = beyond(start)
        bounds, more = ("key >= %s", (start,)) if end is None else ("key >= %s AND key < %s", (start, end))
        query = f"SELECT key FROM guardrails.register WHERE {where} AND {bounds} ORDER BY {order}"  # noqa: S608
        return [_given(cast("str", row[0])) for row in self._server.query(query, (*args, *more))]

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
    """The server ends a statement before we stop waiting for it, so that a busy server is not taken for a dead one."""
    limit = max(1, round(timeout * 900))
    return f"SET statement_timeout = {limit}; SET client_encoding = 'UTF8'; SET search_path = pg_catalog"


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


def _amounts(amounts: Sequence[int]) -> str:
    if any(amount < 0 for amount in amounts):
        raise StoreError("store.value")
    return _integers(amounts)


def _integers(numbers: Sequence[int]) -> str:
    """Numbers as the text of an array."""
    if any(abs(number) > _LARGEST for number in numbers):
        raise StoreError("store.value")
    return "{" + ",".join(map(str, numbers)) + "}"


def _setting(server: PostgresServer, name: str) -> str:
    [[found]] = server.query("SELECT current_setting(%s)", (name,))
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
            with server.session() as db, db.transaction():
                db.execute("SET LOCAL statement_timeout = 0")
                db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                db.execute("CREATE SCHEMA IF NOT EXISTS guardrails")
                [exists] = db.execute("SELECT to_regclass('guardrails.version') IS NOT NULL").fetchall()
                if exists[0]:
                    found = db.execute("SELECT number FROM guardrails.version").fetchall()[0][0]
                for step in MIGRATIONS[found:]:
                    db.execute(step.encode())
                if found < len(MIGRATIONS):
                    db.execute("UPDATE guardrails.version SET number = %s", (len(MIGRATIONS),))
        except StoreError as error:
            if error.code == "store.denied":
                raise StoreError("store.older_version") from None
            raise
    if found > len(MIGRATIONS):
        raise StoreError("store.newer_version")
