"""What a program prints or logs of our objects holds codes, never content."""

from __future__ import annotations

from guardrails_mw import Action, Content, Edit, Event, Stage, Verdict
from guardrails_mw.event import ToolCall
from guardrails_mw.verdict import Check, Decision

SECRET = "hunter2-is-secret"


def test_representations_hold_no_content() -> None:
    """A decision can be logged as it is, with its event, its edits and its notes."""
    event = Event(Stage.TOOL_CALL, Content({"to": SECRET}), call=ToolCall("send", {"to": SECRET}))
    verdict = Verdict.block("tool.role", edits=[Edit(0, 3, SECRET)], note=SECRET)
    decision = Decision(
        "d", event, Action.BLOCK, verdict, (Check("tools", verdict),), event.content, event.content, "1:abc", 0.0
    )
    assert event.content.parts
    assert SECRET not in repr(decision) + repr(event.content.parts) + str(decision)
    assert "tool.role" in repr(decision)


def test_actions_print_as_words() -> None:
    """What people read of an action is its name in policies and records."""
    assert f"{Action.BLOCK}" == str(Action.BLOCK) == "block"
    assert Action.BLOCK > Action.ASK
