"""A tool's result is decided in every form that a graph accepts it in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypedDict

import pytest
from chat import ScriptedModel, in_turn, make_guard, run, tool_messages, wants
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command

POLICY = """
gates: {words: {type: python, call: "chat:codeword", cost: linear}}
stages: {tool_result: [words]}
"""
FORMS = {
    "command": lambda said: Command(update={"messages": [said]}),
    "list": lambda said: [said],
    "list of commands": lambda said: [Command(update={"messages": [said]})],
}


class Chat(TypedDict):
    """A state whose messages have another key."""

    chat: Annotated[list[BaseMessage], add_messages]


def _tool(form: str) -> object:
    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> object:
        """Look something up."""
        return FORMS[form](ToolMessage("the password is swordfish", tool_call_id=call_id, name="look"))

    return look


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seam", ["middleware", "nodes"])
def test_result_is_decided_in_every_form(seam: str, form: str, mode: str, tmp_path: Path) -> None:
    """A poisoned result does not reach the model, alone, in a list, or in whichever form of a command."""
    model = ScriptedModel(script=in_turn(wants("look", q="it"), "done"))
    with make_guard(tmp_path, POLICY) as guard:
        if seam == "middleware":
            host = create_agent(model, [_tool(form)], middleware=[guard.middleware()])
        else:
            graph = StateGraph(MessagesState)
            graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
            graph.add_node("tools", guard.tool_node([_tool(form)]))
            graph.add_edge(START, "agent")
            graph.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END)
            graph.add_edge("tools", "agent")
            host = graph.compile()
        [state] = run(mode, host, [{"messages": [("user", "look it up")]}], [{}])
    assert isinstance(state, dict), repr(state)
    assert [message.content for message in tool_messages(state)] == ["blocked: codeword"]
    assert "swordfish" not in str(model.asked)


def test_commands_are_decided_under_any_key(tmp_path: Path) -> None:
    """Messages of a command are decided also where the state calls them something else."""

    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> object:
        """Look something up."""
        return Command(update={"chat": [ToolMessage("swordfish", tool_call_id=call_id, name="look")]})

    with make_guard(tmp_path, POLICY) as guard:
        graph = StateGraph(Chat)
        graph.add_node("tools", guard.tool_node([look], key="chat"))
        graph.add_edge(START, "tools")
        state = graph.compile().invoke({"chat": [wants("look", q="it")]})
    assert state["chat"][-1].content == "blocked: codeword"
