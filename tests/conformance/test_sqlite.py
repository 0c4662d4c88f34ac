"""What only a file can promise: processes, forks, versions, triggers, damage."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
from pathlib import Path

import pytest

from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.ledger import verify
from guardrails_mw.store import Claim
from guardrails_mw.stores import open_store
from guardrails_mw.stores import sqlite as sqlite_store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore

SPAWN = multiprocessing.get_context("spawn")


def work(path: str, name: str, results: multiprocessing.Queue[tuple[int, int]]) -> None:
    """Open the file, which may not exist yet, and race another process for everything in it."""
    store = SqliteStore(path)
    admitted = sum(store.reserve(f"{name}:{i}", [Claim("s", 2, 100)], 0.0, 60.0) is None for i in range(60))
    won = sum(store.swap(f"key:{i}", None, name) for i in range(60))
    for i in range(60):
        store.append("run", f"{name}:{i}", 0.0, "kind", "{}")
    results.put((admitted, won))
    store.close()


def test_two_processes(tmp_path: Path) -> None:
    """Two processes that make and use one file at once: one budget, one winner per key, one whole chain."""
    results = SPAWN.Queue()
    workers = [SPAWN.Process(target=work, args=(str(tmp_path / "s.db"), name, results)) for name in "ab"]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sum(admitted for admitted, _ in found) == 50
    assert sum(won for _, won in found) == 60
    store = SqliteStore(tmp_path / "s.db")
    entries = list(store.read("run"))
    assert len(entries) == 120
    assert verify(entries) == []
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork(tmp_path: Path) -> None:
    """A child uses a connection of its own, also when the parent was in the middle of something."""
    store = SqliteStore(tmp_path / "s.db")
    store.append("run", "parent", 0.0, "kind", "{}")
    inherited = store._db
    with store._lock:  # a thread of the parent that will never give it back in the child
        child = os.fork()
        if child == 0:
            try:
                store.append("run", "child", 0.0, "kind", "{}")
                assert store._db is not inherited
                assert inherited in sqlite_store._orphans  # or it would be closed here, and its file's locks lost
                store.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.append("run", "parent again", 0.0, "kind", "{}")
    entries = list(store.read("run"))
    assert [entry.key for entry in entries] == ["parent", "child", "parent again"]
    assert verify(entries) == []
    store.close()


ATTACKS = [
    "UPDATE log SET body = '[]' WHERE seq = 2",
    "DELETE FROM log WHERE seq = 2",
    "INSERT OR REPLACE INTO log SELECT run, seq, key, at, kind, '[]', prev, hash FROM log WHERE seq = 2",
    "REPLACE INTO log SELECT run, 99, key, at, kind, '[]', prev, hash FROM log WHERE seq = 2",
    "INSERT INTO log SELECT * FROM log WHERE seq = 2 ON CONFLICT DO UPDATE SET body = '[]'",
    "UPDATE OR REPLACE log SET seq = 1 WHERE seq = 2",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_log_is_append_only(tmp_path: Path, attack: str) -> None:
    """A foreign connection can neither change, remove nor replace an entry."""
    store = SqliteStore(tmp_path / "s.db")
    before = [store.append("run", str(i), 0.0, "kind", "{}") for i in range(3)]
    other = sqlite3.connect(tmp_path / "s.db")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(attack)
    other.close()
    assert list(store.read("run")) == before
    store.close()


def test_tampering_without_triggers_is_seen(tmp_path: Path) -> None:
    """Who drops the triggers can change an entry; the chain shows it."""
    store = SqliteStore(tmp_path / "s.db")
    for i in range(3):
        store.append("run", str(i), 0.0, "kind", "{}")
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("DROP TRIGGER log_no_update")
    other.execute("UPDATE log SET body = '[]' WHERE seq = 2")
    other.close()
    assert [(problem.seq, problem.code) for problem in verify(store.read("run"))] == [(2, "hash")]
    store.close()


def test_everything_survives_reopening(tmp_path: Path) -> None:
    """Log, counter and register are there after the file was closed."""
    store = SqliteStore(tmp_path / "s.db")
    entry = store.append("run", "k", 1.5, "kind", "{}")
    store.reserve("a", [Claim("s", 7, 10)], 0.0, 60.0)
    store.swap("key", None, "value", due=3.0)
    store.close()
    with pytest.raises(StoreError, match=r"^store\.closed$"):
        store.get("key")
    again = SqliteStore(tmp_path / "s.db", "power")
    assert list(again.read("run")) == [entry]
    assert again.settle("a", {"s": 2})
    assert again.used("s") == 2
    assert list(again.due("k", 3.0)) == ["key"]
    again.close()


def test_durability(tmp_path: Path) -> None:
    """`process` leaves syncing to checkpoints and may run on an event loop, `power` syncs every commit and may not."""
    for durability, level, blocking in (("process", 1, False), ("power", 2, True)):
        store = SqliteStore(tmp_path / "s.db", durability)
        assert store._db is not None
        assert store._db.execute("PRAGMA synchronous").fetchone() == (level,)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store.blocking is blocking
        store.close()


def test_files_that_are_refused(tmp_path: Path) -> None:
    """A newer file, a file of something else, a damaged one and a missing folder have codes of their own."""
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()
    (tmp_path / "damaged.db").write_bytes(b"not a database at all" * 100)
    (tmp_path / "folder.db").mkdir()
    for name, code in (
        ("newer.db", "store.newer_version"),
        ("foreign.db", "store.not_ours"),
        ("damaged.db", "store.corrupt"),
        ("folder.db", "store.cannot_open"),
        ("none/s.db", "store.no_folder"),
    ):
        with pytest.raises(StoreError) as raised:
            SqliteStore(tmp_path / name)
        assert raised.value.code == code
    assert sqlite3.connect(tmp_path / "foreign.db").execute("SELECT name FROM sqlite_schema").fetchall() == [
        ("theirs",)
    ]


def test_locked_file_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that never ends makes the store say `store.busy`, and the store works again afterwards."""
    monkeypatch.setattr("guardrails_mw.stores.sqlite._BUSY_SECONDS", 0.05)
    store = SqliteStore(tmp_path / "s.db")
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for call in (
        lambda: store.append("run", "k", 0.0, "kind", "{}"),
        lambda: store.reserve("k", [Claim("s", 1, 10)], 0.0, 60.0),
        lambda: store.swap("k", None, "1"),
    ):
        with pytest.raises(StoreError, match=r"^store\.busy$"):
            call()
    other.execute("ROLLBACK")
    assert store.reserve("k", [Claim("s", 1, 10)], 0.0, 60.0) is None
    assert store.append("run", "k", 0.0, "kind", "{}").seq == 1
    store.close()
    other.close()


