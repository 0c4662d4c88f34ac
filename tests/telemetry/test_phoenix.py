"""A real Phoenix server takes the spans and gives them back as one tree."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from rich.console import Console

from guardrails_mw.demo import run as demo
from guardrails_mw.event import Actor, Content, Event, Stage, Where
from guardrails_mw.redaction import Redactor
from guardrails_mw.telemetry import Endpoint
from guardrails_mw.telemetry.otel import Tracing
from guardrails_mw.verdict import Check, Decision, Verdict, combine

_STARTS_WITHIN = 120.0


def _executable() -> str:
    """Where Phoenix is: PHOENIX_BIN, the project's own environment for it, or the PATH."""
    local = Path(__file__).parents[2] / ".venv-phoenix" / "bin" / "phoenix"
    found = os.environ.get("PHOENIX_BIN") or (str(local) if local.exists() else shutil.which("phoenix"))
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Phoenix is not installed: make phoenix")
    return str(found)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _get(url: str) -> object:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


@pytest.fixture(scope="session")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a running Phoenix with a database of its own."""
    folder, port = tmp_path_factory.mktemp("phoenix"), _free_port()
    env = {
        **os.environ,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(_free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    log, url = folder / "server.log", f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        server = subprocess.Popen([_executable(), "serve"], env=env, stdout=output, stderr=output)
    try:
        until = time.monotonic() + _STARTS_WITHIN
        while True:
            try:
                _get(f"{url}/v1/projects")
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()


class Scripted(BaseChatModel):
    """Calls a tool, then answers."""

    answers: Iterator[AIMessage]

    @property
    def _llm_type(self):
        return "scripted"

    def bind_tools(self, tools, **kwargs):
        return self

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": "tests", "ls_model_name": "scripted", "ls_model_type": "chat"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=next(self.answers))])


def _run(tracing: Tracing, thread: str) -> None:
    """An agent that asks its model, calls a tool whose call a gate looks at, and answers."""

    @tool
    def weather(city: str) -> str:
        """The weather."""
        check = Check("injection", Verdict.flag("odd", score=0.7, threshold=1.0), 0.001)
        event = Event(Stage.TOOL_CALL, Content({"city": city}), actor=Actor("u-1"), where=Where(thread=thread))
        verdict = combine([check])
        content = event.content
        tracing.observe(Decision("d-1", event, verdict.action, verdict, (check,), content, content, "1:abc", 0.001))
        return "sunny"

    usage = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    calls = [{"name": "weather", "args": {"city": "Oslo"}, "id": "1"}]
    answers = iter([AIMessage("", tool_calls=calls, usage_metadata=usage), AIMessage("Sunny.")])
    agent = create_agent(Scripted(answers=answers), [weather], name="shop")
    agent.invoke(
        {"messages": [HumanMessage("weather?")]},
        {"callbacks": [tracing.handler()], "metadata": {"thread_id": thread, "guardrails_actor": "u-1"}},
    )


def _stored(url: str, project: str, count: int) -> list[dict]:
    """The spans of a project, once there are that many."""
    until = time.monotonic() + 30
    while True:
        try:
            spans = _get(f"{url}/v1/projects/{project}/spans?limit=100")["data"]
        except urllib.error.HTTPError:  # the project appears with its first span
            spans = []
        if len(spans) >= count or time.monotonic() > until:
            return spans
        time.sleep(0.2)


def test_phoenix_shows_one_tree(phoenix: str) -> None:
    """Phoenix stores agent, model, tool and guardrail as what they are, in one tree, with usage and session."""
    project, thread = f"shop-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    tracing = Tracing([Endpoint(f"{phoenix}/v1/traces", name="phoenix")], Redactor([]), service=project)
    _run(tracing, thread)
    assert tracing.close(10.0)
    spans = _stored(phoenix, project, 8)
    assert {span["context"]["trace_id"] for span in spans} == {spans[0]["context"]["trace_id"]}
    by_id = {span["context"]["span_id"]: span for span in spans}

    def path(span: dict) -> str:
        above = path(by_id[span["parent_id"]]) + "/" if span["parent_id"] else ""
        return above + span["span_kind"]

    assert sorted(path(span) for span in spans) == [
        "AGENT",
        "AGENT/CHAIN",
        "AGENT/CHAIN",
        "AGENT/CHAIN",
        "AGENT/CHAIN/LLM",
        "AGENT/CHAIN/LLM",
        "AGENT/CHAIN/TOOL",
        "AGENT/GUARDRAIL",
    ]
    guardrail = next(span for span in spans if span["span_kind"] == "GUARDRAIL")
    assert guardrail["name"] == "apply_guardrail injection"
    assert guardrail["status_code"] == "OK"
    assert guardrail["attributes"]["guardrails_mw.verdict"] == "flag"
    assert json.loads(guardrail["attributes"]["input.value"]) == {"city": "Oslo"}
    assert {span["attributes"]["session.id"] for span in spans} == {thread}
    assert sum(span["attributes"].get("llm.token_count.total", 0) for span in spans) == 25


def test_the_demo_agent_is_one_tree(phoenix: str, receiver, tmp_path: Path) -> None:
    """A run of the demo's agent arrives at Phoenix and in Langfuse's format: one tree, and its secret in neither."""
    env = {
        "LANGFUSE_BASE_URL": receiver.url,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
        "LANGFUSE_SECRET_KEY": "sk-lf-2",
        "OTEL_EXPORTER_OTLP_ENDPOINT": phoenix,
    }
    assert demo.run(folder=tmp_path, only=["secret-in-note"], console=Console(quiet=True), env=env) == 0
    assert not receiver.refused
    assert len({span.trace for span in receiver.spans}) == 1
    ids = {span.id for span in receiver.spans}
    assert [span.kind for span in receiver.spans if span.parent not in ids] == ["AGENT"]
    assert {"AGENT", "LLM", "TOOL", "GUARDRAIL"} <= {span.kind for span in receiver.spans}
    assert {"guardrail", "generation", "tool", "agent"} <= {
        span.attributes["langfuse.observation.type"] for span in receiver.spans
    }
    project = str(receiver.spans[0].resource["openinference.project.name"])
    stored = [
        span for span in _stored(phoenix, project, len(ids)) if span["context"]["trace_id"] == receiver.spans[0].trace
    ]
    assert {span["context"]["span_id"] for span in stored} == ids
    assert [span["span_kind"] for span in stored if not span["parent_id"]] == ["AGENT"]
    edited = [s for s in stored if s["attributes"].get("guardrails_mw.gate") == "secrets" and s["attributes"]]
    assert any("[SECRET:stripe]" in json.dumps(span) for span in stored)
    assert {"tool_result"} <= {span["attributes"].get("guardrails_mw.stage") for span in edited}
    assert "sk_live" not in json.dumps(stored)
    assert b"sk_live" not in receiver.raw
