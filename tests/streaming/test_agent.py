"""Streams of agents, graphs and chains: pieces flow in every mode, and nothing raw is in any of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, decisions, in_turn, make_guard, run, thread, wants
from langchain.agents import create_agent
from langchain_core.output_parsers import JsonOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph

MAIL = "bob@example.com"
LONG = f"The report is ready and we will send it to {MAIL} when the number of open points is low enough for all. " * 4
CLEAN = LONG.replace(MAIL, "[EMAIL_ADDRESS]")
PII = "deadline_ms: 5000\ngates: {pii: {type: pii}}\nstages: {input: [pii], output: [pii], tool_result: [pii]}"
ASKED = {"messages": [("user", "hi")]}


def says(text: str = LONG) -> ScriptedModel:
    return ScriptedModel(script=in_turn(text))


def collect(mode: str, graph: object, config: dict[str, object] | None = None, **options: object) -> list[object]:
    async def later() -> list[object]:
        return [item async for item in graph.astream(ASKED, config, **options)]

    return list(graph.stream(ASKED, config, **options)) if mode == "stream" else asyncio.run(later())


both = pytest.mark.parametrize("mode", ["stream", "astream"])


@both
def test_an_agents_messages_flow_clean_in_every_stream_mode(mode: str, tmp_path: Path) -> None:
    """Messages come in many pieces; they, updates, values, custom data, checkpoints and the state hold nothing raw."""
    script = in_turn(wants("look", q="x"), LONG)
    with make_guard(tmp_path, PII) as guard:
        saver = InMemorySaver()
        tools = Tools(f"it says {MAIL} there").all()
        agent = create_agent(ScriptedModel(script=script), tools, middleware=[guard.middleware()], checkpointer=saver)
        items = collect(mode, agent, thread(), stream_mode=["messages", "updates", "values", "custom"])
        pieces = [data[0] for kind, data in items if kind == "messages" and data[0].type == "AIMessageChunk"]
        assert len([piece for piece in pieces if piece.content]) > 5
        assert "".join(piece.content for piece in pieces) == CLEAN
        assert MAIL not in repr(items)
        assert MAIL not in repr(list(saver.list(None)))
        assert CLEAN in [message.content for message in agent.get_state(thread()).values["messages"]]
        outputs = [row for row in decisions(guard) if row["stage"] == "output" and row["edits"]]
        assert len(outputs) == 1
        assert outputs[0]["shown"] > 200


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_events_flow_clean_in_every_version(version: str, tmp_path: Path) -> None:
    """Events of an agent, in each protocol, hold many pieces of the answer and nothing raw."""
    with make_guard(tmp_path, PII) as guard:
        agent = create_agent(says(), [], middleware=[guard.middleware()])

        async def collected() -> list[object]:
            stream = agent.astream_events(ASKED, version=version)
            if version == "v3":
                stream = await stream
            return [event async for event in stream]

        events = asyncio.run(collected())
        assert MAIL not in repr(events)
        deltas = [event for event in events if "report is ready" in repr(event)]
        assert len(deltas) > 3


def test_the_v3_protocol_gives_the_text_in_pieces(tmp_path: Path) -> None:
    """A guarded model's own v3 stream has deltas that add up to the decided text."""
    with make_guard(tmp_path, PII) as guard:
        events = list(guard.model(says()).stream_events("hi", version="v3"))
        deltas = [event["delta"].get("text", "") for event in events if event.get("event") == "content-block-delta"]
        assert "".join(deltas) == CLEAN
        assert len(deltas) > 5
        assert MAIL not in repr(events)


