"""Tokens in a running agent: the model and the record see tokens, the user and trusted tools see values."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
from chat import MODES, ScriptedModel, in_turn, make_guard, run, thread, tool_messages, wants
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState
from langgraph.types import Command

POLICY = """
gates: {pii: {type: pii, style: token}}
stages: {input: [pii], tool_call: [pii], tool_result: [pii], output: [pii]}
record: {redact: [pii]}
tools:
  mail: {sees: raw}
  wire: {sees: raw, ask: [{if: "args.amount > 10", because: large}]}
  note: {}
"""
MAIL = "ann.jones@example.org"
TOKEN = re.compile(r"\[\[EMAIL_ADDRESS_1_[a-z]{6}\]\]")


class Tools:
    """Tools that remember what they were run with."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []

    def all(self) -> list[BaseTool]:
        @tool
        def mail(to: str, body: str, state: Annotated[dict[str, object], InjectedState]) -> str:
            """Send a mail."""
            self.done.append(("mail", to, body, len(state["messages"])))
            return f"sent to {to}"

        @tool
        def wire(to: str, amount: int) -> str:
            """Send money."""
            self.done.append(("wire", to, amount))
            return f"paid {to}"

        @tool
        def note(text: str) -> str:
            """Keep a note."""
            self.done.append(("note", text))
            return f"noted {text}"

        return [mail, wire, note]


class Tracer(BaseCallbackHandler):
    """A tracer of somebody else, who keeps what models are told and say, and what tools are run with."""

    run_inline = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_chat_model_start(self, *args: object, **kwargs: object) -> None:
        self.heard.append(repr((args, kwargs)))

    on_llm_end = on_tool_start = on_chat_model_start


def script(messages: Sequence[BaseMessage]) -> AIMessage | str:
    """Uses the token it was shown: as a model mangles it, for a trusted tool, for another tool, for the user."""
    given = sum(isinstance(message, AIMessage) for message in messages)
    token = TOKEN.search(messages[0].text)
    assert token is not None
    bare = token.group()[2:-2]
    replies = [
        wants("mail", to=f"({bare.lower()})", body=f"Hello **{token.group()}** and [[EMAIL_1_k7Qd]]"),
        wants("note", "c2", text=token.group()),
        f"Sent to {token.group()}.",
    ]
    return replies[given]


def clean(what: str, said: str) -> None:
    assert "ann.jones" not in said, what


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
def test_an_agent_with_tokens(mode: str, tmp_path: Path) -> None:
    """The model, tracers, state, checkpoints and ledger see tokens; a trusted tool gets values, another the token."""
    tools, tracer, model = Tools(), Tracer(), ScriptedModel(script=script)
    config = thread() | {"callbacks": [tracer]}
    with make_guard(tmp_path, POLICY) as guard:
        saver = InMemorySaver()
        agent = create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=saver)
        outcome = run(mode, agent, [{"messages": f"Write to {MAIL}"}], [config])
        assert tools.done[0] == ("mail", MAIL, f"Hello **{MAIL}** and [[EMAIL_1_k7Qd]]", 2)
        assert TOKEN.fullmatch(str(tools.done[1][1]))
        state = agent.get_state(thread()) if mode in ("invoke", "stream") else asyncio.run(agent.aget_state(thread()))
        messages = state.values["messages"]
        clean("the model", repr(model.asked))
        clean("the outcome", repr(outcome))
        clean("the state", repr(messages))
        clean("the tracer", repr(tracer.heard))
        assert [TOKEN.sub("T", message.text) for message in messages[2::2]] == ["sent to T", "noted T"]
        assert guard.restore(messages[-1].text, thread="t1") == f"Sent to {MAIL}."
        whole = guard.restore({"messages": messages}, thread="t1")["messages"]
        assert [type(message) for message in whole] == [type(message) for message in messages]
        assert (whole[0].text, whole[-1].text) == (f"Write to {MAIL}", f"Sent to {MAIL}.")
        rows = [row for each in guard.ledger.runs() for row in guard.ledger.read(each.run)]
        given = [row["body"] for row in rows if row["kind"] == "restored" and row["body"]["stage"] == "tool_call"]
        assert [(row["tool"], row["restored"], row["unresolved"]) for row in given] == [("mail", 2, 1)]
    for file in tmp_path.iterdir():
        clean(file.name, file.read_bytes().decode("latin-1"))


def test_a_checkpoint_file_holds_no_value(tmp_path: Path) -> None:
    """Wrapped, so that the input is decided before the graph keeps it, no byte of its checkpoints holds the value."""
    tools, asked = Tools(), []

    def later(messages: Sequence[BaseMessage]) -> str:
        asked.append(messages[-1].text)
        return "ok"

    with make_guard(tmp_path, POLICY) as guard, SqliteSaver.from_conn_string(str(tmp_path / "c.db")) as saver:
        guarded = {"middleware": [guard.middleware()], "checkpointer": saver}
        first = guard.runnable(create_agent(ScriptedModel(script=script), tools.all(), **guarded))
        first.invoke({"messages": [("user", f"Write to {MAIL}")]}, thread())
        assert tools.done[0][1] == MAIL
        second = guard.runnable(create_agent(ScriptedModel(script=later), tools.all(), **guarded))
        second.invoke({"messages": [("user", f"Again {MAIL}")]}, thread())
        assert asked == [f"Again {tools.done[1][1]}"]
    for file in tmp_path.iterdir():
        clean(file.name, file.read_bytes().decode("latin-1"))


