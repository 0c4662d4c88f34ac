"""What is shown while a run goes on: tokens and events of what has yet to be decided."""

from __future__ import annotations

import asyncio
from pathlib import Path

from chat import ScriptedModel, in_turn, make_guard
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import Runnable, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

PII = "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {input: [pii], output: [pii]}"
RAW = "bob@example.com"


def says() -> ScriptedModel:
    return ScriptedModel(script=in_turn(f"mail {RAW} now"))


def events(runnable: Runnable[str, object]) -> str:
    async def collect() -> str:
        return str([event async for event in runnable.astream_events("q", version="v2")])

    return asyncio.run(collect())


def test_events_of_a_guarded_chain_show_what_was_decided(tmp_path: Path) -> None:
    """`astream_events` of a guarded chain, alone or in a larger one, never shows its model's raw tokens."""
    safe = make_guard(tmp_path, PII).runnable(says())
    for runnable in (safe, RunnableLambda(lambda value: value) | safe):
        shown = events(runnable)
        assert RAW not in shown
        assert "mail [EMAIL_ADDRESS] now" in shown


def test_events_of_a_guarded_chain_flow(tmp_path: Path) -> None:
    """`astream_events` of a guarded chain tells of pieces, which add up to what was decided."""
    answer = "many words come here and go on " * 20 + "to bob@example.com"
    model = GenericFakeChatModel(messages=iter([AIMessage(answer)]))
    safe = make_guard(tmp_path, PII).runnable(model)

    async def collect() -> list[str]:
        events = safe.astream_events("q", version="v2")
        return [e["data"]["chunk"].content async for e in events if e["event"] == "on_chain_stream"]

    pieces = asyncio.run(collect())
    assert len(pieces) > 3
    assert "".join(pieces) == answer.replace("bob@example.com", "[EMAIL_ADDRESS]")


def test_messages_of_a_graph_show_what_a_guarded_chain_gave(tmp_path: Path) -> None:
    """In a node whose chain is streamed, `stream_mode="messages"` shows the decided answer only."""
    safe = make_guard(tmp_path, PII).runnable(says())
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda state: {"messages": list(safe.stream(state["messages"]))})
    builder.add_edge(START, "model")
    shown = list(builder.compile().stream({"messages": "q"}, stream_mode="messages"))
    assert "".join(message.text for message, _ in shown) == "mail [EMAIL_ADDRESS] now"


class Watcher(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_chat_model_start(self, serialized: object, messages: list[list[BaseMessage]], **_: object) -> None:
        self.seen.append(str(messages))

    def on_llm_end(self, response: LLMResult, **_: object) -> None:
        self.seen.append(str(response))


def test_tracers_of_generate_see_guarded_data(tmp_path: Path) -> None:
    """`generate` and `agenerate` of a guarded model hide from tracers what `invoke` hides."""
    guarded, watcher = make_guard(tmp_path, PII).model(says()), Watcher()
    guarded.generate([[HumanMessage("I am amy@example.com")]], callbacks=[watcher])
    asyncio.run(guarded.agenerate([[HumanMessage("I am amy@example.com")]], callbacks=[watcher]))
    assert len(watcher.seen) == 4
    assert "@example.com" not in str(watcher.seen)


def test_generate_refuses_what_invoke_refuses(tmp_path: Path) -> None:
    """A blocked message is refused by `generate`, not sent on as a placeholder."""
    source = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {input: [word]}"
    model = says()
    result = make_guard(tmp_path, source).model(model).generate([[HumanMessage("swordfish")], [HumanMessage("hi")]])
    assert "codeword" in result.generations[0][0].text
    assert model.calls == 1
