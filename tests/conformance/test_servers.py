"""What only a server can promise: restarts, outages that cost little, rights, versions, no secret in an error."""

from __future__ import annotations

import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
import redis
from servers import Postgres, Redis, Server, free_port

from guardrails_mw import Guard, Policy
from guardrails_mw.conformance import Opener
from guardrails_mw.conformance.support import race
from guardrails_mw.document import Document
from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.ledger import verify
from guardrails_mw.store import Claim, Refusal, Store
from guardrails_mw.stores import open_store, schema_of, shown
from guardrails_mw.stores.breaker import UNREACHABLE, Breaker
from guardrails_mw.stores.postgres import PostgresStore
from guardrails_mw.stores.redis import RedisStore


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def open_on(server: Server, clock: Clock | None = None, timeout: float = 3.0, url: str = "") -> Store:
    """A store whose breaker follows a clock of ours."""
    kind = PostgresStore if isinstance(server, Postgres) else RedisStore
    return kind(url or server.url, timeout=timeout, breaker=Breaker(5.0, clock or Clock()))


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server that stays up, empty."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    found.wipe()
    return found


# restarts


def test_a_crashed_server_loses_nothing(doomed: Server) -> None:
    """Kill -9 of the server among callers: what was admitted is there, what was not told may be."""
    with closing(open_on(doomed)) as store:
        admitted: list[str] = []
        asked: list[str] = []

        def caller(index: int) -> None:
            for number in itertools.count():
                key = f"{index}:{number}"
                asked.append(key)
                try:
                    store.reserve(key, [Claim(f"{scope}:n", 1, 10**6) for scope in "ab"], 0.0, 60.0)
                    store.append("run", key, 0.0, "kind", "{}")
                except StoreError:
                    return
                admitted.append(key)

        threads = [threading.Thread(target=caller, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        while len(admitted) < 40:
            time.sleep(0.005)
        doomed.kill()
        for thread in threads:
            thread.join()
    doomed.start()
    with closing(open_on(doomed)) as store:
        used = store.used("a:n")
        assert len(admitted) <= used <= len(asked)
        assert store.used("b:n") == used
        assert verify(store.read("run")) == []
        assert set(admitted) <= {entry.key for entry in store.read("run")} <= set(asked)
        for key in asked:
            store.reserve(key, [Claim("a:n", 1, 10**6)], 0.0, 60.0)
        assert store.used("a:n") == len(asked)  # none of them counted twice
        assert all(store.settle(key, {"n": 0}) for key in asked)
        assert store.used("a:n") == 0


def test_a_crashed_server_keeps_the_cap(doomed: Server) -> None:
    """64 callers, a cap of 50, kill -9 of the server among them: all ask again after the restart, and 50 are in."""
    stores = [open_on(doomed) for _ in range(4)]
    asked = itertools.count()

    def caller(index: int) -> bool:
        if next(asked) == 40:
            doomed.kill()
        claims = [Claim(f"{scope}:n", 1, 50) for scope in ("tenant", f"agent:{index % 2}")]
        try:
            told = stores[index % 4].reserve(str(index), [*claims, Claim(f"run:{index}:n", 1, 1)], 0.0, 60.0)
            return not isinstance(told, Refusal)
        except StoreError:
            return False

    admitted = race(64, caller)
    for store in stores:
        store.close()
    doomed.start()
    stores[:] = [open_on(doomed) for _ in range(4)]
    again = race(64, caller)
    assert again.count(True) == stores[0].used("tenant:n") == 50
    assert all(now for before, now in zip(admitted, again, strict=True) if before)  # who was told so is still in
    assert sum(stores[0].used(f"agent:{agent}:n") for agent in (0, 1)) == 50
    for store in stores:
        store.close()


def test_a_store_outlives_a_restart(doomed: Server) -> None:
    """Connections that a restart has closed are replaced without anybody noticing."""
    with closing(open_on(doomed)) as store:
        race(8, lambda index: store.swap(f"k{index}", None, "1"))
        store.append("run", "before", 0.0, "kind", "{}")
        doomed.stop()
        doomed.start()
        assert race(8, lambda index: store.swap(f"k{index}", "1", "2")) == [True] * 8
        assert store.append("run", "after", 0.0, "kind", "{}").seq == 2


# outages


def test_a_dead_server_is_asked_once(doomed: Server) -> None:
    """Stopped: one call finds out, the others are refused at once; after the pause one asks, and all goes on."""
    clock = Clock()
    with closing(open_on(doomed, clock)) as store:
        store.swap("k", None, "1")
        doomed.stop()
        with pytest.raises(StoreError) as raised:
            store.get("k")
        assert raised.value.code in UNREACHABLE
        for call in (
            lambda: store.get("k"),
            lambda: store.swap("k", "1", "2"),
            lambda: store.append("run", "k", 0.0, "kind", "{}"),
            lambda: store.reserve("k", [Claim("s", 1, 2)], 0.0, 60.0),
            lambda: store.settle("k", {}),
            lambda: store.release("k"),
            lambda: list(store.read("run")),
            store.runs,
            lambda: store.keys(""),
            lambda: store.due("", 1.0),
        ):
            with pytest.raises(StoreError, match=r"^store\.down$"):
                call()
        doomed.start()
        with pytest.raises(StoreError, match=r"^store\.down$"):
            store.get("k")
        clock.now += 5.0
        assert store.get("k") == "1"


def test_a_server_that_never_answers(doomed: Server) -> None:
    """Frozen: a call ends after its timeout, on an old connection and on a new one; the others are refused at once."""
    clock = Clock()
    with closing(open_on(doomed, clock, timeout=0.3)) as store:
        store.swap("k", None, "1")
        doomed.freeze()
        for _ in range(2):  # the first on a connection that was idle, the second on a new one
            with pytest.raises(StoreError) as raised:
                store.get("k")
            assert raised.value.code in ("store.timeout", "store.unreachable")
            with pytest.raises(StoreError, match=r"^store\.down$"):
                store.swap("k", "1", "2")
            clock.now += 5.0
        doomed.thaw()
        assert store.get("k") == "1"


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that accepts connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}/0", "postgresql://u:secret@127.0.0.1:{}/d"])
def test_a_port_that_accepts_and_says_nothing(url: str, deaf: int) -> None:
    """Opening a store there ends with a code, after the timeout."""
    kind = RedisStore if url.startswith("redis") else PostgresStore
    with pytest.raises(StoreError, match=r"^store\.(timeout|unreachable)$"):
        kind(url.format(deaf), timeout=0.2)


def test_nothing_is_sent_twice(redis_server: Server) -> None:
    """A call whose answer did not come in time has reached the server once, not once more."""
    redis_server.wipe()
    client = redis.Redis(port=redis_server.port)
    with closing(client), closing(open_on(redis_server, timeout=0.3)) as store:
        store.swap("k", None, "1")
        client.config_resetstat()
        redis_server.freeze()
        with pytest.raises(StoreError, match=r"^store\.timeout$"):
            store.swap("k", "1", "2")
        redis_server.thaw()
        assert client.get("nothing") is None
        calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]  # type: ignore[index]
        assert calls == 1


