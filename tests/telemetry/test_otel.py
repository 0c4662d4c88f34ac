"""Guardrail spans, the boundary they pass, and how sending begins and ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Actor, Content, Event, Stage, Where
from guardrails_mw.gate import Gate
from guardrails_mw.redaction import WITHHELD, Redactor
from guardrails_mw.sections import Otlp, TracesPolicy
from guardrails_mw.telemetry import Endpoint, langfuse_endpoint, tracing_from_policy
from guardrails_mw.telemetry.otel import Tracing
from guardrails_mw.verdict import Action, Check, Decision, Edit, Verdict, combine

WHERE = Where(run="run-1", thread="t-1", agent="shop")
KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-2"}
SECRET = "CANARY-123456"


def decision(*checks: Check, content: object = "hello", action: Action | None = None, **changes: object) -> Decision:
    event = Event(Stage.INPUT, Content(content), actor=Actor("u-1"), where=WHERE)
    verdict = combine(checks)
    made = Decision(
        "d-1", event, verdict.action if action is None else action, verdict, checks, event.content, event.content,
        "1:abc", 0.002, "middleware",
    )  # fmt: skip
    return replace(made, **changes)


def test_guardrail_span_in_three_vocabularies(tracing: Tracing, receiver) -> None:
    """A block becomes exactly these attributes, with status OK: a block is a result."""
    tracing.observe(decision(Check("injection", Verdict.block("override", score=1.4, threshold=1.0), 0.0015)))
    assert tracing.close()
    assert receiver.refused == []
    span = receiver.named("apply_guardrail injection")
    own = {
        "gate": "injection", "stage": "input", "verdict": "block", "enforced": "block", "policy": "1:abc",
        "latency_ms": 1.5, "seam": "middleware", "decision": "d-1", "shadow": False,
        "score": 1.4, "threshold": 1.0, "reason": "override",
    }  # fmt: skip
    output = {"verdict": "block", "enforced": "block", "reason": "override"}
    metadata = json.loads(span.attributes.pop("metadata"))
    shown = [json.loads(span.attributes.pop(key)) for key in ("output.value", "langfuse.observation.output")]
    assert metadata == own
    assert shown == [output, output]
    assert span.attributes == {
        "langfuse.observation.type": "guardrail",
        "openinference.span.kind": "GUARDRAIL",
        "gen_ai.operation.name": "apply_guardrail",
        "session.id": "t-1",
        "gen_ai.conversation.id": "t-1",
        "user.id": "u-1",
        "langfuse.observation.level": "ERROR",
        "langfuse.observation.status_message": "block: override",
        "langfuse.observation.input": "hello",
        "input.value": "hello",
        "input.mime_type": "text/plain",
        "output.mime_type": "application/json",
        "gen_ai.evaluation.name": "injection",
        "gen_ai.evaluation.score.label": "block",
        "gen_ai.evaluation.score.value": 1.4,
        "gen_ai.evaluation.explanation": "override",
        "graph.node.name": "injection",
        "graph.node.id": span.id,
        "langfuse.observation.metadata.langgraph_node": "gate:injection",
        **{f"guardrails_mw.{key}": value for key, value in own.items()},
        **{f"langfuse.observation.metadata.{k}": v if isinstance(v, str) else json.dumps(v) for k, v in own.items()},
    }
    assert (span.code, span.message) == (1, "")
    assert span.resource["langfuse.release"] == "r7"
    assert span.resource["openinference.project.name"] == "guardrails-mw"


@pytest.mark.parametrize(
    ("verdict", "said", "level"),
    [
        (Verdict.allow(), "allow", "DEFAULT"),
        (Verdict.allow(edits=[Edit(0, 1, "x")]), "edit", "WARNING"),
        (Verdict.flag("odd"), "flag", "WARNING"),
        (Verdict.ask("large"), "ask", "WARNING"),
        (Verdict.block("bad"), "block", "ERROR"),
    ],
)
def test_levels(tracing: Tracing, receiver, verdict: Verdict, said: str, level: str) -> None:
    """Every verdict leaves a span, an allow too, with its own word and level."""
    tracing.observe(decision(Check("g", verdict)))
    tracing.close()
    span = receiver.named("apply_guardrail g")
    assert span.attributes["guardrails_mw.verdict"] == said
    assert span.attributes["langfuse.observation.level"] == level
    assert span.code == 1


def test_verdict_apart_from_enforced(tracing: Tracing, receiver) -> None:
    """In shadow mode a block is what was said and an allow is what was done."""
    tracing.observe(decision(Check("g", Verdict.block("bad")), action=Action.ALLOW, shadow=True))
    tracing.close()
    attributes = receiver.named("apply_guardrail g").attributes
    assert attributes["guardrails_mw.verdict"] == "block"
    assert attributes["guardrails_mw.enforced"] == "allow"
    assert attributes["guardrails_mw.shadow"] is True


def test_gate_failure_is_an_error(tracing: Tracing, receiver) -> None:
    """Only a gate that failed colours the span, with its code."""
    tracing.observe(decision(Check("g", Verdict.flag("error.deadline"), error="deadline")))
    tracing.close()
    span = receiver.named("apply_guardrail g")
    assert (span.code, span.message) == (2, "deadline")
    assert span.attributes["error.type"] == span.attributes["guardrails_mw.error"] == "deadline"
    assert span.attributes["langfuse.observation.level"] == "ERROR"


def test_checks_follow_one_another_in_one_trace(tracing: Tracing, receiver) -> None:
    """Checks lie in time as they ran, and two decisions of one run share a trace without any host span."""
    tracing.observe(decision(Check("a", Verdict(), 0.004), Check("b", Verdict(), 0.002)))
    tracing.observe(decision(Check("c", Verdict())))
    tracing.close()
    a, b, c = (receiver.named(f"apply_guardrail {name}") for name in "abc")
    assert a.end == b.start
    assert (a.end - a.start, b.end - b.start) == (4_000_000, 2_000_000)
    assert a.trace == b.trace == c.trace
    assert a.parent == b.parent == c.parent == ""


def test_content_none(trace: Callable[..., Tracing], receiver) -> None:
    """Without content a span says what was decided and nothing of what was said."""
    tracing = trace(content="none")
    tracing.observe(decision(Check("g", Verdict.flag("odd")), content="the weather in Oslo"))
    tracing.close()
    assert receiver.named("apply_guardrail g").attributes["guardrails_mw.reason"] == "odd"
    assert b"Oslo" not in receiver.raw
    assert "input.value" not in receiver.spans[0].attributes


class Counting(Gate):
    """Counts what it is asked."""

    asked = 0

    def check(self, event: Event) -> Verdict:
        self.asked += "order" in event.content.text
        return Verdict.allow()


def test_known_verdicts_are_used(trace: Callable[..., Tracing], receiver) -> None:
    """What a redacting gate said at the stage is used for the span; it is not asked again."""
    gate = Counting("pii")
    tracing = trace(redactor=Redactor([gate]))
    tracing.observe(decision(Check("pii", Verdict.allow(edits=[Edit(0, 5, "[X]")])), content="order 7"))
    tracing.close()
    assert receiver.named("apply_guardrail pii").attributes["input.value"] == "[X] 7"
    assert gate.asked == 0


class Broken(Gate):
    """Cannot answer."""

    def check(self, event: Event) -> Verdict:
        raise RuntimeError(event.content.text)


def test_failing_redaction_withholds(trace: Callable[..., Tracing], receiver) -> None:
    """Where the redacting gates fail, the tree and our own words remain and everything else is withheld."""
    tracing = trace(redactor=Redactor([Broken("b")]))
    tracing.observe(decision(Check("g", Verdict.block("bad")), content=f"my key {SECRET}"))
    tracing.close()
    (span,) = receiver.spans
    assert span.name == span.attributes["guardrails_mw.gate"] == span.attributes["input.value"] == WITHHELD
    assert span.kind == "GUARDRAIL"
    assert span.attributes["guardrails_mw.verdict"] == "block"
    assert b"my key" not in receiver.raw
    assert SECRET.encode() not in receiver.raw


class Raising(Redactor):
    """A redactor with a defect."""

    def text(self, text: str) -> str:
        raise RuntimeError(text)


def test_raising_redactor_leaves_structure(trace: Callable[..., Tracing], receiver) -> None:
    """A defect in redaction costs the content, not the span, and is counted."""
    tracing = trace(redactor=Raising([]))
    tracing.observe(decision(Check("g", Verdict.block("bad")), content=SECRET))
    tracing.close()
    (span,) = receiver.spans
    assert span.attributes == {"guardrails_mw.withheld": True}
    assert tracing.withheld == 1
    assert SECRET.encode() not in receiver.raw


@pytest.mark.parametrize(
    "content",
    [
        f"x {SECRET}",
        {"note": f"name\n{SECRET}"},  # in JSON text the break would be the letter n, right before the secret
        {f"a {SECRET}": 1},
        ["y" * 40_000, SECRET],
        "z" * 9_990 + f" {SECRET}",  # across the end of what is sent
        "z" * 14_089 + f" {SECRET}",  # across the end of what is looked at
        {"long": "z" * 14_089 + f" {SECRET}"},
    ],
)
def test_secret_in_content(tracing: Tracing, receiver, content: object) -> None:
    """No part of a secret leaves, however the content is built and wherever it is cut."""
    tracing.observe(decision(Check("g", Verdict()), content=content))
    tracing.close()
    assert len(receiver.spans) == 1
    assert tracing.withheld == 0
    assert b"CANARY" not in receiver.raw
    assert len(str(receiver.spans[0].attributes["input.value"])) <= 10_000


@pytest.mark.parametrize("content", ["\ud800 lone", {"n": 1 << 80}, {"o": object()}, {"nan": float("nan")}])
def test_hostile_content_costs_no_batch(tracing: Tracing, receiver, content: object) -> None:
    """What OTLP cannot encode does not take the other spans of its batch with it."""
    tracing.observe(decision(Check("odd", Verdict()), content=content))
    tracing.observe(decision(Check("fine", Verdict())))
    tracing.close()
    assert {span.name for span in receiver.spans} == {"apply_guardrail odd", "apply_guardrail fine"}


def test_foreign_spans_and_processors(tracing: Tracing, receiver) -> None:
    """Spans of other libraries and processors that others add are behind the same boundary."""
    memory = InMemorySpanExporter()
    tracing.provider.add_span_processor(SimpleSpanProcessor(memory))
    with tracing.provider.get_tracer(f"lib {SECRET}").start_as_current_span(f"call {SECRET}") as span:
        span.set_attribute(f"k {SECRET}", f"v {SECRET}")
        span.set_attribute("list", [f"a {SECRET}", "b"])
        span.set_attribute("json", json.dumps({"t": f"line\n{SECRET}"}))
        span.add_event(f"event {SECRET}", {"e": SECRET})
        span.record_exception(ValueError(SECRET))
    tracing.observe(decision(Check("g", Verdict()), content=SECRET))
    tracing.close()
    assert len(receiver.spans) == 2
    assert b"CANARY" not in receiver.raw
    assert "CANARY" not in "".join(span.to_json() for span in memory.get_finished_spans())
    assert len(memory.get_finished_spans()) == 2
    assert receiver.named("call [SECRET]").attributes["list"] == ["a [SECRET]", "b"]


def test_observe_never_raises(tracing: Tracing) -> None:
    """A decision that makes no sense is counted and swallowed."""
    tracing.observe(None)  # type: ignore[arg-type]
    assert tracing.failures == 1


def test_global_provider_is_left_alone(tracing: Tracing) -> None:
    """OpenTelemetry's default provider is not ours."""
    from opentelemetry import trace

    assert trace.get_tracer_provider() is not tracing.provider


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_dead_endpoint_delays_no_other(receiver, redactor: Redactor) -> None:
    """A live endpoint gets everything while a dead one next to it keeps failing."""
    env = {**os.environ, **KEYS, "LANGFUSE_BASE_URL": receiver.url}
    dead = Endpoint(f"http://127.0.0.1:{_closed_port()}/v1/traces")
    tracing = Tracing([dead, langfuse_endpoint(env)], redactor, timeout=30.0)
    for _ in range(20):
        tracing.observe(decision(Check("g", Verdict())))
    receiver.wait(20)
    assert not tracing.close(0.1)


