"""The servers that stores are tried on: started once, wiped for every test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from servers import Postgres, Redis, Server, running

from guardrails_mw.conformance import Opener
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.postgres import PostgresStore
from guardrails_mw.stores.redis import RedisStore
from guardrails_mw.stores.sqlite import SqliteStore


@pytest.fixture(params=["redis", "postgres"])
def doomed(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for one test, to be killed, stopped and started again."""
    yield from running(Redis if request.param == "redis" else Postgres)


def opener_of(server: Server) -> Opener:
    """How the store on a server is opened, in this process or in another."""
    return partial(PostgresStore if isinstance(server, Postgres) else RedisStore, server.url)


@pytest.fixture(params=["memory", "sqlite-process", "sqlite-power", "redis", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Each of the stores, empty."""
    if request.param == "memory":
        return MemoryStore
    if request.param.startswith("sqlite"):
        return partial(SqliteStore, tmp_path / "store.db", request.param.removeprefix("sqlite-"))
    server: Server = request.getfixturevalue(f"{request.param}_server")
    server.wipe()
    return opener_of(server)