POLICY = """
version: 1
store: {store}
record: {{on_failure: {failure}}}
gates: {{signs: {{type: injection}}}}
stages: {{input: [signs]}}
"""


@pytest.mark.parametrize("failure", ["block", "flag"])
def test_a_guard_whose_store_dies(doomed: Server, failure: str) -> None:
    """A decision that cannot be recorded is what the policy says, with the store's code; then records go on."""
    policy = Policy.load(Document(POLICY.format(store=doomed.url, failure=failure)))
    clock = Clock()
    with closing(open_on(doomed, clock)) as store, Guard(policy, store=store) as guard:
        assert not guard.check("Hello").blocked
        doomed.stop()
        for codes in (UNREACHABLE, {"store.down"}):
            decision = guard.check("Hello again")
            assert decision.action.word == failure
            assert decision.checks[-1].verdict.reason in codes
        doomed.start()
        clock.now += 5.0
        assert guard.check("Hello once more").action.word == "allow"
        assert [each.entries for each in store.runs()] == [2]


# connections


def test_few_connections_serve_many_callers(server: Server) -> None:
    """64 callers share the connections that a process may have."""
    with closing(open_on(server)) as store:
        assert race(64, lambda index: store.swap(f"k{index}", None, "1")) == [True] * 64
        if isinstance(server, Postgres):
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'guardrails-mw'"
            [[count]] = server.sql(query)
        else:
            with redis.Redis(port=server.port) as client:
                count = len(client.client_list()) - 1
        assert 1 <= int(str(count)) <= 8
    with pytest.raises(StoreError, match=r"^store\.closed$"):
        store.get("k0")


