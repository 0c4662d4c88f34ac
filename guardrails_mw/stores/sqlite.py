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
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from guardrails_mw.errors import StoreError
from guardrails_mw.forks import forget_in_children
from guardrails_mw.ledger import GENESIS, link
from guardrails_mw.store import AGAIN, Again, Claim, Entry, Refusal, RunSummary, unit_of
from guardrails_mw.stores.claims import one_each, refusal, times
from guardrails_mw.stores.prefix import beyond
from guardrails_mw.stores.schema import Schema
from guardrails_mw.stores.sqlite_schema import migrate, newest, version

__all__ = ["SqliteStore"]

_BUSY_SECONDS = 10.0
_PAGE = 500
_UNCHECKED = 4000  # pages in the write-ahead log: it waits for the disk each time that they go to the file
_MIN_VERSION = (3, 38, 0)  # JSON functions, which a migration needs, are always there; STRICT tables are older

_LAST = "SELECT seq, hash FROM log WHERE run = ? ORDER BY seq DESC LIMIT 1"
_APPEND = "INSERT INTO log (run, seq, key, at, kind, body, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
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
_CLOSE = "UPDATE reservation SET held = NULL, expires = NULL WHERE "
_FORGET = f"{_CLOSE} key IN (SELECT key FROM reservation WHERE expires <= ? ORDER BY expires LIMIT 100)"  # noqa: S608
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
            migrate(db)
            _enter_wal(db)
            db.execute(f"PRAGMA wal_autocheckpoint = {_UNCHECKED}")
            db.execute(f"PRAGMA synchronous = {'FULL' if self.blocking else 'NORMAL'}")
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
        with self._transaction() as db:
            last: list[tuple[int, str]] = db.execute(_LAST, (run,)).fetchall()
            before, prev = last[0] if last else (0, GENESIS)
            seq, digest = before + 1, link(prev, run, before + 1, key, at, kind, body)
            try:
                db.execute(_APPEND, (run, seq, key, at, kind, body, prev, digest))
            except sqlite3.IntegrityError:
                rows = db.execute(f"{_ENTRY} AND key = ?2", (run, key)).fetchall()
                if not rows:
                    raise
                return Entry(*rows[0])
            return Entry(run, seq, key, at, kind, body, prev, digest)

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

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        """Hold all claims or none; see `Store.reserve`."""
        held = {claim.scope: claim.amount for claim in one_each(claims)}
        expires, stale = times(now, ttl)
        with self._transaction() as db:
            row = (key, json.dumps(held), expires) if held else (key, None, None)
            if db.execute("INSERT OR IGNORE INTO reservation VALUES (?, ?, ?)", row).rowcount == 0:
                return AGAIN
            db.execute(_FORGET, (stale,))
            refused = refusal(claims, _amounts(db, held))
            if refused is not None:
                db.execute("DELETE FROM reservation WHERE key = ?", (key,))
                return refused
            _charge(db, held)
            return None

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used; see `Store.settle`."""
        if any(amount < 0 for amount in amounts.values()):
            raise StoreError("store.value")
        with self._transaction() as db:
            held = _held(db, key)
            if held:
                db.execute(f"{_CLOSE} key = ?", (key,))
                _charge(db, {scope: amounts.get(unit_of(scope), 0) - amount for scope, amount in held.items()})
            return bool(held)

    def release(self, key: str) -> bool:
        """Drop a hold and forget its key; see `Store.release`."""
        with self._transaction() as db:
            held = _held(db, key)
            if held:
                db.execute("DELETE FROM reservation WHERE key = ?", (key,))
                _charge(db, {scope: -amount for scope, amount in held.items()})
            return bool(held)

    def used(self, scope: str) -> int:
        """Charged plus held."""
        with self._session() as db:
            return _amounts(db, (scope,)).get(scope, 0)

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
            return Schema(0, newest())
        try:
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
                found = version(db)
                if found == 0 and db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                    raise StoreError("store.not_ours")
        except sqlite3.Error as error:
            raise _sorted_out(error) from None
        return Schema(found, newest())


def _sorted_out(error: sqlite3.Error) -> StoreError:
    code = getattr(error, "sqlite_errorcode", None)
    return StoreError(_CODES.get((code or 0) & 0xFF, "store.failed"))


def _amounts(db: sqlite3.Connection, scopes: Collection[str]) -> dict[str, int]:
    """What scopes have used; those that have used nothing are left out."""
    query = f"SELECT scope, amount FROM used WHERE scope IN ({', '.join('?' * len(scopes))})"  # noqa: S608
    return dict(db.execute(query, tuple(scopes)).fetchall())


def _held(db: sqlite3.Connection, key: str) -> dict[str, int]:
    """What a reservation holds by scope; nothing where it was settled, or there is none."""
    rows = db.execute("SELECT held FROM reservation WHERE key = ? AND held IS NOT NULL", (key,)).fetchall()
    return json.loads(rows[0][0]) if rows else {}


def _charge(db: sqlite3.Connection, amounts: Mapping[str, int]) -> None:
    query = "INSERT INTO used VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
    db.executemany(query, list(amounts.items()))


def _end(prefix: str) -> str | bytes:
    """Where keys with a prefix end; a blob, which sorts after every text, where they end with all."""
    end = beyond(prefix)
    return b"" if end is None else end


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
