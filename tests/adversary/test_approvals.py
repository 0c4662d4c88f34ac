"""Questions to people: what was asked about, what was answered, and what happens then are one and the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, in_turn, make_guard, spoke, thread, wants
from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command

from guardrails_mw.errors import GuardrailBlocked

ASKS = "tools: {wipe: {ask: [{if: 'True', because: always}]}}"
GO = {"messages": [("user", "go")]}


@pytest.mark.parametrize(("path", "done"), [("/opt", []), ("/home", [("wipe", "/home")])])
def test_a_callback_does_not_run_what_a_reviewer_changed(path: str, done: list[object], tmp_path: Path) -> None:
    """Callbacks cannot change a call: what the reviewer did not approve does not run, what he left as it was does."""
    tools, model = Tools(), ScriptedModel(script=in_turn(wants("wipe", path="/home"), "Done."))
    with make_guard(tmp_path, ASKS) as guard:
        agent = create_agent(model, tools.all(), checkpointer=InMemorySaver())
        config = {**thread(), "callbacks": guard.callbacks()}
        id_ = agent.invoke(GO, config)["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann", args={"path": path})
        if done:
            agent.invoke(Command(resume=1), config)
        else:
            with pytest.raises(GuardrailBlocked, match="unenforceable"):
                agent.invoke(Command(resume=1), config)
        assert tools.done == done


def test_a_message_is_not_let_through_as_it_was_when_its_reviewer_changed_it(tmp_path: Path) -> None:
    """Other words than those that were asked about are no approval of them."""
    source = "gates: {odd: {type: python, call: 'chat:odd'}}\nstages: {input: [odd], output: [odd]}"
    for node, said in (("input", ("user", "odd")), ("output", ("ai", "odd"))):
        reached: list[object] = []
        (folder := tmp_path / node).mkdir()
        with make_guard(folder, source) as guard:
            graph = StateGraph(MessagesState)
            graph.add_node("input", guard.input_node(then="end"), destinations=("end", END))
            graph.add_node("output", guard.output_node())
            graph.add_node("end", lambda state, r=reached: r.append(state["messages"][-1].content))
            graph.add_edge(START, node)
            graph.add_edge("output", "end")
            app = graph.compile(checkpointer=InMemorySaver())
            id_ = app.invoke({"messages": [said]}, thread())["__interrupt__"][0].value["id"]
            guard.approvals.approve(id_, by="ann", args={"text": "even"})
            app.invoke(Command(resume=1), thread())
            assert "odd" not in reached
            assert ("block", "seam", "unenforceable") in [row[1:4] for row in spoke(guard)]


def test_a_step_that_a_reviewer_changed_is_not_taken(tmp_path: Path) -> None:
    """A step of a graph happens with the state that was shown, or not at all."""

    class State(MessagesState):
        version: str

    taken: list[str] = []
    with make_guard(tmp_path, "default_tool: block") as guard:
        graph = StateGraph(State)
        graph.add_node("confirm", guard.approval_node("deploy", then="deploy"), destinations=("deploy", END))
        graph.add_node("deploy", lambda state: taken.append(state["version"]))
        graph.add_edge(START, "confirm")
        app = graph.compile(checkpointer=InMemorySaver())
        id_ = app.invoke({"messages": [], "version": "2"}, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann", args={"version": "1"})
        app.invoke(Command(resume=1), thread())
        assert taken == []
