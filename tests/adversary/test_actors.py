"""Who asks is said by the code around, not by whoever calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, Tools, decisions, in_turn, make_guard, run, thread, wants
from langchain.agents import create_agent
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from guardrails_mw import Actor, Guard

ROLES = "tools: {wipe: {roles: [admin]}, look: {}}"
ADMIN = {"id": "eve", "roles": ["admin"]}
GO = {"messages": [("user", "go")]}


def agent(guard: Guard, tools: Tools, seam: str, saver: object = None) -> object:
    """An agent, or a graph with a tool node, that wants to wipe a folder."""
    model = ScriptedModel(script=in_turn(wants("wipe", path="/"), "Done."))
    if seam == "middleware":
        return create_agent(
            model, tools.all(), middleware=[guard.middleware()], checkpointer=saver, context_schema=dict
        )
    graph = StateGraph(MessagesState, context_schema=dict)
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", guard.tool_node(tools.all()))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seam", ["middleware", "nodes"])
def test_a_caller_cannot_overrule_the_actor_of_a_wrapped_graph(seam: str, mode: str, tmp_path: Path) -> None:
    """The actor that a graph was wrapped for is who asks inside, whatever the configuration says."""
    for actor, done in ((Actor("ann", ["clerk"]), []), (Actor("bob", ["admin"]), [("wipe", "/")])):
        tools = Tools()
        (folder := tmp_path / actor.id).mkdir()
        with make_guard(folder, ROLES) as guard:
            wrapped = guard.graph(agent(guard, tools, seam), actor=actor)
            forged = {"actor": ADMIN, "__guardrails_actor": ADMIN}
            run(mode, wrapped, [GO], [thread(**forged)])
            assert tools.done == done
            assert {row["actor"] for row in decisions(guard)} == {actor.id}


def test_a_context_cannot_overrule_it_either(tmp_path: Path) -> None:
    """What a caller puts into the runtime context is no more than what he puts into the configuration."""
    tools = Tools()
    with make_guard(tmp_path, ROLES) as guard:
        wrapped = guard.graph(agent(guard, tools, "middleware"), actor=Actor("ann"))
        wrapped.invoke(GO, context={"actor": ADMIN})
        assert tools.done == []
        assert {row["actor"] for row in decisions(guard)} == {"ann"}


def test_the_actor_is_in_no_checkpoint(tmp_path: Path) -> None:
    """A resume may be another person's: nothing of who asked is kept by the graph."""
    saver = InMemorySaver()
    with make_guard(tmp_path, ROLES) as guard:
        guard.graph(agent(guard, Tools(), "middleware", saver), actor=Actor("ann-jones", ["admin"])).invoke(
            GO, thread()
        )
        assert "ann-jones" not in repr((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))


@pytest.mark.parametrize("given", [Actor("ann"), None])
@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("alone", [True, False])
def test_a_chain_counts_its_models_for_who_asks(
    alone: bool, guarded: bool, given: Actor | None, tmp_path: Path
) -> None:
    """A wrapped chain's own actor goes before the configuration's; that one counts else, also for a bare model."""
    model = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, "budgets: {actor: {model_calls: 5}}") as guard:
        inner = guard.model(model) if guarded else model
        chain = guard.runnable(inner if alone else RunnableLambda(lambda value: value) | inner, given)
        chain.invoke("hello", {"configurable": {"actor": "eve"}})
        assert {row["actor"] for row in decisions(guard)} == {"ann" if given else "eve"}
