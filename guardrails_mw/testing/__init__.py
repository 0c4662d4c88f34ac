"""For tests of your own policies, gates and agents.

A scripted chat model, assertions on decisions, doubles for gates, clocks and stores. Needs the extra ``langchain``.
"""

from __future__ import annotations

from guardrails_mw.testing.assertions import Recording, assert_allows, assert_blocks, assert_edits
from guardrails_mw.testing.model import ScriptedChatModel, calls

__all__ = ["Recording", "ScriptedChatModel", "assert_allows", "assert_blocks", "assert_edits", "calls"]
