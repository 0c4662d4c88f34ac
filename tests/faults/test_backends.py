"""Backends that fail, over real HTTP and in real stores: gates with an endpoint, trace endpoints, stores."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat import decisions, make_guard
from hosts import Host
from servers import Server

from guardrails_mw import Guard
from guardrails_mw.errors import StoreError
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import GateTypes
from guardrails_mw.policy import TracesPolicy
from guardrails_mw.seam import SEAMS, Power
from guardrails_mw.store import Store
from guardrails_mw.stores import SCHEMES, open_store
from guardrails_mw.testing import BadServer, bad_server, broken_store
from guardrails_mw.verdict import Action

TYPES = GateTypes.installed()
REMOTE = [name for name in TYPES.names if "endpoint" in TYPES.get(name).config_type.model_fields]
ACTIONS = {"block": Action.BLOCK, "flag": Action.FLAG, "queue": Action.BLOCK, "unsafe_allow": Action.ALLOW}
HOSTS = [seam.name for seam in SEAMS if seam.can(Stage.INPUT, Power.BLOCK)]


# gates with an endpoint


def _remote(folder: Path, gate: str, url: str, on_error: str) -> Guard:
    head = f"on_error: {on_error}\nqueue: {{within: 200ms}}\ndeadline_ms: 500\n"
    return make_guard(folder, f"{head}gates: {{far: {{type: {gate}, endpoint: '{url}/v1'}}}}\nstages: {{input: [far]}}")


def test_there_are_gates_with_an_endpoint() -> None:
    """The rows below are made for every installed type that has one."""
    assert "llama_guard" in REMOTE


@pytest.mark.parametrize("on_error", ACTIONS)
@pytest.mark.parametrize("kind", BadServer)
@pytest.mark.parametrize("gate", REMOTE)
def test_a_bad_server_is_an_error(gate: str, kind: BadServer, on_error: str, tmp_path: Path) -> None:
    """Whatever a server does instead of answering means what the policy says, sync and async, in bounded time."""
    with bad_server(kind) as url, _remote(tmp_path, gate, url, on_error) as guard:
        for number, decide in enumerate((guard.decide, lambda event: asyncio.run(guard.adecide(event)))):
            began = time.perf_counter()
            decision = decide(Event(Stage.INPUT, Content(f"hello {number}")))
            (check,) = decision.checks
            assert (check.verdict.action, bool(check.error)) == (ACTIONS[on_error], True)
            assert decision.verdict.reason.startswith("error.")
            assert time.perf_counter() - began < 30


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("seam", HOSTS)
@pytest.mark.parametrize("kind", [BadServer.HTTP_500, BadServer.NONSENSE, BadServer.DRIPS])
@pytest.mark.parametrize("gate", REMOTE)
def test_a_bad_server_behind_a_seam(gate: str, kind: BadServer, seam: str, mode: str, tmp_path: Path) -> None:
    """No model is called behind a gate whose server does not answer, and the caller is told."""
    with bad_server(kind) as url, _remote(tmp_path, gate, url, "block") as guard:
        host = Host(seam, guard)
        outcome = host.run(mode, Stage.INPUT, "n1")
        assert not host.happened(Stage.INPUT, outcome, mode)
        assert host.told(outcome)


# stores

OPERATIONS = sorted(name for name in vars(Store) if not name.startswith("_") and name not in ("blocking", "close"))
ERRORS: dict[str, Callable[[], Exception]] = {
    "cannot": lambda: StoreError("store.broken"),
    "broken": lambda: OSError("raw text of a store"),
    "memory": lambda: MemoryError("raw text of a store"),
}
COUNTED = """
record: {{on_failure: {0}}}
gates: {{signs: {{type: injection}}}}
stages: {{input: [signs], output: [signs]}}
tools: {{look: {{}}}}
loops: {{}}
budgets: {{run: {{model_calls: 9}}}}
"""
NEEDED = {"append", "reserve"}
"""Operations without which nothing may happen: what is not recorded or reserved first is not done."""


def _address(scheme: str, request: pytest.FixtureRequest) -> str:
    """An address of an empty store of this kind. A new kind has to be written down here."""
    if scheme in ("memory", "sqlite"):
        return {"memory": "memory:", "sqlite": "sqlite:///faults.db"}[scheme]
    server: Server = request.getfixturevalue({"redis": "redis_server", "postgresql": "postgres_server"}[scheme])
    server.wipe()
    return server.url


def _store_cells() -> Iterator[tuple[str, str, str, str, str, str]]:
    return itertools.product(SCHEMES, OPERATIONS, ERRORS, HOSTS, ("invoke", "ainvoke"), ("block", "flag"))


def _stored(folder: Path, cell: tuple[str, str, str, str, str, str], address: str) -> str:
    """What is wrong with one request during which one operation of the store fails."""
    _, operation, error, seam, mode, on_failure = cell
    source = COUNTED.format(on_failure)
    folder.mkdir(parents=True)
    with make_guard(folder, f"store: 'memory:'\n{source}", store=open_store(address, folder)) as guard:
        host = Host(seam, guard)
        with broken_store(guard.store, [operation], ERRORS[error]):
            outcome = host.run(mode, Stage.INPUT, "n1")
        went_on = host.model.calls > 0
        reserves = seam not in ("nodes", "graph")  # these do not reach the model stage
        needed = (operation == "append" and on_failure == "block") or (operation == "reserve" and reserves)
        if went_on and needed:
            return f"{cell}: SILENT PASS"
        if went_on and operation != "append" and not decisions(guard):
            return f"{cell}: nothing on record"
        if not went_on and not isinstance(outcome, Exception) and not host.told(outcome):
            return f"{cell}: stopped, and nobody is told: {outcome!r:.200}"
        if not went_on and operation not in {"append", "reserve", "get", "swap"}:
            return f"{cell}: stopped by an operation that it does not need: {outcome!r:.200}"
        return ""


def test_a_sample_of_stores_that_fail(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each kind of store and operation: what has to be kept first is kept, or nothing happens."""
    cells = random.SystemRandom().sample(list(_store_cells()), 60)
    wrong = [_stored(tmp_path / str(number), cell, _address(cell[0], request)) for number, cell in enumerate(cells)]
    assert [each for each in wrong if each] == []


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_store_that_fails(scheme: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All of them."""
    cells = [cell for cell in _store_cells() if cell[0] == scheme]
    wrong = [_stored(tmp_path / str(number), cell, _address(cell[0], request)) for number, cell in enumerate(cells)]
    assert [each for each in wrong if each] == []


# trace endpoints

EXPORTERS = {
    "otlp": (lambda url: f"otlp: [{{endpoint: '{url}/v1/traces'}}]", lambda url: {}),
    "langfuse": (
        lambda url: "langfuse: true",
        lambda url: {"LANGFUSE_BASE_URL": url, "LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"},
    ),
}


def test_every_exporter_has_rows() -> None:
    """What a policy can send traces to is what is tried."""
    assert set(TracesPolicy.model_fields) - {"content"} == set(EXPORTERS)


def _traced(folder: Path, exporter: str, kind: BadServer, seam: str, mode: str) -> None:
    """A request whose traces go to a server that misbehaves: nobody notices, and closing ends in time."""
    section, env = EXPORTERS[exporter]
    with bad_server(kind) as url:
        source = f"traces: {{{section(url)}}}\ngates: {{signs: {{type: injection}}}}\nstages: {{input: [signs]}}"
        guard = make_guard(folder, source, env=env(url))
        host = Host(seam, guard)
        outcome = host.run(mode, Stage.INPUT, "n1")
        assert host.happened(Stage.INPUT, outcome, mode)
        assert not isinstance(outcome, Exception)
        assert not host.told(outcome)
        assert decisions(guard)
        began = time.perf_counter()
        guard.close(0.2)
        assert time.perf_counter() - began < 20


@pytest.mark.parametrize("kind", BadServer)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_trace_endpoint_that_fails(exporter: str, kind: BadServer, tmp_path: Path) -> None:
    """Under callbacks, where tracing and deciding share a call."""
    _traced(tmp_path, exporter, kind, "callbacks", "invoke")


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["ainvoke", "stream", "astream", "batch", "abatch"])
@pytest.mark.parametrize("seam", HOSTS)
@pytest.mark.parametrize("kind", BadServer)
@pytest.mark.parametrize("exporter", EXPORTERS)
def test_every_trace_endpoint_that_fails(exporter: str, kind: BadServer, seam: str, mode: str, tmp_path: Path) -> None:
    """In every seam and mode."""
    _traced(tmp_path, exporter, kind, seam, mode)
