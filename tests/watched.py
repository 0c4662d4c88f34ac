"""Agents, graphs, models and chains for canary runs: one for every seam."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from langchain.agents import create_agent
from langchain.agents.middleware import AgentState
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, MessagesState, StateGraph

from guardrails_mw.event import Event
from guardrails_mw.testing import Watch
from guardrails_mw.verdict import Edit, Verdict

_CASE = re.compile(r"CASE-[A-Z0-9]+")


class Noted(AgentState, total=False):
    """An agent's state with a key of its own."""

    note: str


class Notes(MessagesState, total=False):
    """A graph's state with a key of its own."""

    note: str


def callbacks(watch: Watch) -> object:
    return create_agent(watch.model, watch.tools, checkpointer=watch.saver, state_schema=Noted)


def middleware(watch: Watch) -> object:
    inside = [watch.guard.middleware()]
    return create_agent(watch.model, watch.tools, middleware=inside, checkpointer=watch.saver, state_schema=Noted)


def graph(watch: Watch) -> object:
    return watch.guard.graph(middleware(watch))


def nodes(watch: Watch) -> object:
    guard = watch.guard
    model = guard.model(watch.model)

    def agent(state: Notes) -> dict[str, object]:
        return {"messages": [model.invoke(state["messages"])]}

    def after(state: Notes) -> str:
        last = state["messages"][-1]
        return "tools" if isinstance(last, AIMessage) and last.tool_calls else "out"

    built = StateGraph(Notes)
    built.add_node("gate", guard.input_node(then="agent", blocked=END), destinations=("agent", END))
    built.add_node("agent", agent)
    built.add_node("tools", guard.tool_node(watch.tools))
    built.add_node("out", guard.output_node())
    built.add_edge(START, "gate")
    built.add_conditional_edges("agent", after, ["tools", "out"])
    built.add_edge("tools", "agent")
    built.add_edge("out", END)
    return built.compile(checkpointer=watch.saver)


def model(watch: Watch) -> object:
    return watch.guard.model(watch.model)


def runnable(watch: Watch) -> object:
    return watch.guard.runnable(watch.guard.model(watch.model) | RunnableLambda(lambda message: message.text))


HOSTS: Mapping[str, Callable[[Watch], object]] = {
    "graph": graph, "middleware": middleware, "nodes": nodes, "model": model, "runnable": runnable,
    "callbacks": callbacks,
}  # fmt: skip


def cases(event: Event) -> Verdict:
    """A gate that hides numbers of cases."""
    found = [(index, match) for index, part in event.texts() for match in _CASE.finditer(part.text)]
    return Verdict.allow("case", edits=[Edit(match.start(), match.end(), "[CASE]", index) for index, match in found])
