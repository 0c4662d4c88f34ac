"""The default store: one SQLite file, safe with several threads, processes and forks.

The file is in WAL mode. Every change is one statement or one ``BEGIN IMMEDIATE`` transaction, which holds
the write lock before it reads, so nothing is decided on what another process is about to change. That is
also why no chain head or counter is kept in memory.

The log is append-only by three triggers: one against UPDATE, one against DELETE and one against INSERT OR
REPLACE, which deletes rows without firing the second. They stop mistakes and ordinary clients; whoever may
write the file may also drop them, which the hash chain then shows (see `guardrails_mw.ledger`).
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from guardrails_mw.errors import StoreError
from guardrails_mw.forks import forget_in_children
from guardrails_mw.ledger import GENESIS, link
from guardrails_mw.store import Claim, Entry, Refusal, RunSummary, unit_of
from guardrails_mw.stores.claims import one_each, refusal, times
from guardrails_mw.stores.prefix import beyond
from guardrails_mw.stores.schema import Schema

__all__ = ["SqliteStore"]

_BUSY_SECONDS = 10.0
_PAGE = 500
_MIN_VERSION = (3, 37, 0)  # STRICT tables; RETURNING is older

_V1 = (
    """CREATE TABLE log (
        run TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL,
        body TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL,
        PRIMARY KEY (run, seq), UNIQUE (run, key)) STRICT, WITHOUT ROWID""",
    "CREATE TRIGGER log_no_update BEFORE UPDATE ON log BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER log_no_delete BEFORE DELETE ON log BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    """CREATE TRIGGER log_no_replace BEFORE INSERT ON log
        WHEN EXISTS (SELECT 1 FROM log WHERE run = NEW.run AND seq = NEW.seq)
          OR EXISTS (SELECT 1 FROM log WHERE run = NEW.run AND key = NEW.key)
        BEGIN SELECT RAISE(ABORT, 'append-only'); END""",
    "CREATE TABLE used (scope TEXT PRIMARY KEY, amount INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE reserved (key TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",  # every key ever used
    """CREATE TABLE hold (
        key TEXT NOT NULL, scope TEXT NOT NULL, amount INTEGER NOT NULL, expires REAL NOT NULL,
        PRIMARY KEY (key, scope)) STRICT, WITHOUT ROWID""",
    "CREATE INDEX hold_expires ON hold (expires)",
    """CREATE TABLE register (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL, due REAL) STRICT""",
    "CREATE INDEX register_due ON register (due) WHERE due IS NOT NULL",
)
_MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1,)
"""Statements that lead from schema version n to n + 1. Never change one that was released; add one."""

# One statement, which is its own write transaction. Scalar subqueries, since INSERT ... SELECT from the same
# table copies to a temporary one; a key that is there already is refused by the trigger.
_SEQ = "coalesce((SELECT seq FROM log WHERE run = ?1 ORDER BY seq DESC LIMIT 1), 0) + 1"
_PREV = f"coalesce((SELECT hash FROM log WHERE run = ?1 ORDER BY seq DESC LIMIT 1), '{GENESIS}')"  # noqa: S608
_APPEND = f"""
INSERT INTO log (run, seq, key, at, kind, body, prev, hash)
VALUES (?1, {_SEQ}, ?2, ?3, ?4, ?5, {_PREV}, link({_PREV}, ?1, {_SEQ}, ?2, ?3, ?4, ?5)) RETURNING seq, prev, hash
"""  # noqa: S608 - constants of ours
_ENTRY = "SELECT run, seq, key, at, kind, body, prev, hash FROM log WHERE run = ?1 "
# From run to run by the primary key: cost grows with the number of runs, not of entries
_RUNS = """
WITH RECURSIVE each(run) AS (
    SELECT min(run) FROM log UNION ALL
    SELECT (SELECT min(run) FROM log WHERE run > each.run) FROM each WHERE each.run IS NOT NULL)
