"""A receiver that takes OTLP over HTTP the way Langfuse does, and a gate that redacts a made-up secret."""

from __future__ import annotations

import base64
import gzip
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from guardrails_mw.event import Event
from guardrails_mw.gate import Gate
from guardrails_mw.redaction import Redactor
from guardrails_mw.telemetry import langfuse_endpoint
from guardrails_mw.telemetry.otel import Tracing
from guardrails_mw.verdict import Edit, Verdict

KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-2"}


@dataclass
class Received:
    """A span as it arrived; ids are hex."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    code: int
    message: str
    attributes: dict[str, object]
    events: list[str]
    resource: dict[str, object]

    @property
    def kind(self) -> object:
        return self.attributes.get("openinference.span.kind")


@dataclass
class Receiver:
    """Speaks the trace endpoint of Langfuse: what it would refuse is refused, with the reason in `refused`."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    raw: bytes = b""
    refused: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)

    def named(self, name: str) -> Received:
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def path(self, span: Received) -> list[str]:
        """Names from the root to a span."""
        by_id = {s.id: s for s in self.spans}
        above = self.path(by_id[span.parent]) if span.parent else []
        return [*above, span.name]

    def wait(self, count: int, seconds: float = 10.0) -> None:
        until = time.monotonic() + seconds
        while len(self.spans) < count and time.monotonic() < until:
            time.sleep(0.01)
        assert len(self.spans) >= count, (len(self.spans), self.refused)


def _value(value: AnyValue) -> object:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, which) if which else None


def _mapping(pairs: list[KeyValue]) -> dict[str, object]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _received(span: Span, resource: dict[str, object]) -> Received:
    return Received(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code,
        span.status.message,
        _mapping(span.attributes),
        [event.name for event in span.events],
        resource,
    )


class _Handler(BaseHTTPRequestHandler):
    state: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.state.headers += [name.lower() for name in self.headers]
        problem = self._problem()
        if problem:
            self.state.refused.append(problem)
            self._reply(401 if problem == "auth" else 400)
            return
        plain = gzip.decompress(body)
        self.state.raw += plain
        for resource_spans in ExportTraceServiceRequest.FromString(plain).resource_spans:
            resource = _mapping(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                self.state.spans += [_received(span, resource) for span in scope_spans.spans]
        self._reply(200)

    def _problem(self) -> str:
        expected = base64.b64encode("{LANGFUSE_PUBLIC_KEY}:{LANGFUSE_SECRET_KEY}".format(**KEYS).encode()).decode()
        checks = {
            "path": self.path == "/api/public/otel/v1/traces",
            "auth": self.headers["Authorization"] == f"Basic {expected}",
            "version": self.headers["x-langfuse-ingestion-version"] == "4",
            "type": self.headers["Content-Type"] == "application/x-protobuf",
            "encoding": self.headers["Content-Encoding"] == "gzip",
        }
        return next((name for name, good in checks.items() if not good), "")

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running receiver; its `url` is the base that LANGFUSE_BASE_URL takes."""
    state = Receiver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()


class Canaries(Gate):
    """Finds the made-up secret, as a word of its own only, and asks for it to be replaced."""

    pattern = re.compile(r"\bCANARY-\d{6}\b")

    def check(self, event: Event) -> Verdict:
        return Verdict.allow(
            edits=[
                Edit(match.start(), match.end(), "[SECRET]", index)
                for index, part in event.texts()
                for match in self.pattern.finditer(part.text)
            ]
        )


@pytest.fixture
def redactor() -> Redactor:
    return Redactor([Canaries("canaries")])


@pytest.fixture
def trace(receiver: Receiver, redactor: Redactor) -> Iterator[Callable[..., Tracing]]:
    """Makes tracings that send to the receiver; closes them at the end."""
    made: list[Tracing] = []

    def make(**options: object) -> Tracing:
        endpoint = langfuse_endpoint({**KEYS, "LANGFUSE_BASE_URL": receiver.url, "LANGFUSE_RELEASE": "r7"})
        made.append(Tracing([endpoint], options.pop("redactor", redactor), **options))
        return made[-1]

    yield make
    for tracing in made:
        tracing.close()


@pytest.fixture
def tracing(trace: Callable[..., Tracing]) -> Tracing:
    return trace()
