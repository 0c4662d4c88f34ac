"""The middleware guards every model an agent uses, also when the agent changes models between requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chat import ScriptedModel, in_turn, make_guard
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call

POLICY = "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {output: [pii]}"


def test_each_model_is_guarded_and_answers_for_itself(tmp_path: Path) -> None:
    """A guarded model that is kept is never used in place of another, however many there are."""
    models = [ScriptedModel(script=in_turn(f"model {n}: bob{n}@example.com")) for n in range(40)]
    turns = iter([*models, *models])

    @wrap_model_call
    def another_model(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        return handler(request.override(model=next(turns)))

    guard = make_guard(tmp_path, POLICY)
    guard.warm()  # what the first check would load is not this test's matter
    agent = create_agent(models[0], [], middleware=[another_model, guard.middleware()])
    said = [agent.invoke({"messages": "who is there?"})["messages"][-1].text for _ in range(80)]
    assert said == [f"model {n}: [EMAIL_ADDRESS]" for n in range(40)] * 2