SCRIPT = """
    import logging, sys, time
    logging.disable(50)
    from guardrails_mw.event import Content, Event, Stage
    from guardrails_mw.redaction import Redactor
    from guardrails_mw.telemetry import Endpoint
    from guardrails_mw.telemetry.otel import Tracing
    from guardrails_mw.verdict import Action, Check, Decision, Verdict

    tracing = Tracing([Endpoint(sys.argv[1]), Endpoint(sys.argv[1])], Redactor([]))
    content, checks = Content("hello"), (Check("g", Verdict()),)
    for number in range(2000):
        event = Event(Stage.INPUT, content)
        tracing.observe(Decision(str(number), event, Action.ALLOW, Verdict(), checks, content, content, "p", 0.0))
    print(time.time(), flush=True)
"""


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "never answers"])
def test_process_ends_in_time(silent: bool) -> None:
    """With 2,000 spans queued for a dead endpoint the process still ends soon after its last line."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"
        if silent:
            listener.listen(64)
        command = [sys.executable, "-c", textwrap.dedent(SCRIPT), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        seconds = time.time() - float(done.stdout)
    print(f"exit after {seconds:.2f} s")
    assert seconds < 6.0


def test_script_without_close_still_sends(receiver) -> None:
    """What is queued when a script ends is sent, though nobody closed anything."""
    script = SCRIPT.replace("Endpoint(sys.argv[1]), Endpoint(sys.argv[1])", "langfuse_endpoint(os.environ)").replace(
        "import logging",
        "import os, logging\n    from guardrails_mw.telemetry import langfuse_endpoint\n    import logging",
    )
    env = {**os.environ, **KEYS, "LANGFUSE_BASE_URL": receiver.url}
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script).replace("2000", "20")],
        env=env,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert len(receiver.spans) == 20


FORK = """
    import os, sys
    from guardrails_mw.event import Content, Event, Stage
    from guardrails_mw.redaction import Redactor
    from guardrails_mw.telemetry import langfuse_endpoint
    from guardrails_mw.telemetry.otel import Tracing
    from guardrails_mw.verdict import Action, Check, Decision, Verdict

    tracing = Tracing([langfuse_endpoint(os.environ)], Redactor([]))
    child = os.fork()
    gate, content = "parent" if child else "child", Content("x")
    checks = (Check(gate, Verdict()),)
    event = Event(Stage.INPUT, content)
    tracing.observe(Decision("d", event, Action.ALLOW, Verdict(), checks, content, content, "p", 0.0))
    if child:
        os.waitpid(child, 0)
