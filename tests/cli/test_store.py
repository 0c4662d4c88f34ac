"""`store check` looks and says; `store migrate` makes and raises; both tell no secret."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commands import POLICY, run, store
from servers import Server

from guardrails_mw.errors import StoreError
from guardrails_mw.ledger import verify
from guardrails_mw.stores import postgres as postgres_store
from guardrails_mw.stores import sqlite_schema
from guardrails_mw.stores.redis import RedisStore
from guardrails_mw.stores.sqlite import SqliteStore

FIRST = Path(__file__).parent / "store-v1.sql"
"""A file of schema version 1 as the first release made it, written out as SQL."""


@pytest.fixture
def old(policy: Path) -> Path:
    """A store that the first release has written."""
    file = policy.parent / "g.db"
    with closing(sqlite3.connect(file)) as db:
        db.executescript(FIRST.read_text())
    return file


def check(policy: Path, command: str = "check") -> tuple[int, dict[str, object]]:
    result = run("store", command, "-p", policy, "--json")
    return result.exit_code, json.loads(result.stdout)


def test_check_makes_nothing(policy: Path) -> None:
    """A store that is not there yet is told of, and still is not there."""
    code, told = check(policy)
    assert (code, told["state"], told["version"]) == (0, "absent", 0)
    assert not (policy.parent / "g.db").exists()


def test_migrate_twice(policy: Path) -> None:
    """The first makes the schema and says so, the second finds it made."""
    code, told = check(policy, "migrate")
    assert (code, told["state"], told["before"]) == (0, "current", "was empty; ")
    code, told = check(policy, "migrate")
    assert (code, told["state"], "before" in told) == (0, "current", False)
    assert "up to date" in run("store", "check", "-p", policy).stdout


def test_a_file_of_the_first_release_works(policy: Path, old: Path) -> None:
    """What version 1 has written is read, verified and written on."""
    assert run("store", "migrate", "-p", policy).exit_code == 0
    with closing(SqliteStore(old)) as opened:
        entries = list(opened.read("run-1"))
        assert [entry.key for entry in entries] == ["k1", "k2"]
        assert verify(entries) == []
        assert opened.append("run-1", "k3", 3.0, "decision", "{}").seq == 3
        assert opened.used("run:1:usd") == 60 + 7
        assert opened.settle("open", {"usd": 5}) is True
        assert opened.used("run:1:usd") == 5 + 7
        assert opened.settle("settled", {"usd": 5}) is False
        assert list(opened.keys("approval:")) == ["approval:1"]
        assert list(opened.due("approval:", 99.0)) == ["approval:1"]
    assert "run-1" in run("runs", "list", "-p", policy).stdout


def open_file(file: str, later: tuple[str, ...]) -> int:
    """In a process of its own, as a later release that knows one more migration."""
    sqlite_schema.MIGRATIONS = (*sqlite_schema.MIGRATIONS, later)
    with closing(SqliteStore(file)) as opened:
        return len(list(opened.read("run-1")))


LATER = ("CREATE TABLE later (x INTEGER) STRICT", "INSERT INTO later VALUES (1)")


def test_an_older_file_is_raised_once(old: Path) -> None:
    """Of several processes that open an older file at once, one raises it; none loses anything."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(3, maxtasksperchild=1) as pool:
        assert pool.starmap(open_file, [(str(old), LATER)] * 6, chunksize=1) == [2] * 6
    with closing(sqlite3.connect(old)) as db:
        assert db.execute("SELECT count(*) FROM later").fetchone() == (1,)
        assert db.execute("PRAGMA user_version").fetchone() == (len(sqlite_schema.MIGRATIONS) + 1,)