# versions


def test_those_who_open_an_empty_server_at_once(server: Server, opener_on: Opener) -> None:
    """Of many that find nothing, one makes the schema, and the others find it made."""
    assert schema_of(server.url, Path()).state == "absent"  # type: ignore[union-attr]
    for store in race(8, lambda _: opener_on()):
        assert store.get("k") is None
        store.close()
    assert schema_of(server.url, Path()).state == "current"  # type: ignore[union-attr]


@pytest.fixture
def opener_on(server: Server) -> Opener:
    return partial(open_store, server.url, Path())


def test_a_newer_version_is_refused(server: Server) -> None:
    """What a later version of this package has written is not touched."""
    open_store(server.url, Path()).close()
    if isinstance(server, Postgres):
        server.sql("UPDATE guardrails.version SET number = 99")
    else:
        with redis.Redis(port=server.port) as client:
            client.set("{guardrails}:version", 99)
    with pytest.raises(StoreError, match=r"^store\.newer_version$"):
        open_store(server.url, Path())
    found = schema_of(server.url, Path())
    assert found is not None
    assert (found.found, found.state) == (99, "newer")


def test_a_schema_of_somebody_else_is_refused(postgres_server: Postgres) -> None:
    """A schema with our name and without our table is not ours."""
    postgres_server.wipe()
    postgres_server.sql("CREATE SCHEMA guardrails; CREATE TABLE guardrails.theirs (x int)")
    with pytest.raises(StoreError, match=r"^store\.not_ours$"):
        open_store(postgres_server.url, Path())
    postgres_server.wipe()


# durability


def test_power_is_checked(server: Server) -> None:
    """`power` is refused by a server that may lose a second, and granted by one that syncs every commit."""
    if isinstance(server, Redis):
        with pytest.raises(StoreError, match=r"^store\.not_durable$"):
            open_store(server.url, Path(), "power")
        with redis.Redis(port=server.port) as client:
            client.config_set("appendfsync", "always")
            open_store(server.url, Path(), "power").close()
            client.config_set("appendfsync", "everysec")
    else:
        with closing(PostgresStore(server.url + "?options=-csynchronous_commit%3Doff", "power")) as store:
            [[found]] = store._server.query("SELECT current_setting('synchronous_commit')")
            assert found == "on"