@both
def test_parallel_branches_keep_their_streams_apart(mode: str, tmp_path: Path) -> None:
    """Two nodes that stream at once each add up to their own decided answer."""
    with make_guard(tmp_path, PII) as guard:
        models = {name: guard.model(says(f"{name} says: {LONG}")) for name in ("left", "right")}
        builder = StateGraph(MessagesState)
        for name, model in models.items():

            def node(state: MessagesState, model: object = model) -> dict[str, object]:
                return {"messages": [model.invoke(state["messages"])]}

            async def anode(state: MessagesState, model: object = model) -> dict[str, object]:
                return {"messages": [await model.ainvoke(state["messages"])]}

            builder.add_node(name, RunnableLambda(node, afunc=anode))
            builder.add_edge(START, name)
            builder.add_edge(name, END)
        items = collect(mode, builder.compile(), stream_mode="messages")
        for name in models:
            pieces = [message.content for message, meta in items if meta["langgraph_node"] == name]
            assert "".join(pieces) == f"{name} says: {CLEAN}"
            assert len([piece for piece in pieces if piece]) > 5
        assert len([row for row in decisions(guard) if row["stage"] == "output"]) == 2


@both
def test_subgraphs_stream_clean(mode: str, tmp_path: Path) -> None:
    """An agent inside a graph streams its pieces to the outer caller, clean in messages and updates."""
    with make_guard(tmp_path, PII) as guard:
        builder = StateGraph(MessagesState)
        builder.add_node("agent", create_agent(says(), [], middleware=[guard.middleware()]))
        builder.add_edge(START, "agent")
        items = collect(mode, builder.compile(), stream_mode=["messages", "updates"], subgraphs=True)
        pieces = [data[0].content for _, kind, data in items if kind == "messages"]
        assert "".join(pieces) == CLEAN
        assert len([piece for piece in pieces if piece]) > 5
        assert MAIL not in repr(items)


@both
def test_custom_data_made_of_pieces_is_clean(mode: str, tmp_path: Path) -> None:
    """A node that passes a guarded model's pieces on as custom data passes decided text on."""
    with make_guard(tmp_path, PII) as guard:
        model = guard.model(says())

        def node(state: MessagesState) -> dict[str, object]:
            write, total = get_stream_writer(), ""
            for chunk in model.stream(state["messages"]):
                write(chunk.content)
                total += chunk.content
            return {"messages": [("ai", total)]}

        builder = StateGraph(MessagesState)
        builder.add_node("node", node)
        builder.add_edge(START, "node")
        items = collect(mode, builder.compile(), stream_mode="custom")
        assert "".join(items) == CLEAN
        assert len(items) > 5


@both
def test_a_block_in_the_middle_ends_an_agents_answer(mode: str, tmp_path: Path) -> None:
    """State and checkpoints hold what was shown and the refusal, marked; one decision is on record."""
    source = (
        "deadline_ms: 5000\ngates: {word: {type: python, call: 'chat:codeword', cost: linear, max_span: 9}}\n"
        "stages: {output: [word]}"
    )
    with make_guard(tmp_path, source) as guard:
        model = says(f"{'All is well so far. ' * 20}swordfish is {LONG}")
        agent = create_agent(model, [], middleware=[guard.middleware()], checkpointer=InMemorySaver())
        items = collect(mode, agent, thread(), stream_mode="messages")
        text = "".join(message.content for message, _ in items)
        last = agent.get_state(thread()).values["messages"][-1]
        assert last.content == text
        assert text.endswith("I can't help with that (codeword).")
        assert "swordfish" not in text
        assert last.response_metadata["guardrails"]["reason"] == "codeword"
        assert [row["verdict"] for row in decisions(guard) if row["stage"] == "output"] == ["block"]


@both
def test_a_node_that_decides_again_takes_the_streams_decision(mode: str, tmp_path: Path) -> None:
    """An output node behind a streaming guarded model finds nothing left to edit, and no second block."""
    with make_guard(tmp_path, PII) as guard:
        model = guard.model(says())
        builder = StateGraph(MessagesState)
        builder.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
        builder.add_node("out", guard.output_node())
        builder.add_edge(START, "model")
        builder.add_edge("model", "out")
        items = collect(mode, builder.compile(), stream_mode=["messages", "values"])
        assert items[-1][1]["messages"][-1].content == CLEAN
        assert len([row for row in decisions(guard) if row["stage"] == "output" and row["edits"]]) == 1