SELECT each.run, first.at, last.at, last.seq FROM each
JOIN log first ON first.run = each.run AND first.seq = 1
JOIN log last ON last.run = each.run AND last.seq = (SELECT max(seq) FROM log WHERE run = each.run)
ORDER BY last.at DESC, each.run LIMIT ?
"""
_FORGET = "DELETE FROM hold WHERE key IN (SELECT key FROM hold WHERE expires <= ? ORDER BY expires LIMIT 100)"
_CODES = {
    sqlite3.SQLITE_BUSY: "store.busy",
    sqlite3.SQLITE_LOCKED: "store.busy",
    sqlite3.SQLITE_FULL: "store.full",
    sqlite3.SQLITE_READONLY: "store.read_only",
    sqlite3.SQLITE_PERM: "store.read_only",
    sqlite3.SQLITE_CANTOPEN: "store.cannot_open",
    sqlite3.SQLITE_CORRUPT: "store.corrupt",
    sqlite3.SQLITE_NOTADB: "store.corrupt",
    sqlite3.SQLITE_IOERR: "store.io",
    sqlite3.SQLITE_CONSTRAINT: "store.constraint",
}

_orphans: list[sqlite3.Connection | None] = []


class SqliteStore:
    """A store in one file. See `Store` for what the methods promise.

    Args:
        path: the file, made if missing, readable by its owner alone; its folder must exist.
        durability: ``process``: a finished write survives the end of the process (a loss of power may
            take the last ones, never damage the file). ``power``: it survives that too, at the price of
            waiting for the disk at every write.

    Raises:
        StoreError: ``store.no_folder``, ``store.newer_version`` (a later version of this package made the
            file), ``store.not_ours`` (the database belongs to something else), ``store.sqlite_too_old``,
            ``store.cannot_open``, ``store.corrupt``, ``store.busy``; later also ``store.full``,
            ``store.read_only``, ``store.io``, ``store.value``, ``store.closed``.
    """

    def __init__(self, path: str | Path, durability: Literal["process", "power"] = "process") -> None:
        self._path, self._durability = Path(path).absolute(), durability
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._closed = False
        if sqlite3.sqlite_version_info < _MIN_VERSION:
            raise StoreError("store.sqlite_too_old")
        with self._session():
            pass
        forget_in_children(self)

    @property
    def blocking(self) -> bool:
        """True when every write waits for the disk."""
        return self._durability == "power"

    def forget(self) -> None:
        """In a forked child: never use, nor close, what belongs to the parent."""
        _orphans.append(self._db)
        self._lock, self._db = threading.Lock(), None

    @contextmanager
    def _session(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                if self._db is None:
                    self._db = self._connect()
                yield self._db
        except sqlite3.Error as error:
            raise _sorted_out(error) from None
        except (OverflowError, UnicodeEncodeError):  # no such number or text in a database
            raise StoreError("store.value") from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._session() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError("store.closed")
        if not self._path.parent.is_dir():
            raise StoreError("store.no_folder")
        # SQLite would make the file for everybody to read. Only a new one: closing a file drops the locks that this
        # process has on it. What is wrong with the path, SQLite says.
        with contextlib.suppress(OSError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _migrate(db)
            _enter_wal(db)
            db.execute(f"PRAGMA synchronous = {'FULL' if self.blocking else 'NORMAL'}")
            db.create_function("link", 7, link, deterministic=True)
        except BaseException:
            db.close()
            raise
        return db

    # the log

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        """Add an entry to a run's chain; with a key that the run has, return what is there instead."""
        at = float(at)
        if not math.isfinite(at):
            raise StoreError("store.value")
        with self._session() as db:
            try:
                [row] = db.execute(_APPEND, (run, key, at, kind, body)).fetchall()
            except sqlite3.IntegrityError:
                rows = db.execute(f"{_ENTRY} AND key = ?2", (run, key)).fetchall()
                if not rows:
                    raise
                return Entry(*rows[0])
            return Entry(run, row[0], key, at, kind, body, row[1], row[2])

    def read(self, run: str, after: int = 0) -> Iterator[Entry]:
        """The entries of a run with a sequence number above `after`, in order; read page by page."""
        query = f"{_ENTRY} AND seq > ?2 ORDER BY seq LIMIT {_PAGE}"
        while True:
            with self._session() as db:
                rows = db.execute(query, (run, after)).fetchall()
            for row in rows:
                yield Entry(*row)
            if len(rows) < _PAGE:
                return
            after = rows[-1][1]

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""
        with self._session() as db:
            return [RunSummary(*row) for row in db.execute(_RUNS, (max(limit, 0),)).fetchall()]

    # the counter

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | None:
        """Hold all claims or none; see `Store.reserve`."""
        held = {claim.scope: claim.amount for claim in one_each(claims)}
        expires, stale = times(now, ttl)
        with self._transaction() as db:
            if db.execute("INSERT OR IGNORE INTO reserved VALUES (?)", (key,)).rowcount == 0:
                return None
            db.execute(_FORGET, (stale,))
            refused = refusal(claims, {scope: _amount(db, scope) for scope in held})
            if refused is not None:
                db.execute("DELETE FROM reserved WHERE key = ?", (key,))
                return refused
            db.executemany("INSERT INTO hold VALUES (?, ?, ?, ?)", [(key, s, n, expires) for s, n in held.items()])
            _charge(db, held)
            return None

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used; see `Store.settle`."""
        if any(amount < 0 for amount in amounts.values()):
            raise StoreError("store.value")
        with self._transaction() as db:
            held = dict(db.execute("DELETE FROM hold WHERE key = ? RETURNING scope, amount", (key,)).fetchall())
            _charge(db, {scope: amounts.get(unit_of(scope), 0) - amount for scope, amount in held.items()})
            return bool(held)

    def release(self, key: str) -> bool:
        """Drop a hold and forget its key; see `Store.release`."""
        with self._transaction() as db:
            held = dict(db.execute("DELETE FROM hold WHERE key = ? RETURNING scope, amount", (key,)).fetchall())
            if held:
                db.execute("DELETE FROM reserved WHERE key = ?", (key,))
                _charge(db, {scope: -amount for scope, amount in held.items()})
            return bool(held)

    def used(self, scope: str) -> int:
        """Charged plus held."""
        with self._session() as db:
            return _amount(db, scope)

    # the register

    def get(self, key: str) -> str | None:
        """The value under a key, or None."""
        with self._session() as db:
            rows: list[tuple[str]] = db.execute("SELECT value FROM register WHERE key = ?", (key,)).fetchall()
        return rows[0][0] if rows else None

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Set a key if it holds what is expected (None: absent), in one step. `new=None` deletes."""
        if expected is None and new is None:
            return self.get(key) is None
        with self._session() as db:
            if expected is None:
                query = "INSERT INTO register (key, value, due) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
                return db.execute(query, (key, new, due)).rowcount == 1
            if new is None:
                return db.execute("DELETE FROM register WHERE key = ? AND value = ?", (key, expected)).rowcount == 1
            query = "UPDATE register SET value = ?, due = ? WHERE key = ? AND value = ?"
            return db.execute(query, (new, due, key, expected)).rowcount == 1

    def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with a prefix, oldest first."""
        query = "SELECT key FROM register WHERE key >= ? AND key < ? ORDER BY id"
        with self._session() as db:
            return [row[0] for row in db.execute(query, (prefix, _end(prefix))).fetchall()]

    def due(self, prefix: str, before: float) -> Sequence[str]:
        """Keys under a prefix whose `due` has come, earliest first."""
        query = "SELECT key FROM register WHERE due <= ? AND key >= ? AND key < ? ORDER BY due, id"
        with self._session() as db:
            return [row[0] for row in db.execute(query, (before, prefix, _end(prefix))).fetchall()]

    def close(self) -> None:
        """Close the file. Closing twice is harmless; any other use afterwards is ``store.closed``."""
        with self._lock:
            self._closed = True
            db, self._db = self._db, None
            if db is not None:
                db.close()

    @classmethod
    def schema(cls, path: str | Path) -> Schema:
        """What a file has, without changing or making it. Raises `StoreError`."""
        file = Path(path).absolute()
        if not file.exists():
            return Schema(0, len(_MIGRATIONS))
        try:
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
                found = _version(db)
                if found == 0 and db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                    raise StoreError("store.not_ours")
        except sqlite3.Error as error:
            raise _sorted_out(error) from None
        return Schema(found, len(_MIGRATIONS))


def _sorted_out(error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None)
    return StoreError(_CODES.get((code or 0) & 0xFF, "store.failed"))


def _amount(db: sqlite3.Connection, scope: str) -> int:
    rows: list[tuple[int]] = db.execute("SELECT amount FROM used WHERE scope = ?", (scope,)).fetchall()
    return rows[0][0] if rows else 0


def _charge(db: sqlite3.Connection, amounts: Mapping[str, int]) -> None:
    query = "INSERT INTO used VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
    db.executemany(query, list(amounts.items()))


def _end(prefix: str) -> str | bytes:
    """Where keys with a prefix end; a blob, which sorts after every text, where they end with all."""
    end = beyond(prefix)
    return b"" if end is None else end


def _migrate(db: sqlite3.Connection) -> None:
    """Bring a file to the newest schema. Several processes may do it at once: one does, the others find it done."""
    if _version(db) == len(_MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    version = _version(db)
    if version > len(_MIGRATIONS):
        raise StoreError("store.newer_version")
    if version == 0 and db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
        raise StoreError("store.not_ours")
    for step in _MIGRATIONS[version:]:
        for statement in step:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(_MIGRATIONS)}")
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    return version


def _enter_wal(db: sqlite3.Connection) -> None:
    """Switch the file to WAL. SQLite does not wait for others here, whatever the timeout says, so we do."""
    end = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.005)
        else:
            break
    if mode != "wal":  # a file system without shared memory
        raise StoreError("store.no_wal")
