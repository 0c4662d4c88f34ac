"""What was decided is known again by what it says: no claim, name or neighbour lets anything past the gates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard, wants
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import message_chunk_to_message
from pydantic import BaseModel

MAIL = "bob@example.com"
PII = "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {input: [pii], output: [pii]}"

Handler = Callable[[ModelRequest], ModelResponse]


class Mail(BaseModel):
    """Somebody to write to."""

    to: str


@pytest.mark.parametrize("kind", ["judged", "lax", "changed", "parsed"])
def test_an_answer_is_known_by_what_it_says(kind: str, tmp_path: Path) -> None:
    """A guarded model that ran beside, another guard's model, and a change afterwards vouch for no answer."""
    guard, lax = make_guard(tmp_path, PII), make_guard(tmp_path, "gates: {pii: {type: pii}}\nstages: {input: [pii]}")
    raw = ScriptedModel(script=in_turn(wants("Mail", to=MAIL) if kind == "parsed" else f"write to {MAIL}"))
    fine, judge = ScriptedModel(script=in_turn("fine")), guard.model(ScriptedModel(script=in_turn("yes")))

    @wrap_model_call
    def own(request: ModelRequest, handler: Handler) -> ModelResponse:
        if kind == "judged":
            judge.invoke("is that a fair question?")
            return ModelResponse(result=[raw.invoke(request.messages)])
        if kind != "changed":
            return handler(request.override(model=lax.model(raw)))
        response = handler(request)
        response.result[0].content += f", write to {MAIL}"
        return response

    form = ToolStrategy(Mail) if kind == "parsed" else None
    agent = create_agent(fine, [], middleware=[guard.middleware(), own], response_format=form)
    state = agent.invoke({"messages": "hi"})
    assert MAIL not in repr(state)
    said = {"changed": "fine, write to [EMAIL_ADDRESS]", "parsed": "I can't help with that (unenforceable)."}
    assert state["messages"][-1].text == said.get(kind, "write to [EMAIL_ADDRESS]")


@pytest.mark.parametrize("way", ["invoke", "stream", "again"])
def test_an_answer_is_counted_once_whoever_passes_it_on(way: str, tmp_path: Path) -> None:
    """A middleware that streams the guarded model and adds up, or adds a word, makes one call and one record of it."""
    guard = make_guard(tmp_path, f"budgets: {{run: {{model_calls: 1}}}}\n{PII}")

    @wrap_model_call
    def own(request: ModelRequest, handler: Handler) -> ModelResponse:
        if way == "stream":
            pieces = list(request.model.stream(request.messages))
            return ModelResponse(result=[message_chunk_to_message(sum(pieces[1:], pieces[0]))])
        response = handler(request)
        if way == "again":
            response.result[0].content += " Bye."
        return response

    model = ScriptedModel(script=in_turn(f"write to {MAIL}. " * 20))
    agent = create_agent(model, [], middleware=[guard.middleware(), own])
    answer = agent.invoke({"messages": "hi"})["messages"][-1]
    assert answer.text.startswith("write to [EMAIL_ADDRESS]. " * 20)
    asked = [row["stage"] for row in decisions(guard)]
    assert asked == ["input", "model", "output", *(["output"] if way == "again" else [])]


def test_calls_that_another_guard_decided_are_decided(tmp_path: Path) -> None:
    """Inside a guarded chain a model of a looser guard proposes calls; the chain's own policy still has its say."""
    strict, lax = make_guard(tmp_path, f"{PII}\ntools: {{look: {{}}}}"), make_guard(tmp_path, PII)
    chain = strict.runnable(lax.model(ScriptedModel(script=in_turn(wants("wipe", path="/")))))
    assert chain.invoke("hi").response_metadata["guardrails"]["reason"] == "tool.not_listed"
