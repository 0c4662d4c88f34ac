"""Makes the helpers that tests share importable, also in the child processes that isolated gates start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from servers import Postgres, Redis, Server, running


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A server that stays up."""
    yield from running(lambda: Redis(fsync="everysec"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server that stays up."""
    yield from running(Postgres)
