"""Spans and where they go: a provider of our own, its exporters, and a span for every check of a decision.

Nothing global is touched: the provider is never made OpenTelemetry's default, and no context is attached.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING, Literal, TypeVar

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext, Status, StatusCode

from guardrails_mw.event import Where
from guardrails_mw.redaction import Redactor
from guardrails_mw.telemetry.anchors import Anchor, Anchors
from guardrails_mw.telemetry.boundary import Boundary, RedactingExporter, RedactingProvider
from guardrails_mw.telemetry.draft import Draft, Told, new_context, seeded_context
from guardrails_mw.telemetry.endpoint import Endpoint
from guardrails_mw.telemetry.vocabulary import Attributes, guardrail
from guardrails_mw.verdict import Check, Decision

if TYPE_CHECKING:
    from guardrails_mw.telemetry.handler import TraceHandler

__all__ = ["Tracing"]

_T = TypeVar("_T")
_HTTP_HEADERS = frozenset(
    {
        "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host",
        "user-agent",
    }
)  # fmt: skip
_QUEUE = 4_096
_BATCH = 512
_INTERVAL_MS = 1_000
_AT_EXIT = 2.5
"""Seconds that the end of the process waits for spans; with the interpreter's own end this stays below 3."""


class _Outlet:
    """An endpoint's queue and sender, with a thread that waits to flush it when tracing closes.

    That thread exists from the start because an interpreter that is ending starts no new ones.
    """

    def __init__(self, endpoint: Endpoint, boundary: Boundary, timeout: float) -> None:
        exporter = OTLPSpanExporter(
            endpoint.url,
            headers=dict(endpoint.headers),
            timeout=timeout,
            compression=Compression.Gzip,
            session=_session(endpoint),
        )
        self.processor = BatchSpanProcessor(RedactingExporter(exporter, boundary), _QUEUE, _INTERVAL_MS, _BATCH)
        self._closing = Event()
        self._wait()
        os.register_at_fork(after_in_child=_weakly(self, _Outlet._wait))  # a child has the queue, not the thread

    def close(self) -> Thread:
        """Begin to send the rest; the thread ends when everything is sent or lost."""
        self._closing.set()
        return self._closer

    def _wait(self) -> None:
        self._closer = Thread(target=self._shut, name="guardrails-traces-close", daemon=True)
        self._closer.start()

    def _shut(self) -> None:
        self._closing.wait()
        self.processor.shutdown()  # type: ignore[no-untyped-call]


