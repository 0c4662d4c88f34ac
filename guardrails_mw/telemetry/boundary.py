"""The boundary of traces: no byte of a span leaves before the policy's redacting gates have seen it.

Names, attribute keys and values, events, links, status texts, scope and resource all pass here, in the
thread that sends. It fails closed: what cannot be redacted is withheld, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status
from opentelemetry.util.types import AttributeValue

from guardrails_mw.redaction import WITHHELD, Redactor, unread
from guardrails_mw.telemetry.draft import Draft, Told
from guardrails_mw.telemetry.vocabulary import WORDS, content

__all__ = ["CAP", "Boundary", "RedactingExporter", "RedactingProcessor", "RedactingProvider"]

CAP = 10_000
"""Characters of one attribute that are sent."""

_MARGIN = 4_096
"""Characters after a cut that are looked at and not sent, so that no half of a secret stays before the cut."""

_LIMIT = CAP + _MARGIN
_LARGEST_JSON = 65_536
_INT64 = 1 << 63
_MEMO_TEXT, _MEMO_SIZE = 128, 10_000


class Boundary:
    """Makes the redacted copy of a span.

    Attributes:
        withheld: spans of which only times, ids and structure were sent, because redacting them failed.
    """

    def __init__(self, redactor: Redactor) -> None:
        self.withheld = 0
        self.redact_by(redactor)

    def redact_by(self, redactor: Redactor) -> None:
        """Redact by another policy from now on, also what waits to be sent."""
        self._resource: tuple[Resource, Resource] | None = None
        self._by = redactor, {word: word for word in WORDS}  # one assignment: no memory outlives its redactor

    def outgoing(self, span: ReadableSpan) -> ReadableSpan:
        """The span as it may leave. Never raises."""
        if isinstance(span, Draft) and span.sent is not None:
            return span.sent
        try:
            clean = self._clean(span)
        except Exception:  # noqa: BLE001 - whatever went wrong, nothing may leave unredacted
            self.withheld += 1
            clean = _skeleton(span)
        if isinstance(span, Draft):
            span.sent = clean
        return clean

    def text(self, text: str) -> str:
        """A text as it may leave, at most `CAP` characters of it."""
        redactor, memo = self._by
        known = memo.get(text)
        if known is not None:
            return known
        clean = redactor.text(text[:_LIMIT])
        if clean == WITHHELD:
            return clean
        if len(text) > _LIMIT:
            clean = clean[: max(0, len(clean) - _MARGIN)]
        clean = _encodable(clean[:CAP])
        if len(text) <= _MEMO_TEXT:
            if len(memo) > _MEMO_SIZE:
                memo.clear()
                memo.update((word, word) for word in WORDS)
            memo[text] = clean
        return clean

    def value(self, value: object) -> tuple[str, bool]:
        """A JSON value as text, and whether that text is JSON. It is redacted as a tree, not as text.

        In JSON text a line break is a backslash and an ``n``: a gate that wants a word boundary before a
        number would not see one.
        """
        if isinstance(value, str):
            return self.text(value), False
        return self._dumped(self._by[0].value(self._clipped(value)))

    def attribute(self, value: object) -> AttributeValue:
        """An attribute's value as it may leave."""
        if isinstance(value, str):
            return self._string(value)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            clean = value if abs(value) < 100_000 else self._by[0].value(value)  # shorter ones identify nobody
            fits = isinstance(clean, float) or (isinstance(clean, int) and -_INT64 <= clean < _INT64)
            return clean if fits else self.text(str(clean))  # type: ignore[return-value]
        if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            return [str(self.attribute(item)) if isinstance(item, str) else self.attribute(item) for item in value]
        return self.value(value)[0] if isinstance(value, Mapping) else WITHHELD

    def _string(self, text: str) -> str:
        """A text that may be JSON, as spans of other libraries carry their contents."""
        if text[:1] not in ("{", "["):
            return self.text(text)
        if len(text) > _LARGEST_JSON:
            return WITHHELD
        try:
            parsed = json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text)
        return self.value(parsed)[0]

    def _clipped(self, value: object) -> object:
        """The same value with long texts cut. They are redacted alone first, because a cut needs a margin."""
        if isinstance(value, str):
            return self.text(value) if len(value) > _LIMIT else value
        if isinstance(value, Mapping):
            return {str(key): self._clipped(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._clipped(item) for item in value]
        return value

    @staticmethod
    def _dumped(value: object) -> tuple[str, bool]:
        if isinstance(value, str):
            return _encodable(value[:CAP]), False
        return _encodable(json.dumps(value, ensure_ascii=False, skipkeys=True, default=unread)[:CAP]), True

    def _told(self, told: Told) -> tuple[str, bool]:
        """What a decision was about. Verdicts that redacting gates gave on it are used again."""
        if told.shown is None:
            decision = told.decision
            if decision.event.content.size > _LIMIT:
                told.shown = self.value(decision.event.content.value)
            else:
                known = {check.gate: check.verdict for check in decision.checks if not check.error}
                told.shown = self._dumped(self._by[0].content(decision.event, known).value)
        return told.shown

    def _attributes(self, attributes: Mapping[str, AttributeValue] | None) -> dict[str, AttributeValue]:
        return {self.text(key): self.attribute(value) for key, value in (attributes or {}).items()}

    def _clean(self, span: ReadableSpan) -> ReadableSpan:
        if isinstance(span, Draft):  # its keys are ours: none of them holds content
            attributes = {key: self.attribute(value) for key, value in span.attributes.items()}
        else:
            attributes = self._attributes(span.attributes)
        for which, value in span.contents.items() if isinstance(span, Draft) else ():
            attributes |= content(which, *(self._told(value) if isinstance(value, Told) else self.value(value)))
        events = [Event(self.text(e.name), self._attributes(e.attributes), e.timestamp) for e in span.events]
        links = [Link(_bare(link.context), self._attributes(link.attributes)) for link in span.links]
        message = span.status.description
        return ReadableSpan(
            self.text(span.name),
            _bare(span.context),
            _bare(span.parent) if span.parent else None,
            self._cleaned(span.resource),
            attributes,
            events,
            links,
            span.kind,
            status=Status(span.status.status_code, self.text(message) if message else None),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=self._scope(span.instrumentation_scope),
        )

    def _cleaned(self, resource: Resource) -> Resource:
        known = self._resource
        if known is None or known[0] is not resource:
            known = self._resource = (resource, Resource(self._attributes(resource.attributes)))
        return known[1]

    def _scope(self, scope: InstrumentationScope | None) -> InstrumentationScope | None:
        return InstrumentationScope(self.text(scope.name), self.text(scope.version or "")) if scope else None


def _bare(context: SpanContext) -> SpanContext:
    """The identity without its trace state, which is free text."""
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def _skeleton(span: ReadableSpan) -> ReadableSpan:
    return ReadableSpan(
        WITHHELD,
        _bare(span.context),
        _bare(span.parent) if span.parent else None,
        Resource({}),
        {"guardrails_mw.withheld": True},
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
    )


def _encodable(text: str) -> str:
    """Without lone surrogates: one of them would cost the whole batch it is sent in."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class RedactingExporter(SpanExporter):
    """Sends redacted copies; runs in the exporter's own thread."""

    def __init__(self, exporter: SpanExporter, boundary: Boundary) -> None:
        self._exporter, self._boundary = exporter, boundary

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send redacted copies of the spans."""
        return self._exporter.export([self._boundary.outgoing(span) for span in spans])

    def shutdown(self) -> None:
        """Stop sending."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what the exporter holds."""
        return self._exporter.force_flush(timeout_millis)


class RedactingProcessor(SpanProcessor):
    """Hands redacted copies to a span processor of somebody else."""

    def __init__(self, processor: SpanProcessor, boundary: Boundary) -> None:
        self._processor, self._boundary = processor, boundary

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Pass the open span on, so that the processor may add to it."""
        self._processor.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Pass on a redacted copy."""
        self._processor.on_end(self._boundary.outgoing(span))

    def shutdown(self) -> None:
        """Stop the processor."""
        self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Let the processor send what it holds."""
        return self._processor.force_flush(timeout_millis)


class RedactingProvider(TracerProvider):
    """A provider behind whose every processor stands the boundary, whoever adds it."""

    def __init__(self, boundary: Boundary, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._boundary = boundary

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        """Add a processor; it gets redacted copies of spans."""
        super().add_span_processor(RedactingProcessor(span_processor, self._boundary))