def test_a_reviewer_sees_tokens_and_the_tool_gets_values(tmp_path: Path) -> None:
    """An approval shows the token; what was approved runs with the value, once."""
    tools = Tools()

    def pay(messages: Sequence[BaseMessage]) -> AIMessage | str:
        token = TOKEN.search(messages[0].text)
        assert token is not None
        return wants("wire", to=token.group(), amount=50) if len(messages) == 1 else "done"

    with make_guard(tmp_path, POLICY) as guard:
        agent = create_agent(
            ScriptedModel(script=pay), tools.all(), middleware=[guard.middleware()], checkpointer=InMemorySaver()
        )
        asked = agent.invoke({"messages": f"Pay {MAIL} 50"}, thread())
        payload = asked["__interrupt__"][0].value
        assert TOKEN.fullmatch(payload["args"]["to"])
        assert tools.done == []
        guard.approvals.approve(payload["id"], by="ann")
        done = agent.invoke(Command(resume=True), thread())
        assert tools.done == [("wire", MAIL, 50)]
        clean("the state", repr(done))
    for file in tmp_path.iterdir():
        clean(file.name, file.read_bytes().decode("latin-1"))


def test_a_tool_node_gives_values_to_trusted_tools(tmp_path: Path) -> None:
    """The tool node of an existing graph does the same as the middleware."""
    tools = Tools()
    with make_guard(tmp_path, POLICY) as guard:
        hidden = guard.decide(_input(f"to {MAIL}")).content.value
        token = TOKEN.search(str(hidden))
        assert token is not None
        graph = StateGraph(MessagesState).add_node("tools", guard.tool_node(tools.all())).add_edge(START, "tools")
        call = wants("mail", to=token.group(), body="hi")
        result = graph.compile(checkpointer=InMemorySaver()).invoke({"messages": [call]}, thread())
        assert tools.done == [("mail", MAIL, "hi", 1)]
        assert tool_messages(result)[0].text == f"sent to {token.group()}"


@pytest.mark.parametrize("mode", MODES)
def test_a_wrapped_chain_gives_its_user_values(mode: str, tmp_path: Path) -> None:
    """Inside a wrapped chain everything is tokens; who called it gets values, without a thread too."""
    seen: list[str] = []

    def answer(said: str) -> str:
        seen.append(said)
        return f"You are {said.rsplit(maxsplit=1)[-1].lower()}, [[EMAIL_1_k7Qd]]"

    with make_guard(tmp_path, POLICY) as guard:
        chain = guard.runnable(RunnableLambda(answer))
        outcome = run(mode, chain, [f"I am {MAIL}", f"I am {MAIL}"], [{}, thread()])
        for each in outcome:
            assert (each if isinstance(each, str) else "".join(each)) == f"You are {MAIL}, [[EMAIL_1_k7Qd]]"
        clean("the chain", repr(seen))
        assert len({said.split()[-1] for said in seen}) == 2


def test_a_wrapped_agent_gives_its_user_values(tmp_path: Path) -> None:
    """A whole agent, wrapped: its answer holds values, its state tokens."""
    with make_guard(tmp_path, POLICY) as guard:
        tools, saver = Tools(), InMemorySaver()
        agent = create_agent(
            ScriptedModel(script=script), tools.all(), middleware=[guard.middleware()], checkpointer=saver
        )
        result = guard.runnable(agent).invoke({"messages": f"Write to {MAIL}"}, thread())
        assert result["messages"][-1].text == f"Sent to {MAIL}."
        clean("the state", repr(agent.get_state(thread()).values))


def test_a_wrapped_chain_inside_a_graph_gives_tokens(tmp_path: Path) -> None:
    """What a wrapped chain gives to a graph is kept in checkpoints, so it stays tokens there."""
    with make_guard(tmp_path, POLICY) as guard:
        chain = guard.runnable(RunnableLambda(lambda state: {"messages": [AIMessage(state["messages"][-1].text)]}))
        graph = StateGraph(MessagesState).add_node("chain", chain).add_edge(START, "chain")
        compiled = graph.compile(checkpointer=InMemorySaver())
        result = compiled.invoke({"messages": f"I am {MAIL}"}, thread())
        assert TOKEN.search(result["messages"][-1].text)
        assert guard.restore(result["messages"][-1], thread="t1").text == f"I am {MAIL}"


def test_a_guarded_model_writes_tokens_for_its_thread(tmp_path: Path) -> None:
    """A guarded model called with a thread's id answers in tokens, which the thread's id restores."""
    with make_guard(tmp_path, POLICY) as guard:
        inner = ScriptedModel(script=lambda messages: f"Hello {messages[-1].text.split()[-1]}")
        answer = guard.model(inner).invoke(f"I am {MAIL}", thread())
        clean("the model", repr(inner.asked))
        assert guard.restore(answer, thread="t1").text == f"Hello {MAIL}"
        assert guard.restore(answer, thread="t2").text == answer.text


def test_shadow_leaves_tools_and_texts_alone(tmp_path: Path) -> None:
    """In shadow mode no token is written and none is restored."""
    tools = Tools()
    with make_guard(tmp_path, "mode: shadow\n" + POLICY) as guard:
        model = ScriptedModel(script=in_turn(wants("note", text=MAIL), "ok"))
        agent = create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=InMemorySaver())
        result = agent.invoke({"messages": f"Note {MAIL}"}, thread())
        assert tools.done == [("note", MAIL)]
        assert result["messages"][0].text == f"Note {MAIL}"
        assert guard.store.keys("vault:") == []


def _input(text: str) -> object:
    from guardrails_mw.event import Content, Event, Stage, Where

    return Event(Stage.INPUT, Content(text), where=Where(thread="t1"))