def test_an_older_file_is_told_of(policy: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` fails before the migration and not after it, and changes nothing itself."""
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, LATER))
    newest = len(sqlite_schema.MIGRATIONS)
    for _ in range(2):
        code, told = check(policy)
        assert (code, told["state"], told["version"], told["newest"]) == (1, "older", 1, newest)
    code, told = check(policy, "migrate")
    assert (code, told["state"], told["before"]) == (0, "current", "was at version 1; ")
    assert check(policy)[0] == 0


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that breaks in the middle leaves the version and the tables as they were."""
    broken = ("CREATE TABLE half (x INTEGER) STRICT", "INSERT INTO nowhere VALUES (1)")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "MIGRATIONS", (*sqlite_schema.MIGRATIONS, broken))
        with pytest.raises(StoreError):
            SqliteStore(old)
    with closing(SqliteStore(old)) as opened:
        assert len(list(opened.read("run-1"))) == 2
    with closing(sqlite3.connect(old)) as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)


def test_a_newer_file_is_refused(policy: Path) -> None:
    """Every command refuses a file of a later version with what to do, and leaves it as it is."""
    store(policy).close()
    with closing(sqlite3.connect(policy.parent / "g.db")) as db:
        db.execute("PRAGMA user_version = 99")
    code, told = check(policy)
    assert (code, told["state"], told["version"]) == (1, "newer", 99)
    for command in (("store", "migrate"), ("runs", "list"), ("approvals", "list")):
        result = run(*command, "-p", policy)
        assert result.exit_code == 2
        assert "a later version of guardrails-mw wrote it" in result.output
    assert SqliteStore.schema(policy.parent / "g.db").found == 99


def test_a_store_in_memory(policy: Path) -> None:
    """There is nothing to migrate."""
    policy.write_text(POLICY.replace("store: sqlite:///g.db", "store: 'memory:'"))
    assert "nothing to migrate" in run("store", "check", "-p", policy).stdout
    assert check(policy, "migrate")[0] == 0


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_server_is_checked_and_migrated(
    policy: Path, kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absent, made, up to date; older once a later release knows more, raised; then too new for this one."""
    server: Server = request.getfixturevalue(f"{kind}_server")
    server.wipe()
    policy.write_text(POLICY.replace("sqlite:///g.db", server.url))
    assert (check(policy)[1]["state"], check(policy)[1]["version"]) == ("absent", 0)
    assert check(policy, "migrate")[1]["before"] == "was empty; "
    code, told = check(policy)
    assert (code, told["state"]) == (0, "current")
    newest = int(str(told["version"]))
    with monkeypatch.context() as later:
        later.setattr(postgres_store, "MIGRATIONS", (*postgres_store.MIGRATIONS, "CREATE TABLE guardrails.later ()"))
        later.setattr(postgres_store.PostgresStore if kind == "postgres" else RedisStore, "VERSION", newest + 1)
        code, told = check(policy)
        assert (code, told["state"], told["version"]) == (1, "older", newest)
        assert check(policy, "migrate")[1]["before"] == f"was at version {newest}; "
        assert check(policy)[0] == 0
    code, told = check(policy)
    assert (code, told["state"], told["version"]) == (1, "newer", newest + 1)
    assert run("store", "migrate", "-p", policy).exit_code == 2
    server.wipe()


@pytest.mark.parametrize("url", ["redis://app:hunter2@127.0.0.1:9/0", "postgresql://app:hunter2@127.0.0.1:9/d"])
def test_nobody_learns_the_password(policy: Path, url: str) -> None:
    """A server that is away is told of without the password, by every command and in the policy's representation."""
    policy.write_text(POLICY.replace("sqlite:///g.db", url))
    for command in (("store", "check"), ("store", "migrate"), ("runs", "list"), ("doctor",), ("explain",)):
        result = run(*command, "-p", policy)
        assert "hunter2" not in result.output
        if command[0] in ("store", "runs"):
            assert result.exit_code == 2
            assert "nobody answers" in result.output
    from guardrails_mw import Policy

    assert "hunter2" not in repr(Policy.read(policy))
