"""For tests of your own policies, gates and agents. Needs the extra ``langchain``.

A scripted chat model; assertions on decisions; doubles for gates, clocks and stores; what every gate must do,
as tests; the canary watch, which searches everything that leaves a process; and faults, done to real gates, servers
and stores.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guardrails_mw.testing.assertions import Recording, assert_allows, assert_blocks, assert_edits
    from guardrails_mw.testing.backends import BadServer, bad_server, broken_store
    from guardrails_mw.testing.canary import Kind
    from guardrails_mw.testing.doubles import FakeGate, FrozenClock, RecordingStore
    from guardrails_mw.testing.fault import Fault
    from guardrails_mw.testing.faults import Failure, assert_fails_safe, expected_failure, failing
    from guardrails_mw.testing.gates import GateConformance
    from guardrails_mw.testing.model import ScriptedChatModel, calls
    from guardrails_mw.testing.running import CANARY_MODES
    from guardrails_mw.testing.watch import Leak, Watch, canary_watch

_HOMES = {
    "assertions": (
        "Recording",
        "assert_allows",
        "assert_blocks",
        "assert_edits",
    ),
    "backends": (
        "BadServer",
        "bad_server",
        "broken_store",
    ),
    "canary": ("Kind",),
    "doubles": (
        "FakeGate",
        "FrozenClock",
        "RecordingStore",
    ),
    "fault": ("Fault",),
    "faults": (
        "Failure",
        "assert_fails_safe",
        "expected_failure",
        "failing",
    ),
    "gates": ("GateConformance",),
    "model": (
        "ScriptedChatModel",
        "calls",
    ),
    "running": ("CANARY_MODES",),
    "watch": (
        "Leak",
        "Watch",
        "canary_watch",
    ),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CANARY_MODES",
    "BadServer",
    "Failure",
    "FakeGate",
    "Fault",
    "FrozenClock",
    "GateConformance",
    "Kind",
    "Leak",
    "Recording",
    "RecordingStore",
    "ScriptedChatModel",
    "Watch",
    "assert_allows",
    "assert_blocks",
    "assert_edits",
    "assert_fails_safe",
    "bad_server",
    "broken_store",
    "calls",
    "canary_watch",
    "expected_failure",
    "failing",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: the process of a gate with a fault needs no host."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value
