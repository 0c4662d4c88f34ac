"""Makes the helpers that tests share importable, also in the child processes that isolated gates start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from servers import Postgres, Redis, Server, running

hypothesis.settings.register_profile("untimed", deadline=None)  # how busy the machine is says nothing about a law
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A server that stays up."""
    yield from running(lambda: Redis(fsync="everysec"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server that stays up."""
    yield from running(Postgres)