"""


def test_forked_child_sends_too(receiver) -> None:
    """A server that forks its workers gets the spans of parent and child."""
    env = {**os.environ, **KEYS, "LANGFUSE_BASE_URL": receiver.url}
    subprocess.run([sys.executable, "-c", textwrap.dedent(FORK)], env=env, capture_output=True, check=True, timeout=60)
    assert sorted(span.name for span in receiver.spans) == ["apply_guardrail child", "apply_guardrail parent"]


def test_headers_of_other_exporters_stay_away(receiver, redactor: Redactor, monkeypatch, tmp_path) -> None:
    """Keys in OpenTelemetry's own variables and in .netrc are not sent to our endpoints."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=for-somebody-else")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    tracing = Tracing([langfuse_endpoint({**KEYS, "LANGFUSE_BASE_URL": receiver.url})], redactor)
    tracing.observe(decision(Check("g", Verdict())))
    tracing.close()
    assert receiver.refused == []
    assert set(receiver.headers) == {
        "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length",
        "content-type", "host", "user-agent", "x-langfuse-ingestion-version",
    }  # fmt: skip


def test_policy_names_missing_keys(redactor: Redactor) -> None:
    """Langfuse without keys is an error that says which variables to set."""
    with pytest.raises(PolicyError, match="LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY must be set"):
        tracing_from_policy(TracesPolicy(langfuse=True), redactor, {})
    with pytest.raises(PolicyError, match=r"^traces\.langfuse: LANGFUSE_SECRET_KEY must be set"):
        tracing_from_policy(TracesPolicy(langfuse=True), redactor, {"LANGFUSE_PUBLIC_KEY": "pk"})


