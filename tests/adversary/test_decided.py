"""What was decided is known again by what it says: no claim, name or neighbour lets anything past the gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard, run, thread, wants
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain.agents.structured_output import ToolStrategy
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    ToolMessage,
    message_chunk_to_message,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.prebuilt import ToolRuntime
from langgraph.types import Command
from pydantic import BaseModel
from surfaces import Tracer, kept

MAIL = "bob@example.com"
PII = "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {input: [pii], output: [pii]}"

Handler = Callable[[ModelRequest], ModelResponse]


class Mail(BaseModel):
    """Somebody to write to."""

    to: str


@pytest.mark.parametrize("kind", ["judged", "lax", "changed", "parsed"])
def test_an_answer_is_known_by_what_it_says(kind: str, tmp_path: Path) -> None:
    """A guarded model that ran beside, another guard's model, and a change afterwards vouch for no answer."""
    guard, lax = make_guard(tmp_path, PII), make_guard(tmp_path, "gates: {pii: {type: pii}}\nstages: {input: [pii]}")
    raw = ScriptedModel(script=in_turn(wants("Mail", to=MAIL) if kind == "parsed" else f"write to {MAIL}"))
    fine, judge = ScriptedModel(script=in_turn("fine")), guard.model(ScriptedModel(script=in_turn("yes")))

    @wrap_model_call
    def own(request: ModelRequest, handler: Handler) -> ModelResponse:
        if kind == "judged":
            judge.invoke("is that a fair question?")
            return ModelResponse(result=[raw.invoke(request.messages)])
        if kind != "changed":
            return handler(request.override(model=lax.model(raw)))
        response = handler(request)
        response.result[0].content += f", write to {MAIL}"
        return response

    form = ToolStrategy(Mail) if kind == "parsed" else None
    agent = create_agent(fine, [], middleware=[guard.middleware(), own], response_format=form)
    state = agent.invoke({"messages": "hi"})
    assert MAIL not in repr(state)
    said = {"changed": "fine, write to [EMAIL_ADDRESS]", "parsed": "I can't help with that (unenforceable)."}
    assert state["messages"][-1].text == said.get(kind, "write to [EMAIL_ADDRESS]")


@pytest.mark.parametrize("way", ["invoke", "stream", "again"])
def test_an_answer_is_counted_once_whoever_passes_it_on(way: str, tmp_path: Path) -> None:
    """A middleware that streams the guarded model and adds up, or adds a word, makes one call and one record of it."""
    guard = make_guard(tmp_path, f"budgets: {{run: {{model_calls: 1}}}}\n{PII}")

    @wrap_model_call
    def own(request: ModelRequest, handler: Handler) -> ModelResponse:
        if way == "stream":
            pieces = list(request.model.stream(request.messages))
            return ModelResponse(result=[message_chunk_to_message(sum(pieces[1:], pieces[0]))])
        response = handler(request)
        if way == "again":
            response.result[0].content += " Bye."
        return response

    model = ScriptedModel(script=in_turn(f"write to {MAIL}. " * 20))
    agent = create_agent(model, [], middleware=[guard.middleware(), own])
    answer = agent.invoke({"messages": "hi"})["messages"][-1]
    assert answer.text.startswith("write to [EMAIL_ADDRESS]. " * 20)
    asked = [row["stage"] for row in decisions(guard)]
    assert asked == ["input", "model", "output", *(["output"] if way == "again" else [])]


def test_calls_that_another_guard_decided_are_decided(tmp_path: Path) -> None:
    """Inside a guarded chain a model of a looser guard proposes calls; the chain's own policy still has its say."""
    strict, lax = make_guard(tmp_path, f"{PII}\ntools: {{look: {{}}}}"), make_guard(tmp_path, PII)
    chain = strict.runnable(lax.model(ScriptedModel(script=in_turn(wants("wipe", path="/")))))
    assert chain.invoke("hi").response_metadata["guardrails"]["reason"] == "tool.not_listed"


@pytest.mark.parametrize("answers", [1, 2])
def test_what_is_told_of_a_call_is_decided(answers: int, tmp_path: Path) -> None:
    """LangChain puts `llm_output` into an answer's metadata and tells tracers of it: nothing in it goes on unread."""

    class Telling(ScriptedModel):
        def _generate(self, *args: object, **kwargs: object) -> ChatResult:
            made = [super(Telling, self)._generate(*args, **kwargs).generations[0] for _ in range(answers)]
            return ChatResult(generations=made, llm_output={"raw": f"to {MAIL}", "model_name": "m-1"})

    model, tracer = make_guard(tmp_path, PII).model(Telling(script=in_turn("hello"))), Tracer()
    result = model.generate([[HumanMessage("hi")]], callbacks=[tracer])
    assert (tracer.of(MAIL), MAIL in repr(result)) == ([], False)
    metadata = result.generations[0][0].message.response_metadata
    assert metadata.get("raw") == ("to [EMAIL_ADDRESS]" if answers == 1 else None)


def test_scores_of_tokens_go_with_the_call_that_they_spell(tmp_path: Path) -> None:
    """Log probabilities repeat a call's arguments: they go when those are edited, also in one that cannot be parsed."""
    call = {"name": "look", "args": {"q": MAIL}, "id": "c1"}
    bad = {"name": "look", "args": f'{{"q": "{MAIL}', "id": "c1", "error": None}

    class Scoring(ScriptedModel):
        def _answer(self, messages: list[BaseMessage]) -> AIMessage:
            answer = super()._answer(messages)
            answer.response_metadata = {"logprobs": {"content": [{"token": MAIL}]}}
            return answer

    policy = PII.replace("output: [pii]", "tool_call: [pii]")
    for answer in (AIMessage("", tool_calls=[call]), AIMessage("", invalid_tool_calls=[bad])):
        said = make_guard(tmp_path, policy).model(Scoring(script=in_turn(answer))).invoke("hi")
        assert MAIL not in repr(said)
        assert "[EMAIL_ADDRESS]" in repr(said)


