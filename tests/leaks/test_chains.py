"""What a wrapped chain gives back is decided in every place where it says something, guarded inside or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, decisions, in_turn, make_guard, run, wants
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from surfaces import Tracer, events, hiding

MAIL = "ann.jones@example.org"
HIDDEN = "[EMAIL_ADDRESS]"
TALKATIVE = AIMessage(
    f"Write to {MAIL}.",
    name=f"Ann {MAIL}",
    additional_kwargs={"reasoning_content": f"she is {MAIL}", "cited": [{"from": MAIL}]},
    response_metadata={"model_name": "m-1", "page": f"by {MAIL}", "logprobs": {"content": [{"token": MAIL}]}},
    tool_calls=[{"name": "send", "args": {"to": MAIL}, "id": "c1"}],
    invalid_tool_calls=[{"name": "send", "args": f'{{"to": "{MAIL}', "id": "c2", "error": None}],
)


class Talkative(ScriptedModel):
    """A model whose answers say something in every place."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=TALKATIVE.model_copy(deep=True))])

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        return self._generate(messages)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        calls = [*TALKATIVE.tool_calls, *TALKATIVE.invalid_tool_calls]
        for word in TALKATIVE.content.split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(word + " "))
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                "",
                name=TALKATIVE.name,
                additional_kwargs=TALKATIVE.additional_kwargs,
                response_metadata=TALKATIVE.response_metadata,
                tool_call_chunks=[
                    tool_call_chunk(name=call["name"], args=str(call["args"]).replace("'", '"'), id=call["id"], index=i)
                    for i, call in enumerate(calls)
                ],
            )
        )

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            yield chunk


def _joined(value: object, mode: str) -> object:
    if not isinstance(value, list) or "stream" not in mode:
        return value
    total = value[0]
    for piece in value[1:]:
        total = total + piece
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("form", ["message", "list", "mapping"])
def test_an_answer_of_a_raw_model_is_edited_in_every_place(tmp_path: Path, mode: str, form: str) -> None:
    """Content, name, what stands beside it, metadata, scores of tokens, calls: as a message or inside of something."""
    guard = make_guard(tmp_path, hiding("input", "tool_call", "output"))
    forms = {"list": lambda message: [message], "mapping": lambda message: {"said": (message,)}}
    model = Talkative(script=in_turn(""))
    inner = model | RunnableLambda(forms[form]) if form in forms else model
    [given] = run(mode, guard.runnable(inner), ["hello"], [{}])
    assert not isinstance(given, Exception)
    assert MAIL not in repr(given)
    found = _joined(given, mode) if form == "message" else given
    text = repr(found)
    assert text.count(HIDDEN) >= 6
    if form == "message":
        assert isinstance(found, AIMessage)
        assert found.tool_calls[0]["args"] == {"to": HIDDEN}
        assert found.response_metadata["model_name"] == "m-1"


@pytest.mark.parametrize("mode", MODES)
def test_what_a_raw_model_proposes_meets_the_rules_of_tools(tmp_path: Path, mode: str) -> None:
    """A chain that gives back calls gives back none that the policy does not allow."""
    guard = make_guard(tmp_path, "tools: {look: {}}\n")
    model = ScriptedModel(script=lambda messages: wants(str(messages[-1].content), q="x"))
    [fine, wrong] = run(mode, guard.runnable(model), ["look", "wipe"], [{}, {}])
    fine, wrong = _joined(fine, mode), _joined(wrong, mode)
    assert [call["name"] for call in fine.tool_calls] == ["look"]
    assert not wrong.tool_calls
    assert wrong.response_metadata["guardrails"]["reason"] == "tool.not_listed"


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_a_guarded_model_has_decided_counts_once(tmp_path: Path, mode: str) -> None:
    """Wrapped twice, a proposed call is one call for budgets and loops, and is decided once."""
    guard = make_guard(tmp_path, "budgets: {run: {tool_calls: 1}}\nloops: {}\n")
    model = guard.model(ScriptedModel(script=in_turn(wants("look", q="x"))))
    [given] = run(mode, guard.runnable(model), ["hello"], [{}])
    assert [call["name"] for call in _joined(given, mode).tool_calls] == ["look"]
    assert sum(row["stage"] == "tool_call" for row in decisions(guard)) == 1


@pytest.mark.parametrize("guarded", [True, False])
def test_two_equal_proposals_count_twice(tmp_path: Path, guarded: bool) -> None:
    """What was decided in one call of a chain permits nothing in the next, whatever ids models give."""
    guard = make_guard(tmp_path, "budgets: {thread: {tool_calls: 1}}\n")
    model = ScriptedModel(script=in_turn(wants("look", q="x")))
    chain = guard.runnable(guard.model(model) if guarded else model)
    config = {"configurable": {"thread_id": "t"}}
    first, second = chain.invoke("hello", config), chain.invoke("hello again", config)
    assert first.tool_calls
    assert second.response_metadata["guardrails"]["reason"] == "budget.thread.tool_calls"


def test_messages_that_go_into_a_chain_are_edited_in_every_place(tmp_path: Path) -> None:
    """What a caller puts beside the content of messages does not reach the model raw."""
    guard, heard = make_guard(tmp_path, hiding("input")), list[Sequence[BaseMessage]]()
    chain = guard.runnable(RunnableLambda(lambda messages: heard.append(messages) or "fine"))
    told = [
        HumanMessage(f"I am {MAIL}", name=f"of {MAIL}", additional_kwargs={"note": MAIL}),
        TALKATIVE,
        ToolMessage("sent", tool_call_id="c1", artifact={"to": MAIL}),
    ]
    assert chain.invoke(told) == "fine"
    assert MAIL not in repr(heard)
    assert [type(message) for message in heard[0]] == [HumanMessage, AIMessage, ToolMessage]
    assert heard[0][1].tool_calls[0]["args"] == {"to": HIDDEN}
    assert MAIL in repr(told)


def test_a_broken_call_in_a_chains_result_is_edited(tmp_path: Path) -> None:
    """LangChain's words about arguments that it could not parse repeat them: they are edited as the arguments are."""
    broken = {"name": "look", "args": f"{{'q': {MAIL}", "id": "c1", "error": f"Arguments {MAIL} are not JSON"}
    answer = AIMessage("", invalid_tool_calls=[broken])
    with make_guard(tmp_path, hiding("output")) as guard:
        chain = guard.runnable(RunnableLambda(lambda _: {"answers": [answer]}))
        assert MAIL not in repr(chain.invoke("go"))


@pytest.mark.parametrize("wrap", ["model", "runnable"])
@pytest.mark.filterwarnings("ignore:astream_events version")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_events_repeat_the_input_as_it_was_decided(tmp_path: Path, wrap: str, version: str) -> None:
    """The first event holds the input, and so do tracers: edited, or the placeholder of one that is blocked."""
    policy = hiding("input").replace("gates: {", "gates: {word: {type: python, call: 'chat:codeword', cost: linear}, ")
    with make_guard(tmp_path, policy.replace("input: [pii]", "input: [pii, word]")) as guard:
        model, tracer = ScriptedModel(script=in_turn("fine")), Tracer()
        safe = guard.model(model) if wrap == "model" else guard.runnable(model | StrOutputParser())
        for said, left in ((f"I am {MAIL}", HIDDEN), (f"swordfish {MAIL}", "[blocked: codeword]")):
            told = events(safe, said, {"callbacks": [tracer]}, version)
            assert left in told
            assert MAIL not in told
        assert tracer.of(MAIL) == []
        assert model.calls == 1
        assert sum(row["stage"] == "input" for row in decisions(guard)) == 2
