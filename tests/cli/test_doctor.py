"""The doctor finds what is broken, and nothing else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from commands import POLICY, run, store


class _Receiver(BaseHTTPRequestHandler):
    """Takes spans at one path, refuses keys at another."""

    def do_POST(self) -> None:
        self.send_response({"/v1/traces": 200, "/locked": 401}.get(self.path, 404))
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def doctor(policy: Path, *more: str) -> tuple[int, dict[str, dict[str, str]]]:
    result = run("doctor", "-p", policy, "--json", *more)
    return result.exit_code, {each["what"]: each for each in json.loads(result.stdout)}


def test_doctor(policy: Path) -> None:
    """Versions, extras, the store with its schema version, gates: all well."""
    store(policy).close()
    code, found = doctor(policy, "--warm")
    assert code == 0, found
    assert "schema version 2 of 2" in found["store"]["told"]
    assert found["python"]["state"] == found["langgraph"]["state"] == found["extra pii"]["state"] == "ok"
    assert found["policy stage.output"]["state"] == "note"
    assert run("doctor").exit_code == 0


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [("/v1/traces", 0, "takes spans"), ("/locked", 1, "refuses the keys"), ("/else", 1, "does not take spans (404)")],
)
def test_doctor_asks_endpoints(policy: Path, receiver: str, path: str, code: int, words: str) -> None:
    """An endpoint is asked with an empty export; what it answers is told."""
    policy.write_text(POLICY + f"traces: {{otlp: [{{endpoint: '{receiver}{path}'}}]}}\n")
    real, found = doctor(policy)
    assert (real, words in found["traces otlp"]["told"]) == (code, True), found["traces otlp"]


def test_doctor_finds_a_dead_endpoint(policy: Path) -> None:
    """An endpoint that nobody answers at is broken; its keys and queries are not shown."""
    policy.write_text(POLICY + "traces: {otlp: [{endpoint: 'http://user:pw@127.0.0.1:9/v1?key=k'}]}\n")
    code, found = doctor(policy)
    assert (code, found["traces otlp"]["state"]) == (1, "broken")
    assert not {"pw", "key"} & set(found["traces otlp"]["told"].replace("=", "/").replace(":", "/").split("/"))


def test_doctor_starts_isolated_gates(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate in a process of its own is started, and one that does not start there is broken."""
    (tmp_path / "mine.py").write_text("from guardrails_mw import Verdict\ndef ok(event):\n    return Verdict.allow()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    isolated = POLICY.replace("{type: pii}", "{type: python, call: 'mine:ok', cost: isolated}")
    policy.write_text(isolated.replace("redact: [pii]", ""))
    code, found = doctor(policy)
    assert (code, found["gate pii"]["state"]) == (0, "ok"), found["gate pii"]
    assert "isolated" in found["gate pii"]["told"]


def test_doctor_finds_broken_things(policy: Path) -> None:
    """A store that is no database and a gate that cannot be built are broken, each by itself."""
    (policy.parent / "g.db").write_bytes(b"this is no database" * 100)
    policy.write_text(POLICY.replace("{type: pii}", "{type: python, call: 'no_such_module:check'}"))
    code, found = doctor(policy)
    assert (code, found["store"]["state"], found["gates"]["state"]) == (1, "broken", "broken")
    policy.write_text(POLICY.replace("sqlite:///g.db", "redsi://host"))
    assert doctor(policy)[1]["store"]["state"] == "broken"
    policy.write_text("version: 2")
    assert doctor(policy)[0] == 1
