"""Makes the helpers that tests share importable, also in the child processes that isolated gates start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_randomly

sys.path.insert(0, str(Path(__file__).parent))

from servers import Postgres, Redis, Server, running

hypothesis.settings.register_profile("untimed", deadline=None)  # how busy the machine is says nothing about a law
hypothesis.settings.load_profile("untimed")

# spaCy's library would import PyTorch into every worker and seed it three times a test; what trains seeds it itself
pytest_randomly.entrypoint_reseeds = []


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of deadlines, queues and servers wait for much of their time."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (len(affinity(0)) if affinity else os.cpu_count() or 1) + 1


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """A server that stays up."""
    yield from running(lambda: Redis(fsync="everysec"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A server that stays up."""
    yield from running(Postgres)