class Tracing:
    """Sends spans to endpoints and emits guardrail spans.

    Args:
        endpoints: where spans go; each has its own queue and thread, so a dead one delays no other.
        redactor: what every outgoing text passes, in the sending thread.
        content: whether spans carry what was said, after redaction.
        service: ``service.name`` and the project name in Phoenix.
        timeout: seconds that one request to an endpoint may take, retries included.

    Attributes:
        provider: for other instrumentation that should send through the same boundary and endpoints.
        began: told a thread and the id its new run is traced by; keep it where `run_of` finds it.
        run_of: gives that id back, so that a resume in another process finds its trace.
        failures: decisions that could not be turned into spans, and calls of `began` or `run_of` that raised.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        redactor: Redactor,
        *,
        content: Literal["redacted", "none"] = "redacted",
        service: str = "guardrails-mw",
        timeout: float = 3.0,
    ) -> None:
        self.content: Literal["redacted", "none"] = content
        self.failures, self.anchors = 0, Anchors()
        self.began: Callable[[str, str], None] | None = None
        self.run_of: Callable[[str], str | None] | None = None
        self._handler: TraceHandler | None = None
        self._boundary = Boundary(redactor)
        self._resource = _resource(endpoints, service)
        self._processors = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self.provider: TracerProvider = RedactingProvider(
            self._boundary,
            sampler=ALWAYS_ON,  # a sampled-away block would look like no block
            resource=self._resource,
            shutdown_on_exit=False,
            active_span_processor=self._processors,
            span_limits=SpanLimits(  # a cut before redaction could leave half a secret
                max_attribute_length=SpanLimits.UNSET, max_span_attribute_length=SpanLimits.UNSET
            ),
        )
        self._outlets = [_Outlet(endpoint, self._boundary, timeout) for endpoint in endpoints]
        for outlet in self._outlets:
            self._processors.add_span_processor(outlet.processor)
        self._closed = False
        self._at_exit = atexit.register(_weakly(self, lambda tracing: tracing.close(_AT_EXIT)))

    @property
    def withheld(self) -> int:
        """Spans of which only the structure was sent, because redacting them failed."""
        return self._boundary.withheld

    def handler(self, *, inline: bool = False) -> TraceHandler:
        """The callback handler that traces LangChain and LangGraph runs; always the same one.

        Args:
            inline: run in the event loop, in the order of the list of callbacks. Needed before another inline
                handler that raises: under asyncio langchain-core would call that one first and then never us.
        """
        if self._handler is None:
            from guardrails_mw.telemetry.handler import TraceHandler

            self._handler = TraceHandler(self)
        if inline:
            self._handler.run_inline = True
        return self._handler

    def keep(self, thread: str, run: str) -> None:
        """Have the id of a thread's new run kept for resumes in other processes. Never raises."""
        try:
            if self.began is not None:
                self.began(thread, run)
        except Exception:  # noqa: BLE001 - a store that fails costs the connection of two traces, not the run
            self.failures += 1

    def kept(self, thread: str) -> str:
        """The id kept for a thread; empty where there is none. Never raises."""
        try:
            return (self.run_of(thread) if self.run_of is not None else None) or ""
        except Exception:  # noqa: BLE001 - as above
            self.failures += 1
            return ""

    def redact_by(self, redactor: Redactor) -> None:
        """Redact by another policy from now on, also what waits to be sent."""
        self._boundary.redact_by(redactor)

    def observe(self, decision: Decision) -> None:
        """Emit a span for every check of a decision, one after the other in time. Never raises.

        The span's parent is the host run that the decision names, else the root of its run or thread;
        a decision whose run has no span yet starts the run's trace.
        """
        if self._closed:
            return
        try:
            self._observe(decision)
        except Exception:  # noqa: BLE001 - watching must not change what is watched
            self.failures += 1

    def _observe(self, decision: Decision) -> None:
        end = time.time_ns()
        anchor = self._anchor(decision.event.where)
        trace_id = anchor.context.trace_id if anchor else self._first(decision.event.where).trace_id
        contents: dict[str, object] = {} if self.content == "none" else {"input": Told(decision)}
        for check in reversed(decision.checks):
            start = end - int(check.seconds * 1e9)
            context = new_context(trace_id)
            self.emit(
                f"apply_guardrail {check.gate}",
                (context, anchor.context if anchor else None),
                (start, end),
                describe=partial(_described, decision, check, context, anchor.step if anchor else None),
                contents=contents,
                status=Status(StatusCode.ERROR, check.error) if check.error else _OK,
            )
            end = start

    def _anchor(self, where: Where) -> Anchor | None:
        """The span that a decision hangs under."""
        anchors = self.anchors
        known = anchors.get("run", where.run)
        anchor = anchors.get("span", where.span) or known or anchors.get("thread", where.thread)
        if anchor is not None and known is None and where.run:  # later decisions of the run may know no span
            anchors.put("run", where.run, anchors.get("trace", format(anchor.context.trace_id, "032x")) or anchor)
        return anchor

    @staticmethod
    def _first(where: Where) -> SpanContext:
        """Where the host's trace will be if it begins after this decision and is known by the same id."""
        return seeded_context(where.run) if where.run else new_context()

    def emit(
        self,
        name: str,
        identity: tuple[SpanContext, SpanContext | None],
        times: tuple[int, int],
        *,
        describe: Callable[[], Attributes],
        contents: Mapping[str, object],
        status: Status,
    ) -> None:
        """Queue a finished span for every endpoint; the arguments are those of `Draft`."""
        if not self._closed:
            resource = self._resource
            self._processors.on_end(
                Draft(name, identity, times, resource=resource, describe=describe, contents=contents, status=status)
            )

    def flush(self, budget: float = 3.0) -> bool:
        """Send what is queued; False where that took longer than `budget` seconds and goes on without us."""
        threads = [Thread(target=o.processor.force_flush, daemon=True) for o in self._outlets]
        for thread in threads:
            thread.start()
        return _joined(threads, budget)

    def close(self, budget: float = 3.0) -> bool:
        """Send what is queued and stop; False where `budget` seconds were not enough and spans may be lost.

        Also done at the end of the process, in a bounded time, if nobody did it before.
        """
        if self._closed:
            return True
        self._closed = True
        atexit.unregister(self._at_exit)
        return _joined([outlet.close() for outlet in self._outlets], budget)


_OK = Status(StatusCode.OK)


def _described(decision: Decision, check: Check, context: SpanContext, step: int | None) -> Attributes:
    attributes = guardrail(decision, check)
    attributes["graph.node.id"] = format(context.span_id, "016x")
    if step is not None:
        attributes["langfuse.observation.metadata.langgraph_step"] = str(step)
    return attributes


def _resource(endpoints: Sequence[Endpoint], service: str) -> Resource:
    attributes = {"service.name": service, "openinference.project.name": service}
    for endpoint in endpoints:
        attributes |= endpoint.resource
    return Resource.create(attributes)


def _joined(threads: Sequence[Thread], budget: float) -> bool:
    """Wait for threads, all together no longer than the budget in seconds."""
    until = time.monotonic() + budget
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def _session(endpoint: Endpoint) -> requests.Session:
    """A session that sends our headers and no others.

    The exporter adds what OTEL_EXPORTER_OTLP_HEADERS holds, and requests adds what .netrc holds: keys that
    are meant for somebody else.
    """
    ours = _HTTP_HEADERS | {name.lower() for name in endpoint.headers}

    def only_ours(request: requests.PreparedRequest) -> requests.PreparedRequest:
        for name in [name for name in request.headers if name.lower() not in ours]:
            del request.headers[name]
        return request

    session = requests.Session()
    session.auth = only_ours
    return session


def _weakly(owner: _T, method: Callable[[_T], object]) -> Callable[[], None]:
    """A call of a method that does not keep its owner alive, for hooks that last as long as the process."""
    reference = weakref.ref(owner)

    def call() -> None:
        if (alive := reference()) is not None:
            method(alive)

    return call
