"""An answer that must have a form, from an agent that also calls tools."""

from __future__ import annotations

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import tool

from guardrails_mw import Guard, Policy
from guardrails_mw.document import Document
from guardrails_mw.testing import ScriptedChatModel, calls

GOOD, BAD = '{"n": 1}', '{"n": "one"}'


@tool
def look() -> str:
    """Look something up."""
    return "found"


def _last(reasks: int, *replies: str | AIMessage) -> tuple[BaseMessage, ScriptedChatModel]:
    schema = "{type: object, properties: {n: {type: integer}}, required: [n]}"
    source = f"""
version: 1
gates: {{form: {{type: json_schema, schema: {schema}, on_fail: reask, max_reasks: {reasks}}}}}
stages: {{output: [form]}}
"""
    model = ScriptedChatModel(replies=replies)
    with Guard(Policy.load(Document(source))) as guard:
        agent = create_agent(model, [look], middleware=[guard.middleware()])
        return agent.invoke({"messages": "go"})["messages"][-1], model


def test_a_reply_that_only_calls_a_tool_is_no_answer_yet() -> None:
    """The form is asked of the answer, not of the empty text that goes with a tool call."""
    message, model = _last(0, calls(("look", {})), GOOD)
    assert message.text == GOOD
    assert len(model.heard) == 2


@pytest.mark.parametrize("reasks", [0, 1, 3])
def test_the_model_is_asked_again_as_often_as_the_gate_says(reasks: int) -> None:
    """`max_reasks` more calls, and then the block stands."""
    message, model = _last(reasks, *[BAD] * 9)
    assert message.response_metadata["guardrails"]["reason"] == "schema.invalid"
    assert len(model.heard) == reasks + 1


def test_an_empty_answer_does_not_fit() -> None:
    """Saying nothing and calling nothing is an answer, and it has no form."""
    message, _ = _last(0, AIMessage(""))
    assert message.response_metadata["guardrails"]["reason"] == "schema.not_json"