def test_nothing_configured_is_no_tracing(redactor: Redactor) -> None:
    """No receiver, or OpenTelemetry's own switch, means no tracing at all."""
    assert tracing_from_policy(TracesPolicy(), redactor, {}) is None
    policy = TracesPolicy(otlp=[Otlp(endpoint="http://127.0.0.1:1/v1/traces")])
    assert tracing_from_policy(policy, redactor, {"OTEL_SDK_DISABLED": "true"}) is None


def test_policy_with_langfuse_sends_there(receiver, redactor: Redactor) -> None:
    """The policy's switch and the environment are enough; the server accepts what arrives."""
    env = {
        **KEYS, "LANGFUSE_BASE_URL": receiver.url + "/",
        "LANGFUSE_TRACING_ENVIRONMENT": "staging", "OTEL_SERVICE_NAME": "shop",
    }  # fmt: skip
    tracing = tracing_from_policy(TracesPolicy(langfuse=True), redactor, env)
    assert tracing is not None
    tracing.observe(decision(Check("g", Verdict())))
    assert tracing.flush()
    assert receiver.refused == []
    assert receiver.spans[0].resource["langfuse.environment"] == "staging"
    assert receiver.spans[0].resource["service.name"] == "shop"
    tracing.close()


def test_langfuse_environment_is_checked() -> None:
    """An environment name that Langfuse would refuse is refused here."""
    with pytest.raises(PolicyError, match="LANGFUSE_TRACING_ENVIRONMENT"):
        langfuse_endpoint(
            {"LANGFUSE_PUBLIC_KEY": "p", "LANGFUSE_SECRET_KEY": "s", "LANGFUSE_TRACING_ENVIRONMENT": "My Env"}
        )


def test_keys_are_not_in_repr() -> None:
    """Printing an endpoint does not print its keys."""
    assert "Basic" not in repr(langfuse_endpoint({"LANGFUSE_PUBLIC_KEY": "p", "LANGFUSE_SECRET_KEY": "s"}))
