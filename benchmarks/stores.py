"""What a store takes to reserve and settle, empty and with a million scopes of the past, and to append a record.

PostgreSQL is measured next to a bare pair of committed updates on the same server. Figures depend on the disk;
compare them within one run only.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Call, Table, interleaved
from guardrails_mw.ledger import canonical
from guardrails_mw.store import Claim, Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.postgres import PostgresStore
from guardrails_mw.stores.redis import RedisStore
from guardrails_mw.stores.sqlite import SqliteStore

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from servers import Missing, Postgres, Redis, Server

PAST = 1_000_000
"""Scopes that were used before, each by one call."""
COUNT = 20
"""Pairs in one sample."""
BODY = canonical({
    "stage": "tool_call", "gate": "tools", "action": "block", "reason": "tool.role", "score": 0.25,
    "policy": "3f2a9c41",
    "checks": [{"gate": name, "action": "allow", "ms": 0.31} for name in ("injection", "pii", "secrets", "tools")],
})  # fmt: skip
_NUMBERS = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {PAST}) "
_REDIS = """
for i = ARGV[1], ARGV[2] do
  redis.call('HSET', '{guardrails}:used', 'run:past-' .. i .. ':usd', 7)
  redis.call('SADD', '{guardrails}:reserved', 'past-' .. i)
end
"""


def table(rounds: int) -> Table:
    """Pairs of reserve and settle per second, over three nested scopes, one caller."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        calls: dict[str, Call] = {}
        about: dict[str, str] = {}
        for name, setting, make in _stores(stack, folder):
            print(f"  {name}", file=sys.stderr, flush=True)
            store = make()
            stack.callback(store.close)
            about[name] = setting
            calls[name], calls[f"{name} append"] = _pairs(store), _appends(store)
        calls |= _bare(stack)
        found = interleaved(calls, rounds)
    return Table(
        "Stores",
        ("store", "reserve + settle", f"with {PAST:,} past scopes", "append"),
        [_row(name, setting, found) for name, setting in about.items() if not name.endswith("past")],
        about="Per second, one caller, three nested scopes; a record of 0.4 kB.",
        notes=[*_compared(found), *(f"{name}: {setting}" for name, setting in about.items() if "past" not in name)],
    )


def _row(name: str, setting: str, found: dict[str, float]) -> list[str]:
    past = found.get(f"{name}, past")
    return [name, f"{1 / found[name]:,.0f}", f"{1 / past:,.0f}" if past else "-", f"{1 / found[f'{name} append']:,.0f}"]


def _compared(found: dict[str, float]) -> list[str]:
    if "bare" not in found:
        return []
    bare, ours, past = found["bare"], found["PostgreSQL"], found["PostgreSQL, past"]
    return [
        f"A bare pair of committed updates on the same PostgreSQL: {1 / bare:,.0f} per second.",
        f"PostgreSQL next to that: {bare / ours:.2f} x, with past scopes {bare / past:.2f} x.",
    ]


def _pairs(store: Store) -> Call:
    numbers = itertools.count()
    claims = [Claim(f"{scope}:usd", 7, 10**15) for scope in ("run:1", "tenant:acme:2026-11", "global:2026-11-20")]

    def pair() -> None:
        key = f"call-{next(numbers)}"
        if store.reserve(key, claims, 0.0, 900.0) is not None or not store.settle(key, {"usd": 3}):
            raise RuntimeError("not held")

    return _sample(pair)


def _appends(store: Store) -> Call:
    numbers = itertools.count()
    return _sample(lambda: store.append("run-1", f"k{next(numbers)}", 0.0, "decision", BODY))


def _sample(call: Callable[[], object]) -> Call:
    def sample() -> float:
        began = time.perf_counter()
        for _ in range(COUNT):
            call()
        return (time.perf_counter() - began) / COUNT

    return sample


