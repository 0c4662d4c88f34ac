"""Finished spans whose attributes are written when they are sent, not when they happen.

The request only pays for an id, two times and a place in a queue; describing and redacting a span is the
work of the thread that sends it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from guardrails_mw.telemetry.vocabulary import Attributes
from guardrails_mw.verdict import Decision

__all__ = ["Draft", "Told", "new_context", "seeded_context"]

SCOPE = InstrumentationScope("guardrails_mw")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.OK)


def new_context(trace_id: int = 0) -> SpanContext:
    """The identity of a new span; in a trace of its own if none is given."""
    return SpanContext(trace_id or random.getrandbits(128) or 1, random.getrandbits(64) or 1, False, _SAMPLED)


def seeded_context(run: str) -> SpanContext:
    """The identity of a run's first span: the same in every process, so that a resume finds it.

    >>> seeded_context("run-1") == seeded_context("run-1")
    True
    """
    digest = hashlib.sha256(f"guardrails_mw.run:{run}".encode("utf-8", "surrogatepass")).digest()
    trace_id, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    return SpanContext(trace_id or 1, span_id or 1, False, _SAMPLED)


class Told:
    """A decision whose content several spans show; it is redacted once for all of them."""

    __slots__ = ("decision", "shown")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.shown: tuple[str, bool] | None = None


class Draft(ReadableSpan):
    """A finished span.

    Args:
        name: raw; like everything else here it is redacted when it is sent.
        identity: its own and that of the span above.
        times: start and end, in nanoseconds since the epoch.
        resource: what sends it.
        describe: gives the attributes; called by the sending thread.
        contents: ``input`` and ``output`` as JSON values or as what a decision was about.
        status: OK if left out.
    """

    def __init__(
        self,
        name: str,
        identity: tuple[SpanContext, SpanContext | None],
        times: tuple[int, int],
        *,
        resource: Resource,
        describe: Callable[[], Attributes],
        contents: Mapping[str, object],
        status: Status = _OK,
    ) -> None:
        super().__init__(
            name,
            *identity,
            resource,
            status=status,
            start_time=times[0],
            end_time=times[1],
            instrumentation_scope=SCOPE,
        )
        self._describe = describe
        self.contents = contents
        self.sent: ReadableSpan | None = None
        """What leaves, kept so that several endpoints share the work."""

    @property
    def attributes(self) -> Mapping[str, AttributeValue]:
        """All attributes but contents, not redacted yet."""
        return MappingProxyType(self._describe())
