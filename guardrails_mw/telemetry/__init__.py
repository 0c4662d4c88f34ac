"""Traces: one tree of spans for a run, sent to Langfuse, Phoenix or any OpenTelemetry collector.

`tracing_from_policy` is the way in; it imports OpenTelemetry only when the policy asks for traces.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from guardrails_mw.errors import PolicyError
from guardrails_mw.redaction import Redactor
from guardrails_mw.sections import TracesPolicy
from guardrails_mw.telemetry.endpoint import Endpoint
from guardrails_mw.telemetry.langfuse import langfuse_endpoint

if TYPE_CHECKING:
    from guardrails_mw.telemetry.otel import Tracing

__all__ = ["Endpoint", "langfuse_endpoint", "tracing_from_policy"]


def tracing_from_policy(
    traces: TracesPolicy, redactor: Redactor, env: Mapping[str, str] | None = None
) -> Tracing | None:
    """Tracing as the policy's `traces` section and the environment say; None where neither names a receiver.

    ``OTEL_SDK_DISABLED=true`` switches it off.

    Raises:
        PolicyError: Langfuse is asked for and its keys are missing, or OpenTelemetry is not installed.
    """
    env = os.environ if env is None else env
    endpoints = [Endpoint(item.endpoint, item.headers) for item in traces.otlp]
    if traces.langfuse:
        endpoints.insert(0, langfuse_endpoint(env))
    if not endpoints or env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    try:
        from guardrails_mw.telemetry.otel import Tracing
    except ImportError:
        raise PolicyError("traces need OpenTelemetry: pip install 'guardrails-mw[traces]'", field="traces") from None
    return Tracing(endpoints, redactor, content=traces.content, service=env.get("OTEL_SERVICE_NAME") or "guardrails-mw")
