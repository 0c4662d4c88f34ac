"""An agent that another agent calls: what it does belongs to the run, and is done for the actor, of who called it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, decisions, in_turn, make_guard, run, thread, wants
from langchain.agents import create_agent
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from guardrails_mw import Guard

POLICY = "budgets: {run: {model_calls: 3}}"
ROLES = "tools: {delegate: {}, look: {roles: [buyer]}}"


def asked(text: str) -> dict[str, object]:
    return {"messages": [("user", text)]}


class Pair:
    """An agent whose tool runs another agent in a thread of that one's own."""

    def __init__(self, guard: Guard, seam: str, inner: ScriptedModel) -> None:
        self.guard, self.seam, self.looked = guard, seam, list[str]()
        self.inner = self.agent(inner, "inner")
        self.outer = self.agent(ScriptedModel(script=in_turn(wants("delegate", task="x"), "done")), "outer")

    def agent(self, model: ScriptedModel, name: str) -> object:
        tools = [self.look(), self.delegate()]
        middleware = [self.guard.middleware()] if self.seam == "middleware" else []
        return create_agent(model, tools, middleware=middleware, checkpointer=InMemorySaver(), name=name)

    def look(self) -> BaseTool:
        @tool
        def look(q: str) -> str:
            """Look."""
            self.looked.append(q)
            return "nothing new"

        return look

    def delegate(self) -> BaseTool:
        @tool
        def delegate(task: str) -> str:
            """Delegate."""
            return str(
                self.inner.invoke(asked(task), {"configurable": {"thread_id": "of its own"}})["messages"][-1].text
            )

        return delegate

    def run(self, mode: str = "invoke", **named: object) -> object:
        config = thread("t1", **named)
        if self.seam == "callbacks":
            config["callbacks"] = self.guard.callbacks()
        (outcome,) = run(mode, self.outer, [asked("go")], [config])
        return outcome


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seam", ["middleware", "callbacks"])
def test_a_sub_agent_in_a_thread_of_its_own_spends_what_its_caller_has(tmp_path: Path, seam: str, mode: str) -> None:
    """Three calls of a model in a run are three, whichever agent of it makes them: the inner one's third is refused."""
    guard = make_guard(tmp_path, POLICY)
    inner = ScriptedModel(script=lambda _: wants("look", q=str(inner.calls)))
    Pair(guard, seam, inner).run(mode)
    assert inner.calls == 2
    assert len({row["run"] for row in decisions(guard)}) == 1


@pytest.mark.parametrize("seam", ["middleware", "callbacks"])
def test_a_sub_agent_in_a_thread_of_its_own_acts_for_who_called_its_caller(tmp_path: Path, seam: str) -> None:
    """A tool that only a buyer may use runs in the inner agent when a buyer talks to the outer one, else not."""
    guard = make_guard(tmp_path, ROLES)
    for roles, ran in ((["buyer"], ["a"]), (["clerk"], [])):
        pair = Pair(guard, seam, ScriptedModel(script=in_turn(wants("look", q="a"), "done")))
        pair.run(actor={"id": "amy", "roles": roles})
        assert pair.looked == ran


@pytest.mark.parametrize("mode", MODES)
def test_a_node_that_runs_an_agent_in_a_thread_of_its_own_shares_the_run_of_its_graph(
    tmp_path: Path, mode: str
) -> None:
    """Under `guard.graph` what a node begins is in the graph's run."""
    guard = make_guard(tmp_path, POLICY)
    model = ScriptedModel(script=lambda _: wants("look", q=str(model.calls)))
    inner = Pair(guard, "middleware", model).inner

    def research(state: MessagesState, config: RunnableConfig) -> dict[str, object]:
        inner.invoke(asked("x"), {"configurable": {"thread_id": f"part {len(state['messages'])}"}})
        return {"messages": [("ai", "so far")]}

    graph = StateGraph(MessagesState)
    graph.add_node("first", research)
    graph.add_node("second", research)
    graph.add_edge(START, "first")
    graph.add_edge("first", "second")
    graph.add_edge("second", END)
    run(mode, guard.graph(graph.compile(checkpointer=InMemorySaver())), [asked("go")], [thread("t1")])
    assert model.calls == 3


def test_two_turns_of_a_thread_are_two_runs_also_for_a_sub_agent(tmp_path: Path) -> None:
    """The next turn of the outer agent is a new run with its own budget, though the inner thread is the same."""
    guard = make_guard(tmp_path, POLICY)
    model = ScriptedModel(script=in_turn("done"))
    pair = Pair(guard, "middleware", model)
    pair.run()
    pair.outer.invoke(asked("again"), thread("t1"))
    assert len({row["run"] for row in decisions(guard)}) == 2
