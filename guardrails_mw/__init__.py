"""One policy file that makes LangChain and LangGraph agents safe to run in production.

>>> from guardrails_mw import Verdict
>>> Verdict.flag("odd").action.word
'flag'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrails_mw.errors import (
        AlreadyDecided,
        GateError,
        GuardrailBlocked,
        GuardrailsError,
        PolicyError,
        StoreError,
        UnknownApproval,
    )
    from guardrails_mw.event import Actor, Content, Event, Stage
    from guardrails_mw.gate import Cost, Gate, GateConfig
    from guardrails_mw.guard import Guard
    from guardrails_mw.policy import Policy
    from guardrails_mw.stream import Stream
    from guardrails_mw.verdict import Action, Decision, Edit, Finding, Outcome, Verdict

__version__ = "0.1.0"

_HOMES = {
    "stream": ("Stream",),
    "errors": (
        "AlreadyDecided",
        "GateError",
        "GuardrailBlocked",
        "GuardrailsError",
        "PolicyError",
        "StoreError",
        "UnknownApproval",
    ),
    "event": ("Actor", "Content", "Event", "Stage"),
    "gate": ("Cost", "Gate", "GateConfig"),
    "guard": ("Guard",),
    "policy": ("Policy",),
    "verdict": ("Action", "Decision", "Edit", "Finding", "Outcome", "Verdict"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Action",
    "Actor",
    "AlreadyDecided",
    "Content",
    "Cost",
    "Decision",
    "Edit",
    "Event",
    "Finding",
    "Gate",
    "GateConfig",
    "GateError",
    "Guard",
    "GuardrailBlocked",
    "GuardrailsError",
    "Outcome",
    "Policy",
    "PolicyError",
    "Stage",
    "StoreError",
    "Stream",
    "UnknownApproval",
    "Verdict",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: importing the package costs next to nothing."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