@pytest.mark.parametrize("kind", [AIMessageChunk, type("Piece", (AIMessageChunk,), {})])
@pytest.mark.parametrize("mode", ["invoke", "stream"])
def test_the_pieces_of_a_call_do_not_outlive_it(mode: str, kind: type[AIMessageChunk], tmp_path: Path) -> None:
    """A model that answers with a chunk, of whichever class, gives its calls' arguments once, as edited."""

    class Piecewise(ScriptedModel):
        def _generate(self, *args: object, **kwargs: object) -> ChatResult:
            piece = tool_call_chunk(name="look", args=f'{{"q": "{MAIL}"}}', id="c1", index=0)
            return ChatResult(generations=[ChatGeneration(message=kind("", tool_call_chunks=[piece]))])

        def _stream(self, *args: object, **kwargs: object) -> Iterator[ChatGenerationChunk]:
            yield ChatGenerationChunk(message=self._generate().generations[0].message)

    guard = make_guard(tmp_path, PII.replace("output: [pii]", "output: [pii], tool_call: [pii]"))
    for runnable in (guard.model(Piecewise(script=in_turn(""))), guard.runnable(RunnableLambda(_piece(Piecewise)))):
        (said,) = run(mode, runnable, ["hi"], [{}])
        assert MAIL not in repr(said)
        assert "[EMAIL_ADDRESS]" in repr(said)


def _piece(model: type[ScriptedModel]) -> Callable[[object], BaseMessage]:
    return lambda _: model(script=in_turn(""))._generate().generations[0].message


class Noted(AIMessage):
    """An answer with a field of its own."""

    note: str = ""


ADDED = [
    AIMessage("hello", note=f"to {MAIL}"),
    AIMessage("hello", parts=[{"text": f"to {MAIL}"}]),
    AIMessage("hello", **{MAIL: "x"}),
    Noted("hello", note=f"to {MAIL}"),
]


@pytest.mark.parametrize("answer", ADDED, ids=["extra", "tree", "name", "own"])
def test_what_a_class_or_a_caller_adds_to_an_answer_is_decided(answer: AIMessage, tmp_path: Path) -> None:
    """Fields that LangChain does not know are kept by it all the same: they are edited with the answer, or blocked."""
    guard = make_guard(tmp_path, PII)
    for chain in (answer, [answer]):
        said = guard.runnable(RunnableLambda(lambda _, chain=chain: chain)).invoke("hi")
        assert MAIL not in repr(_all(said))
        assert "[EMAIL_ADDRESS]" in repr(_all(said))
    said = guard.model(ScriptedModel(script=in_turn(answer))).invoke("hi")
    assert type(said) is type(answer)
    assert (MAIL in repr(_all(said)), "[EMAIL_ADDRESS]" in repr(_all(said))) == (False, True)


@pytest.mark.parametrize("action", ["edit", "block"])
def test_what_a_caller_adds_to_a_message_is_decided(action: str, tmp_path: Path) -> None:
    """Fields and roles of messages that somebody hands in reach neither the model nor the checkpoints unread."""
    guard = make_guard(tmp_path, PII.replace("[EMAIL_ADDRESS]", f"[EMAIL_ADDRESS], action: {action}"))
    for message in (HumanMessage("hi", note=MAIL), HumanMessage("hi", **{MAIL: "x"}), ChatMessage("hi", role=MAIL)):
        model, saver = ScriptedModel(script=in_turn("fine")), InMemorySaver()
        guard.model(model).invoke([message])
        agent = create_agent(model, [], middleware=[guard.middleware()], checkpointer=saver)
        guard.graph(agent).invoke({"messages": [message]}, thread())
        assert MAIL not in repr([_all(each) for asked in model.asked for each in asked])
        assert MAIL not in kept(saver)


@pytest.mark.parametrize("action", ["edit", "block"])
@pytest.mark.parametrize("stated", [False, True])
def test_what_a_tool_adds_to_a_message_is_decided(stated: bool, action: str, tmp_path: Path) -> None:
    """A tool's message, and one that it writes into the state, say nothing in fields of their own unread."""

    @tool
    def look(q: str, runtime: ToolRuntime) -> object:
        """Look something up."""
        result = ToolMessage("fine", tool_call_id=runtime.tool_call_id, note=f"to {MAIL}")
        return Command(update={"messages": [result, AIMessage("so", note=MAIL)]}) if stated else result

    policy = PII.replace("output: [pii]", "tool_result: [pii]").replace(
        "[EMAIL_ADDRESS]", f"[EMAIL_ADDRESS], action: {action}"
    )
    guard = make_guard(tmp_path, f"{policy}\ntools: {{look: {{}}}}")
    model = ScriptedModel(script=in_turn(wants("look", q="x"), "done", "done"))
    state = create_agent(model, [look], middleware=[guard.middleware()]).invoke({"messages": "hi"})
    assert MAIL not in repr([_all(each) for each in state["messages"]])
    assert state["messages"][-1].text == "done"


def _all(message: object) -> object:
    return [_all(each) for each in message] if isinstance(message, list) else message.model_dump()
