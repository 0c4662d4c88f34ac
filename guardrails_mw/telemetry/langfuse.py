"""Langfuse as an OTLP endpoint: no Langfuse package is needed, and every server version takes it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from guardrails_mw.errors import PolicyError
from guardrails_mw.telemetry.endpoint import Endpoint

__all__ = ["langfuse_endpoint"]

_CLOUD = "https://cloud.langfuse.com"
_PATH = "/api/public/otel/v1/traces"
_ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")


def langfuse_endpoint(env: Mapping[str, str]) -> Endpoint:
    """The endpoint that the ``LANGFUSE_*`` variables describe.

    Reads ``LANGFUSE_PUBLIC_KEY`` and ``LANGFUSE_SECRET_KEY`` (both needed), ``LANGFUSE_BASE_URL`` (Langfuse
    Cloud if left out), ``LANGFUSE_TRACING_ENVIRONMENT`` and ``LANGFUSE_RELEASE``.

    Raises:
        PolicyError: a key is missing, or a variable holds what Langfuse does not accept.

    >>> langfuse_endpoint({"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk"}).url
    'https://cloud.langfuse.com/api/public/otel/v1/traces'
    """
    missing = [name for name in ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY") if not env.get(name)]
    if missing:
        raise PolicyError(f"{' and '.join(missing)} must be set in the environment", field="traces.langfuse")
    base = env.get("LANGFUSE_BASE_URL") or _CLOUD
    if not base.startswith(("http://", "https://")):
        raise PolicyError("LANGFUSE_BASE_URL must start with http:// or https://", field="traces.langfuse")
    resource: dict[str, str] = {}
    if environment := env.get("LANGFUSE_TRACING_ENVIRONMENT"):
        if not _ENVIRONMENT.fullmatch(environment):
            problem = "LANGFUSE_TRACING_ENVIRONMENT takes 1 to 40 of a-z, 0-9, - and _, not starting with langfuse"
            raise PolicyError(problem, field="traces.langfuse")
        resource["langfuse.environment"] = environment
    if release := env.get("LANGFUSE_RELEASE"):
        resource["langfuse.release"] = release
    pair = f"{env['LANGFUSE_PUBLIC_KEY']}:{env['LANGFUSE_SECRET_KEY']}"
    headers = {
        "authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
        "x-langfuse-ingestion-version": "4",
    }
    return Endpoint(base.rstrip("/") + _PATH, headers, "langfuse", resource)
