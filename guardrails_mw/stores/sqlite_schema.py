"""The tables of a SQLite store, and how a file of an older version comes to have them."""

from __future__ import annotations

import sqlite3

from guardrails_mw.errors import StoreError

__all__ = ["MIGRATIONS", "migrate", "newest", "version"]

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
# One row for a reservation, however many scopes it holds, which stays when it is settled: its key was used. `held`
# is a JSON object of amounts by scope, and NULL where nothing is held (any more).
_V2 = (
    "CREATE TABLE reservation (key TEXT PRIMARY KEY, held TEXT, expires REAL) STRICT, WITHOUT ROWID",
    """INSERT INTO reservation SELECT key, json_group_object(scope, amount), max(expires) FROM hold GROUP BY key
        UNION ALL SELECT key, NULL, NULL FROM reserved WHERE key NOT IN (SELECT key FROM hold)""",
    "CREATE INDEX reservation_expires ON reservation (expires) WHERE expires IS NOT NULL",
    "DROP TABLE hold",
    "DROP TABLE reserved",
)
MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1, _V2)
"""Statements that lead from schema version n to n + 1. Never change one that was released; add one."""


def migrate(db: sqlite3.Connection) -> None:
    """Bring a file to the newest schema. Several processes may do it at once: one does, the others find it done.

    Raises:
        StoreError: ``store.newer_version``, ``store.not_ours``.
    """
    if version(db) == newest():
        return
    db.execute("BEGIN IMMEDIATE")
    found = version(db)
    if found > newest():
        raise StoreError("store.newer_version")
    if found == 0 and db.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
        raise StoreError("store.not_ours")
    for step in MIGRATIONS[found:]:
        for statement in step:
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {newest()}")
    db.execute("COMMIT")


def newest() -> int:
    """The version that `migrate` leads to."""
    return len(MIGRATIONS)


def version(db: sqlite3.Connection) -> int:
    """The version that a file has; 0 for one without tables."""
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found
