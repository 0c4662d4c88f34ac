"""Law 11: a node may run again; nothing counts twice and nothing is recorded twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, decisions, in_turn, make_guard, thread, wants
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt

POLICY = """
gates: {pii: {type: pii}}
stages: {input: [pii], tool_result: [pii], output: [pii]}
tools: {look: {}, wipe: {ask: [{if: "args.path == '/'", because: root}]}}
budgets: {run: {tool_calls: 2, model_calls: 3}}
loops: {repeats: 3}
"""


@pytest.mark.parametrize("seam", ["middleware", "nodes", "callbacks"])
def test_pauses_and_resumes_count_once(seam: str, tmp_path: Path) -> None:
    """A call that paused three times before it ran is one tool call in the budget, and each decision is one entry."""
    tools = Tools()
    model = ScriptedModel(script=in_turn(wants("wipe", path="/"), wants("look", "c2", q="x"), "Done."))
    with make_guard(tmp_path, POLICY) as guard:
        agent = _agent(seam, guard, model, tools)
        state = agent.invoke({"messages": [("user", "go")]}, thread())
        for _ in range(3):
            state = agent.invoke(Command(resume=1), thread())
        guard.approvals.approve(guard.approvals.list()[0].id, by="ann")
        state = agent.invoke(Command(resume=1), thread())
        assert state["messages"][-1].content == "Done."
        assert [name for name, _ in tools.done] == ["wipe", "look"]
        rows = decisions(guard)
        assert len({row["run"] for row in rows}) == 1
        counted = Counter(
            (row["stage"], row.get("call_id"), row["digest"], row["verdict"]) for row in rows if row["stage"] != "model"
        )
        assert set(counted.values()) == {1}, counted
        run = rows[0]["run"]
        assert guard.store.used(f"run:{run}:tool_calls") == 2
        if seam != "nodes":
            assert guard.store.used(f"run:{run}:model_calls") == 3


def _agent(seam: str, guard: object, model: ScriptedModel, tools: Tools) -> object:
    if seam == "middleware":
        return create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=InMemorySaver())
    if seam == "callbacks":
        return create_agent(model, tools.all(), checkpointer=InMemorySaver()).with_config(callbacks=guard.callbacks())
    graph = StateGraph(MessagesState)
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", guard.tool_node(tools.all()))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=InMemorySaver())


def test_a_resume_in_another_process_is_the_same_run(tmp_path: Path) -> None:
    """A guard that knows nothing but the store goes on in the run that was paused, with its budget."""
    tools = Tools()
    for step in ("ask", "resume"):
        model = ScriptedModel(script=in_turn(wants("wipe", path="/"), "Done."))
        with make_guard(tmp_path, POLICY) as guard, SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
            agent = create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=saver)
            if step == "ask":
                agent.invoke({"messages": "go"}, thread())
                guard.approvals.approve(guard.approvals.list()[0].id, by="ann")
            else:
                agent.invoke(Command(resume=1), thread())
                assert {row["run"] for row in decisions(guard)} == {decisions(guard)[0]["run"]}
                assert guard.store.used(f"run:{decisions(guard)[0]['run']}:tool_calls") == 1
                assert guard.store.used(f"run:{decisions(guard)[0]['run']}:model_calls") == 2
    assert tools.done == [("wipe", "/")]


def test_a_second_question_in_a_thread_is_another_run(tmp_path: Path) -> None:
    """The next invocation of a thread has a budget of its own, and old messages are not decided again."""
    model = ScriptedModel(script=in_turn("one", "two"))
    with make_guard(tmp_path, POLICY) as guard:
        agent = create_agent(model, [], middleware=[guard.middleware()], checkpointer=InMemorySaver())
        agent.invoke({"messages": "first"}, thread())
        agent.invoke({"messages": "second"}, thread())
        rows = decisions(guard)
        assert len({row["run"] for row in rows}) == 2
        assert [row["stage"] for row in rows].count("input") == 2


def test_a_node_that_fails_and_runs_again_records_once(tmp_path: Path) -> None:
    """Under a node's retry policy the input is decided once; each model call that was made is counted."""
    model = ScriptedModel(script=in_turn("hi"))
    tries: list[int] = []
    with make_guard(tmp_path, POLICY) as guard:
        guarded = guard.model(model)

        def node(state: MessagesState) -> dict[str, object]:
            answer = guarded.invoke(state["messages"])
            tries.append(1)
            if len(tries) < 2:
                raise ConnectionError("after the call")
            return {"messages": [answer]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node, retry_policy=RetryPolicy(initial_interval=0.01, jitter=False))
        graph.add_edge(START, "node")
        graph.compile(checkpointer=InMemorySaver()).invoke({"messages": [("user", "hello")]}, thread())
        rows = decisions(guard)
        assert [row["stage"] for row in rows].count("input") == 1
        assert guard.store.used(f"run:{rows[0]['run']}:model_calls") == model.calls == 2


def test_an_interrupt_in_a_node_with_a_guarded_model(tmp_path: Path) -> None:
    """A node that calls the model and then pauses calls it again on resume: two calls were made, two are charged."""
    model = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, POLICY) as guard:
        guarded = guard.model(model)

        def node(state: MessagesState) -> dict[str, object]:
            answer: AIMessage = guarded.invoke(state["messages"])
            interrupt("read it?")
            return {"messages": [answer]}

        graph = StateGraph(MessagesState)
        graph.add_node("node", node)
        graph.add_edge(START, "node")
        app = graph.compile(checkpointer=InMemorySaver())
        app.invoke({"messages": [("user", "hello")]}, thread())
        app.invoke(Command(resume="yes"), thread())
        rows = decisions(guard)
        assert [row["stage"] for row in rows].count("input") == 1
        assert guard.store.used(f"run:{rows[0]['run']}:model_calls") == model.calls == 2