@both
@pytest.mark.parametrize("parsed", [False, True])
def test_chains_flow(mode: str, parsed: bool, tmp_path: Path) -> None:
    """A guarded chain of texts or messages comes in pieces that add up to what invoke gives."""
    with make_guard(tmp_path, PII) as guard:
        chain = ChatPromptTemplate.from_template("{q}") | says()
        chain = guard.runnable(chain | StrOutputParser() if parsed else chain)

        async def later() -> list[object]:
            return [piece async for piece in chain.astream({"q": "hi"})]

        pieces = list(chain.stream({"q": "hi"})) if mode == "stream" else asyncio.run(later())
        texts = [piece if parsed else piece.content for piece in pieces]
        assert "".join(texts) == CLEAN
        assert len(texts) > 5
        if not parsed:
            total = pieces[0]
            for piece in pieces[1:]:
                total += piece
            assert total.usage_metadata == chain.invoke({"q": "hi"}).usage_metadata
        assert [row["shown"] > 200 for row in decisions(guard) if row["stage"] == "output" and "shown" in row] == [True]


@both
def test_chains_of_other_forms_wait(mode: str, tmp_path: Path) -> None:
    """Pieces that are neither texts nor messages are added up and decided."""
    with make_guard(tmp_path, PII) as guard:
        chain = guard.runnable(RunnableParallel(a=says() | StrOutputParser(), b=says("fine") | StrOutputParser()))

        async def later() -> list[object]:
            return [piece async for piece in chain.astream("hi")]

        pieces = list(chain.stream("hi")) if mode == "stream" else asyncio.run(later())
        assert pieces == [{"a": CLEAN, "b": "fine"}]


@both
def test_a_chain_of_pieces_that_do_not_add_up_comes_as_the_last(mode: str, tmp_path: Path) -> None:
    """A parser that gives what there is so far, again and again, gives the decided whole."""
    with make_guard(tmp_path, PII) as guard:
        chain = guard.runnable(says(json.dumps({"to": MAIL, "text": LONG})) | JsonOutputParser())
        (said,) = run(mode, chain, ["hi"], [{}])
        assert said == [{"to": "[EMAIL_ADDRESS]", "text": CLEAN}]


@both
def test_a_chain_that_is_left_is_recorded(mode: str, tmp_path: Path) -> None:
    """Leaving a chain's stream keeps what was shown of it, once."""
    with make_guard(tmp_path, PII) as guard:
        chain = guard.runnable(says() | StrOutputParser())

        async def later() -> str:
            pieces = chain.astream("hi")
            first = await anext(pieces)
            await pieces.aclose()
            return first

        if mode == "stream":
            pieces = chain.stream("hi")
            first = next(pieces)
            pieces.close()
        else:
            first = asyncio.run(later())
        (row,) = [row for row in decisions(guard) if row["stage"] == "output"]
        assert (row["reason"], row["content"], row["shown"]) == ("stream.broken_off", first, len(first))


def test_values_come_back_at_the_users_boundary_as_in_one_piece(tmp_path: Path) -> None:
    """A chain whose user gets real values back for tokens gives the same streamed as whole."""
    source = "deadline_ms: 5000\ngates: {pii: {type: pii, style: token}}\nstages: {output: [pii]}"
    with make_guard(tmp_path, source) as guard:
        chain = guard.runnable(says() | StrOutputParser())
        assert "".join(chain.stream("hi", thread())) == chain.invoke("hi", thread()) == LONG


def test_structured_output_waits_for_its_end(tmp_path: Path) -> None:
    """An answer that must have a shape is held, decided and given in one piece."""
    schema = "{type: object, required: [name], properties: {name: {type: string}}}"
    source = (
        f"deadline_ms: 5000\ngates: {{shape: {{type: json_schema, schema: {schema}}}, pii: {{type: pii}}}}\n"
        "stages: {output: [shape, pii]}"
    )
    with make_guard(tmp_path, source) as guard:
        answer = json.dumps({"name": MAIL, "text": "word " * 50})
        (piece,) = [chunk.content for chunk in guard.model(says(answer)).stream("hi") if chunk.content]
        assert json.loads(piece)["name"] == "[EMAIL_ADDRESS]"
