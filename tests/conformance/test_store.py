"""The four stores do what every store must do, the real servers included."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Server

from guardrails_mw.conformance import Opener, StoreConformance
from guardrails_mw.store import Claim
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.postgres import PostgresStore
from guardrails_mw.stores.redis import RedisStore
from guardrails_mw.stores.sqlite import SqliteStore


class TestMemory(StoreConformance):
    shared = lasting = False

    @pytest.fixture
    def opener(self) -> Opener:
        return MemoryStore


class TestSqlite(StoreConformance):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(SqliteStore, tmp_path / "store.db")


class TestSqlitePower(StoreConformance):
    rounds = 10

    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return partial(SqliteStore, tmp_path / "store.db", "power")


class TestRedis(StoreConformance):
    @pytest.fixture
    def opener(self, redis_server: Server) -> Opener:
        redis_server.wipe()
        return partial(RedisStore, redis_server.url)


class TestPostgres(StoreConformance):
    @pytest.fixture
    def opener(self, postgres_server: Server) -> Opener:
        postgres_server.wipe()
        return partial(PostgresStore, postgres_server.url)


keys = st.integers(0, 5)
steps = st.lists(
    st.tuples(keys, st.sampled_from(["reserve", "settle", "release"]), st.integers(0, 40), st.integers(0, 9)),
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_stores_agree(opener: Opener, work: list[tuple[int, str, int, int]]) -> None:
    """Every store answers every sequence of reservations, settlements and releases as the memory store does."""
    one, two = MemoryStore(), opener()
    mark = tempfile.mktemp(dir="")  # what earlier examples left is not looked at
    for key, what, amount, now in work:
        name, scopes = f"{mark}:{key}", (f"{mark}:s:x", f"{mark}:t{key % 2}:x")
        if what == "reserve":
            claims = [Claim(scopes[0], amount, 100), Claim(scopes[1], amount, 60)]
            answers: list[object] = [store.reserve(name, claims, float(now), 3.0) for store in (one, two)]
        elif what == "settle":
            answers = [store.settle(name, {"x": min(amount, 5)}) for store in (one, two)]
        else:
            answers = [store.release(name) for store in (one, two)]
        assert answers[0] == answers[1]
        for scope in (f"{mark}:s:x", f"{mark}:t0:x", f"{mark}:t1:x"):
            assert one.used(scope) == two.used(scope)
        assert two.used(f"{mark}:t1:x") <= 60
    two.close()
