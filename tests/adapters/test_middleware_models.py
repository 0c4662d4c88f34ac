"""The middleware guards every model an agent uses, also when the agent changes models between requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chat import ScriptedModel, in_turn, make_guard
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_core.messages import HumanMessage
from surfaces import Tracer, hiding

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


def test_a_guarded_model_that_is_called_inside_of_another_call_reads_its_own_input(tmp_path: Path) -> None:
    """However a middleware inside calls it: tracers of that call hear of the decided input."""
    tracer, said = Tracer(), "the page says ann.jones@example.org"
    with make_guard(tmp_path, hiding("input")) as guard:
        other = guard.model(ScriptedModel(script=in_turn("in short")))

        @wrap_model_call
        def shortens(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
            other.invoke(said, {"callbacks": [tracer]})
            other.generate([[HumanMessage(said)]], callbacks=[tracer])
            return handler(request)

        agent = create_agent(ScriptedModel(script=in_turn("ok")), [], middleware=[guard.middleware(), shortens])
        assert agent.invoke({"messages": "go"})["messages"][-1].text == "ok"
        assert tracer.of("[EMAIL_ADDRESS]")
        assert tracer.of("ann.jones") == []
