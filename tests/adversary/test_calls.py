"""Calls that look like another call: the same id, another name, a permit that is used twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, in_turn, make_guard, thread, wants
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from guardrails_mw.adapters.host import BlockedInGraph
from guardrails_mw.errors import GuardrailBlocked

ASK = "default_tool: block\ntiers: {privileged: ask}\ntools: {pay: {tier: privileged}}"
TWO = "budgets: {run: {tool_calls: 2}}"


def same_id(count: int) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "look", "args": {"q": str(n)}, "id": "same"} for n in range(count)])


def test_calls_of_one_message_with_one_id_are_counted_each(tmp_path: Path) -> None:
    """A model that gives ten calls one id does not get ten for the price of one (callbacks on a plain tool node)."""
    tools, guard = Tools(), make_guard(tmp_path, TWO)
    builder = StateGraph(MessagesState)
    builder.add_node("tools", ToolNode(tools.all()))
    builder.add_edge(START, "tools")
    messages = [HumanMessage("go"), same_id(10)]
    with pytest.raises(GuardrailBlocked, match=r"budget\.run\.tool_calls"):
        builder.compile().invoke({"messages": messages}, {"callbacks": guard.callbacks()})
    assert len(tools.done) <= 2


@pytest.mark.parametrize(("policy", "most"), [(TWO, 2), ("loops: {repeats: 3, then: [block]}", 3)])
def test_a_loop_of_calls_with_one_id_is_seen(tmp_path: Path, policy: str, most: int) -> None:
    """Outside a graph, a model that numbers its calls anew each turn still meets budgets and the loop breaker."""
    tools, guard = Tools(), make_guard(tmp_path, policy)
    look = tools.all()[0]

    def loop(value: str, config: RunnableConfig) -> None:
        for _ in range(10):
            look.invoke({"name": "look", "args": {"q": value}, "id": "same", "type": "tool_call"}, config)

    with pytest.raises(GuardrailBlocked):
        RunnableLambda(loop).invoke("x", {"callbacks": guard.callbacks()})
    assert len(tools.done) == most


def test_the_name_of_a_run_is_not_the_name_of_a_tool(tmp_path: Path) -> None:
    """A forbidden tool does not run because its run is called like an allowed one."""
    tools, guard = Tools(), make_guard(tmp_path, "default_tool: block\ntools: {look: {}}")
    with pytest.raises(GuardrailBlocked, match=r"tool\.not_listed"):
        tools.all()[1].invoke({"path": "/"}, {"callbacks": guard.callbacks(), "run_name": "look"})
    assert not tools.done


def test_a_sub_agent_cannot_borrow_the_permit_of_the_tool_it_runs_in(tmp_path: Path) -> None:
    """A forbidden call inside a permitted tool is decided, also with the id of the permitted call."""
    tools = Tools()
    inner = create_agent(ScriptedModel(script=in_turn(wants("wipe", id="c1", path="/"), "done")), tools.all())

    @tool
    def delegate(task: str) -> str:
        """Let a sub-agent do it."""
        return str(inner.invoke({"messages": task})["messages"][-1].content)

    guard = make_guard(tmp_path, "default_tool: block\ntools: {delegate: {}}")
    model = ScriptedModel(script=in_turn(wants("delegate", id="c1", task="tidy up"), "done"))
    agent = create_agent(model, [delegate], middleware=[guard.middleware()])
    with pytest.raises(GuardrailBlocked, match=r"tool\.not_listed"):
        agent.invoke({"messages": "go"}, {"callbacks": guard.callbacks()})
    assert not tools.done


def test_one_approval_is_one_effect_also_when_a_block_ends_the_tool(tmp_path: Path) -> None:
    """A block raised inside an approved tool, after its effect, does not give the approval back."""
    done: list[int] = []

    @tool
    def pay(amount: int) -> str:
        """Pay, then ask a guarded model, which is blocked."""
        done.append(amount)
        raise BlockedInGraph("d", "input", "inner", "x")

    guard = make_guard(tmp_path, ASK)
    model = ScriptedModel(script=in_turn(wants("pay", amount=1), "done"))
    agent = create_agent(model, [pay], middleware=[guard.middleware()], checkpointer=InMemorySaver())
    agent.invoke({"messages": "go"}, thread())
    guard.approvals.approve(guard.approvals.list()[0].id, by="ann")
    with pytest.raises(GuardrailBlocked):
        agent.invoke(Command(resume=True), thread())
    agent.invoke(None, thread())
    assert done == [1]
