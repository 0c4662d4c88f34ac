"""Where spans are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OTLP/HTTP receiver of traces.

    Attributes:
        url: full URL, with the path, for example ``http://localhost:6006/v1/traces``.
        headers: sent with every request; hidden from `repr`, because keys are in here.
        name: what people call it.
        resource: resource attributes this receiver wants; every receiver sees all of them.

    >>> Endpoint("http://localhost:6006/v1/traces", {"authorization": "secret"})
    Endpoint(url='http://localhost:6006/v1/traces', name='otlp', resource={})
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    name: str = "otlp"
    resource: Mapping[str, str] = field(default_factory=dict)
