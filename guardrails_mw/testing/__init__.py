"""For tests of your own policies, gates and agents. Needs the extra ``langchain``.

A scripted chat model; assertions on decisions; doubles for gates, clocks and stores; what every gate must do,
as tests; the canary watch, which searches everything that leaves a process; and faults, done to real gates, servers
and stores.
"""

from __future__ import annotations

from guardrails_mw.testing.assertions import Recording, assert_allows, assert_blocks, assert_edits
from guardrails_mw.testing.backends import BadServer, bad_server, broken_store
from guardrails_mw.testing.canary import Kind
from guardrails_mw.testing.faults import Failure, Fault, assert_fails_safe, expected_failure, failing
from guardrails_mw.testing.model import ScriptedChatModel, calls
from guardrails_mw.testing.watch import Leak, Watch, canary_watch

__all__ = [
    "BadServer",
    "Failure",
    "Fault",
    "Kind",
    "Leak",
    "Recording",
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
