"""A middleware between the guard and the model that calls a model of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import ScriptedModel, in_turn, make_guard, run
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware

POLICY = """
gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}, word: {type: python, call: 'chat:codeword', cost: linear}}
stages: {input: [word, pii], output: [word, pii]}
budgets: {run: {model_calls: 2}}
"""


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_fallback_below_the_guard_reads_and_gives_nothing_undecided(tmp_path: Path, mode: str) -> None:
    """A fallback model that another middleware calls reads edited messages, and its answer is edited and counted."""
    down = ScriptedModel(script=lambda _: ValueError("down"))
    other = ScriptedModel(script=in_turn("mail bob@example.com"))
    guard = make_guard(tmp_path, POLICY)
    guard.warm()
    agent = create_agent(down, [], middleware=[guard.middleware(), ModelFallbackMiddleware(other)])
    [state] = run(mode, agent, [{"messages": "I am amy@example.com"}], [{}])
    assert other.asked[0][-1].text == "I am [EMAIL_ADDRESS]"
    assert state["messages"][-1].text == "mail [EMAIL_ADDRESS]"


def test_a_blocked_answer_of_a_fallback_is_refused(tmp_path: Path) -> None:
    """What a fallback below the guard says is refused as the guarded model's own answer would be."""
    down = ScriptedModel(script=lambda _: ValueError("down"))
    other = ScriptedModel(script=in_turn("swordfish"))
    middleware = [make_guard(tmp_path, POLICY).middleware(), ModelFallbackMiddleware(other)]
    state = create_agent(down, [], middleware=middleware).invoke({"messages": "hi"})
    assert state["messages"][-1].response_metadata["guardrails"]["reason"] == "codeword"