def test_notes_say_what_is_lost(redis_server: Server) -> None:
    """A server that evicts, or keeps no log, is told of."""
    with redis.Redis(port=redis_server.port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        found = RedisStore.schema(redis_server.url).notes
        client.config_set("maxmemory-policy", "noeviction")
    assert "appendfsync is everysec" in found[0]
    assert "allkeys-lru" in found[1]


# PostgreSQL's own

DOCUMENT = Path(__file__).parents[2] / "docs" / "stores.md"


@pytest.fixture
def app_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL of a role with the rights that the documentation tells to give."""
    postgres_server.wipe()
    open_store(postgres_server.url, Path()).close()
    [rights] = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    postgres_server.sql(rights)
    yield postgres_server.url.replace("postgres@", "app@")
    postgres_server.wipe()
    postgres_server.sql("DROP ROLE app")


def test_a_role_with_few_rights_is_enough(app_url: str) -> None:
    """An application that may neither change nor delete records can use the store."""
    with closing(open_store(app_url, Path())) as store:
        assert store.append("run", "k", 0.0, "kind", "{}").seq == 1
        assert store.reserve("k", [Claim("s:n", 1, 2)], 0.0, 60.0) is None
        assert store.settle("k", {"n": 1})
        assert store.swap("k", None, "1")
        assert store.swap("k", "1", None)


@pytest.mark.parametrize(
    "attack",
    ["UPDATE guardrails.log SET body = '[]'", "DELETE FROM guardrails.log", "TRUNCATE guardrails.log"],
)
def test_the_log_is_append_only(postgres_server: Postgres, app_url: str, attack: str) -> None:
    """The application has no right to change an entry, and the owner is stopped by the trigger."""
    with closing(open_store(app_url, Path())) as store:
        entry = store.append("run", "k", 0.0, "kind", "{}")
        with psycopg.connect(app_url) as db, pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(attack.encode())
        with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
            postgres_server.sql(attack)
        assert list(store.read("run")) == [entry]


def test_a_role_without_the_right_to_migrate(postgres_server: Postgres, app_url: str) -> None:
    """Where an older schema would have to be raised and the role may not, the code says so."""
    postgres_server.sql("UPDATE guardrails.version SET number = 0; REVOKE USAGE ON SCHEMA guardrails FROM app")
    with pytest.raises(StoreError, match=r"^store\.(older_version|denied)$"):
        open_store(app_url, Path())


def test_numbers_no_server_holds(server: Server) -> None:
    """Numbers that the server cannot count with are a code, and leave nothing behind."""
    with closing(open_on(server)) as store:
        for call in (
            lambda: store.reserve("k", [Claim("s", 2**70, 2**80)], 0.0, 60.0),
            lambda: (
                store.reserve("k", [Claim("s", 1, 10)], float("nan"), 60.0)
                if isinstance(server, Redis)
                else store.reserve("k", [Claim("s", 2**63, 2**64)], 0.0, 60.0)
            ),
        ):
            with pytest.raises(StoreError, match=r"^store\.value$"):
                call()
        assert store.used("s") == 0
        assert store.reserve("k", [Claim("s", 1, 10)], 0.0, 60.0) is None


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@[::1:6379/0",
        "redis://app:hunter2@h:port/0",
        "rediss://h/0?socket_timeout=hunter2",
        "postgresql://app:hunter2@h:port/d",
        "postgresql://app:hunter2@h/d?no_such_option=1",
        "hunter2",
        "hunter2:x",
        "mysql://app:hunter2@h/d",
    ],
)
def test_bad_urls_tell_no_secret(url: str, tmp_path: Path) -> None:
    """A URL that cannot be used is an error of the field `store`, without what the URL holds."""
    with pytest.raises(PolicyError) as raised:
        open_store(url, tmp_path)
    assert raised.value.field == "store"
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_refused_password_is_told_nowhere(redis_server: Server) -> None:
    """A server that refuses the password is a code; neither error nor store holds the URL in its representation."""
    with pytest.raises(StoreError, match=r"^store\.denied$") as raised:
        open_store(redis_server.url.replace("//", "//app:hunter2@"), Path())
    assert "hunter2" not in repr(raised.value)
    with pytest.raises(StoreError, match=r"^store\.unreachable$"):
        open_store(f"postgresql://app:hunter2@127.0.0.1:{free_port()}/d", Path())


def test_urls_are_shown_without_secrets() -> None:
    """What people read names the place only."""
    for url, place in (
        ("redis://app:hunter2@h:6379/1?password=hunter2", "redis://h:6379/1"),
        ("postgresql://app:hunter2@h/d?password=hunter2", "postgresql://h/d"),
        ("postgresql://app:hunter2@h:port/d", "postgresql:..."),
        ("sqlite:///g.db", "sqlite:///g.db"),
        ("memory:", "memory:"),
    ):
        assert shown(url) == place
