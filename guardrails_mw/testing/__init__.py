"""For tests of your own policies, gates and agents. Needs the extra ``langchain``.

A scripted chat model; assertions on decisions; doubles for gates, clocks and stores; what every gate must do,
as tests; and the canary watch, which searches everything that leaves a process.
"""

from __future__ import annotations

from guardrails_mw.testing.assertions import Recording, assert_allows, assert_blocks, assert_edits
from guardrails_mw.testing.canary import Kind
from guardrails_mw.testing.model import ScriptedChatModel, calls
from guardrails_mw.testing.watch import Leak, Watch, canary_watch

__all__ = [
    "Kind",
    "Leak",
    "Recording",
    "ScriptedChatModel",
    "Watch",
    "assert_allows",
    "assert_blocks",
    "assert_edits",
    "calls",
    "canary_watch",
]
