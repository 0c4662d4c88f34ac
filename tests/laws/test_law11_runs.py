"""Law 11: a run is one invocation together with its resumes, also where the guard sees only a late step of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

from guardrails_mw import Guard, Policy
from guardrails_mw.document import Document
from guardrails_mw.testing import ScriptedChatModel

POLICY = "version: 1\nbudgets: {run: {model_calls: 2}}"


def _graph(guard: Guard, saver: BaseCheckpointSaver[str]) -> CompiledStateGraph:
    """A person is asked by an unguarded node; then a guarded model is called, and so on round the loop."""
    model = guard.model(ScriptedChatModel(replies=["one", "two", "three", "four", "five", "six"]))

    def ask(state: MessagesState) -> dict[str, object]:
        interrupt("go on?")
        return {}

    def call(state: MessagesState) -> dict[str, object]:
        return {"messages": [model.invoke(state["messages"])]}

    async def acall(state: MessagesState) -> dict[str, object]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("call", acall if isinstance(saver, AsyncSqliteSaver) else call)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "call")
    graph.add_conditional_edges("call", lambda state: "ask" if len(state["messages"]) % 4 else END, ["ask", END])
    return graph.compile(checkpointer=saver)


def _guard() -> Guard:
    return Guard(Policy.load(Document(POLICY)))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_resumes_that_begin_elsewhere_share_one_budget(kind: str, tmp_path: Path) -> None:
    """A resume whose first step is not guarded does not get a fresh budget; new input on the thread does."""
    with _guard() as guard, SqliteSaver.from_conn_string(str(tmp_path / "c.db")) as sqlite:
        graph = _graph(guard, InMemorySaver() if kind == "memory" else sqlite)
        config = {"configurable": {"thread_id": "t"}}
        graph.invoke({"messages": "hello"}, config)
        said = [graph.invoke(Command(resume=True), config)["messages"][-1] for _ in range(3)]
        assert [m.response_metadata.get("guardrails", {}).get("reason") for m in said] == [
            None,
            None,
            "budget.run.model_calls",
        ]
        graph.invoke({"messages": "and now?"}, config)
        assert "guardrails" not in graph.invoke(Command(resume=True), config)["messages"][-1].response_metadata


def test_the_same_under_an_event_loop(tmp_path: Path) -> None:
    """An asynchronous checkpointer is asked in its own way."""

    async def play() -> list[str | None]:
        async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:
            graph = _graph(guard, saver)
            config = {"configurable": {"thread_id": "t"}}
            reasons = []
            for given in (
                "hello",
                Command(resume=True),
                Command(resume=True),
                Command(resume=True),
                "new",
                Command(resume=True),
            ):
                state = {"messages": given} if isinstance(given, str) else given
                result = await graph.ainvoke(state, config)
                last = result["messages"][-1].response_metadata
                reasons.append(last.get("guardrails", {}).get("reason"))
            return reasons

    with _guard() as guard:
        assert asyncio.run(play()) == [None, None, None, "budget.run.model_calls", None, None]