def test_values_no_database_holds(tmp_path: Path) -> None:
    """Numbers beyond 64 bits and lone surrogates are a StoreError, and leave nothing behind."""
    store = SqliteStore(tmp_path / "s.db")
    for call in (
        lambda: store.append("\ud800", "k", 0.0, "kind", "{}"),
        lambda: store.reserve("k", [Claim("s", 2**70, 2**80)], 0.0, 60.0),
        lambda: store.swap("\ud800", None, "1"),
    ):
        with pytest.raises(StoreError, match=r"^store\.value$"):
            call()
    assert store.used("s") == 0
    assert store.reserve("k", [Claim("s", 1, 10)], 0.0, 60.0) is None
    store.close()


def test_runs_do_not_scan_entries(tmp_path: Path) -> None:
    """Summing up the runs seeks from run to run instead of reading the log."""
    from guardrails_mw.stores.sqlite import _RUNS

    store = SqliteStore(tmp_path / "s.db")
    assert store._db is not None
    plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {_RUNS}", (10,))]
    assert not [line for line in plan if line.startswith("SCAN") and "each" not in line]
    store.close()


def test_open_store(tmp_path: Path) -> None:
    """URLs name a memory store, a file beside the policy and an absolute file."""
    assert isinstance(open_store("memory:", tmp_path), MemoryStore)
    for url, durability in (("sqlite:///s.db", "process"), (f"sqlite:///{tmp_path}/t.db", "power")):
        store = open_store(url, tmp_path, durability)
        assert isinstance(store, SqliteStore)
        assert store.blocking is (durability == "power")
        store.close()
    assert {path.name for path in tmp_path.iterdir()} >= {"s.db", "t.db"}


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("sqlit:///s.db", "did you mean 'sqlite'"),
        ("mysql://localhost", "allowed: memory, sqlite, postgresql, redis"),
        ("redis:localhost", "write memory:"),
        ("", "allowed: memory, sqlite, postgresql, redis"),
        ("memory", "write memory:"),
        ("memory:x", "write memory:"),
        ("sqlite:s.db", "sqlite:///file"),
        ("sqlite://host/s.db", "sqlite:///file"),
        ("sqlite:///", "sqlite:///file"),
        ("sqlite:///:memory:", "write memory:"),
        ("sqlite:///s.db?mode=ro", "sqlite:///file"),
    ],
)
def test_open_store_refuses(url: str, hint: str, tmp_path: Path) -> None:
    """What is not a store's URL is a PolicyError that says what is."""
    with pytest.raises(PolicyError, match=hint):
        open_store(url, tmp_path)


def test_open_store_durability(tmp_path: Path) -> None:
    """An unknown durability is a PolicyError with the allowed ones."""
    with pytest.raises(PolicyError, match="did you mean 'power'"):
        open_store("memory:", tmp_path, "powr")  # type: ignore[arg-type]