def _stores(stack: contextlib.ExitStack, folder: Path) -> list[tuple[str, str, Callable[[], Store]]]:
    """Name, settings and how to make each store; those with a past have a place of their own."""
    made: list[tuple[str, str, Callable[[], Store]]] = [
        ("memory", "one process, lasts as long as it", MemoryStore),
        ("memory, past", "", _memory_with_past),
    ]
    for durability, setting in (("process", "WAL, synchronous NORMAL"), ("power", "WAL, synchronous FULL")):
        name = f"SQLite {durability}"
        made.append((name, setting, lambda d=durability: SqliteStore(folder / f"{d}.db", d)))
        made.append((f"{name}, past", "", lambda d=durability: _sqlite_with_past(folder / f"{d}-past.db", d)))
    for fsync in ("everysec", "always"):
        for past in ("", ", past") if fsync == "everysec" else ("",):
            if (server := _server(stack, lambda f=fsync: Redis(fsync=f))) is not None:
                setting = f"{server.version()}, appendonly yes, appendfsync {fsync}, local TCP"
                make = _redis_with_past if past else lambda s: RedisStore(s.url)
                made.append((f"Redis {fsync}{past}", setting, lambda s=server, m=make: m(s)))
    for past in ("", ", past"):
        if (server := _server(stack, Postgres)) is not None:
            setting = f"{server.version()}, fsync on, synchronous_commit on, local TCP"
            make = _postgres_with_past if past else lambda s: PostgresStore(s.url)
            made.append((f"PostgreSQL{past}", setting, lambda s=server, m=make: m(s)))
            _bare_on[:] = _bare_on or [server]
    return made


_bare_on: list[Server] = []


def _bare(stack: contextlib.ExitStack) -> dict[str, Call]:
    """Two statements that change one row each, committed one by one, on the server that the store is measured on."""
    if not _bare_on:
        return {}
    import psycopg

    db = stack.enter_context(psycopg.connect(_bare_on.pop().url, autocommit=True))
    db.execute("CREATE TABLE bare (scope text PRIMARY KEY, amount bigint NOT NULL)")
    db.execute("INSERT INTO bare VALUES ('run:1:usd', 0)")

    def pair() -> None:
        for amount in (7, -4):
            db.execute("UPDATE bare SET amount = amount + %s WHERE scope = %s", (amount, "run:1:usd"), prepare=True)

    return {"bare": _sample(pair)}


def _server(stack: contextlib.ExitStack, make: Callable[[], Server]) -> Server | None:
    try:
        server = make()
    except Missing as missing:
        print(f"left out: {missing}", file=sys.stderr)
        return None
    stack.callback(server.remove)
    server.start()
    return server


def _memory_with_past() -> Store:
    store = MemoryStore()
    store._used.update((f"run:past-{i}:usd", 7) for i in range(PAST))  # noqa: SLF001
    store._keys.update(f"past-{i}" for i in range(PAST))  # noqa: SLF001
    return store


def _sqlite_with_past(file: Path, durability: str) -> Store:
    store = SqliteStore(file, durability)  # type: ignore[arg-type]
    with store._transaction() as db:  # noqa: SLF001
        db.execute(_NUMBERS + "INSERT INTO used SELECT 'run:past-' || i || ':usd', 7 FROM n")
        db.execute(_NUMBERS + "INSERT INTO reservation SELECT 'past-' || i, NULL, NULL FROM n")
    return store


def _redis_with_past(server: Server) -> Store:
    import redis

    store = RedisStore(server.url)
    with redis.Redis(port=server.port, protocol=2) as client:
        for start in range(0, PAST, 10_000):
            client.eval(_REDIS, 0, start, start + 9_999)
    return store


def _postgres_with_past(server: Server) -> Store:
    assert isinstance(server, Postgres)
    store = PostgresStore(server.url)
    numbers = f"FROM generate_series(1, {PAST}) i"
    server.sql(f"INSERT INTO guardrails.used SELECT 'run:past-' || i || ':usd', 7 {numbers}")
    server.sql(f"INSERT INTO guardrails.reserved SELECT 'past-' || i {numbers}")
    server.sql("ANALYZE guardrails.used; ANALYZE guardrails.reserved")
    return store
