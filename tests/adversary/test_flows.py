"""Streams at their edges: providers that switch forms, models that cannot stream, policies that change on the way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard, run
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from guardrails_mw.adapters.chunks import last
from guardrails_mw.document import Document
from guardrails_mw.policy import Policy

MAIL = "bob@example.com"
LONG = f"The report is ready and we will send it to {MAIL} when the number of open points is low enough for all. " * 4
CLEAN = LONG.replace(MAIL, "[EMAIL_ADDRESS]")
PII = "deadline_ms: 5000\ngates: {pii: {type: pii}}\nstages: {output: [pii]}\n"


class Whole(BaseChatModel):
    """Gives one answer, in one piece only."""

    answer: AIMessage

    @property
    def _llm_type(self) -> str:
        return "whole"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.answer.model_copy(deep=True))])


class Pieces(Whole):
    """Streams the chunks that it was given."""

    chunks: list[AIMessageChunk]

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        yield from (
            ChatGenerationChunk(message=chunk.model_copy(update={"id": chunk.id or "c-1"})) for chunk in self.chunks
        )


def cut_off(path: str) -> dict[str, object]:
    return {"type": "invalid_tool_call", "name": "wipe", "args": f'{{"path": "{path}"', "id": "c1", "error": None}


def words(text: str) -> list[AIMessageChunk]:
    return [AIMessageChunk(word + " ") for word in text.split(" ")[:-1]]


def pieces(*chunks: AIMessageChunk) -> Pieces:
    return Pieces(answer=AIMessage("never"), chunks=list(chunks))


def streamed(mode: str, model: object) -> AIMessageChunk:
    async def later() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream("hi")]

    first, *more = list(model.stream("hi")) if mode == "stream" else asyncio.run(later())
    for chunk in more:
        first = first + chunk
    return first


both = pytest.mark.parametrize("mode", ["stream", "astream"])


@both
def test_a_call_that_cannot_be_parsed_does_not_become_one_undecided(mode: str, tmp_path: Path) -> None:
    """Adding chunks up completes arguments that were cut off; the call that this makes was decided."""
    source = PII + "tools: {wipe: {block: [{if: \"args.path == '/'\", because: root}]}}"
    with make_guard(tmp_path, source) as guard:
        for path, calls, reason in (("/tmp", 1, None), ("/", 0, "root")):
            model = guard.model(Whole(answer=AIMessage("", invalid_tool_calls=[cut_off(path)])))
            total = streamed(mode, model)
            assert len(total.tool_calls) == calls
            assert total.response_metadata.get("guardrails", {}).get("reason") == reason


def test_an_edit_makes_no_call_of_what_was_none() -> None:
    """A call that was none when it was decided is not sent where it would be read as one."""
    assert not last(AIMessage("", invalid_tool_calls=[cut_off("/")]), None).message.tool_calls


@both
def test_a_cheaper_model_that_cannot_stream_takes_over(mode: str, tmp_path: Path) -> None:
    """A budget hands a stream to the cheaper model, also if that one answers in one piece."""
    budget = "budgets: {run: {usd: 0.0001, then: cheaper}}\n"
    prices = "prices: {scripted-1: {input: 100, output: 100}, whole: {input: 0.000001, output: 0.000001}}\n"
    with make_guard(tmp_path, budget + prices + PII) as guard:
        dear = ScriptedModel(script=in_turn(LONG))
        model = guard.model(dear, cheaper=Whole(answer=AIMessage(f"ask {MAIL}")))
        assert streamed(mode, model).content == "ask [EMAIL_ADDRESS]"
        assert not dear.calls


@both
@pytest.mark.parametrize(
    "after",
    [[{"type": "text", "text": f"or {MAIL}", "index": 0}], [f"or {MAIL}"], [{"type": "text", "text": "", "extra": 1}]],
    ids=["block", "string", "signature"],
)
def test_content_that_turns_into_blocks_goes_on(mode: str, after: list[object], tmp_path: Path) -> None:
    """A provider that says text first and blocks later is shown as the whole would be, each text once."""
    with make_guard(tmp_path, PII) as guard:
        total = streamed(mode, guard.model(pieces(*words(LONG), AIMessageChunk(after))))
        said = [each if isinstance(each, str) else each["text"] for each in total.content]
        tail = "or [EMAIL_ADDRESS]" if MAIL in str(after) else ""
        assert "".join(said) == CLEAN + tail
        assert "guardrails" not in total.response_metadata


@both
@pytest.mark.parametrize(
    "chunks",
    [
        [AIMessageChunk([{"type": "text", "text": text, "index": 0} for text in ("one ", "two ")])],
        [AIMessageChunk([{"type": "text", "text": "one two ", "index": [0]}])],
        [
            AIMessageChunk(
                "one two ",
                additional_kwargs={
                    "tool_calls": [{"index": 0, "id": "1", "function": {"name": "a", "arguments": "{}"}}],
                    "reasoning_content": "thinking",
                },
            )
        ],
    ],
    ids=["twice", "unhashable", "reasoning behind calls"],
)
def test_nothing_of_an_odd_chunk_is_lost(mode: str, chunks: list[AIMessageChunk], tmp_path: Path) -> None:
    """Texts under one index, indexes of odd kinds and fields in odd orders come out as they went in."""
    with make_guard(tmp_path, PII) as guard:
        plain, total = streamed(mode, pieces(*chunks)), streamed(mode, guard.model(pieces(*chunks)))
        assert (total.content, total.additional_kwargs) == (plain.content, plain.additional_kwargs)


@pytest.mark.parametrize("chain", [False, True], ids=["model", "chain"])
def test_a_loop_that_ends_in_the_middle_of_a_stream_closes_it_once(chain: bool, tmp_path: Path) -> None:
    """A stream that nobody closes is closed when its loop ends: the provider's too, and without a word of asyncio's."""
    closed, said = list[str](), list[object]()

    class Closing(Pieces):
        async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
            try:
                for chunk in self._stream(messages):
                    yield chunk
            finally:
                closed.append("closed")

    with make_guard(tmp_path, PII) as guard:
        inner = Closing(answer=AIMessage("never"), chunks=words(LONG))
        outer = guard.runnable(RunnableLambda(lambda value: value) | inner) if chain else guard.model(inner)

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
            kept.append(outer.astream("hi"))
            await anext(kept[0])

        kept = list[object]()
        asyncio.run(main())
        gc.collect()
        assert (closed, said) == (["closed"], [])
        assert [row["reason"] for row in decisions(guard) if row["stage"] == "output"] == ["stream.broken_off"]


@both
def test_a_reload_in_the_middle_of_a_chains_stream_waits_for_its_end(mode: str, tmp_path: Path) -> None:
    """What a wrapped chain begins after its first piece was shown is decided by the policy that it began under."""
    policy = "budgets: {run: {model_calls: 100}}\n" + PII
    model = ScriptedModel(script=in_turn("ok"))

    def steps(inputs: Iterator[object]) -> Iterator[str]:
        yield model.invoke("one").content + LONG * 2
        reload()
        yield model.invoke("two").content

    async def asteps(inputs: object) -> object:
        yield model.invoke("one").content + LONG * 2
        reload()
        yield (await model.ainvoke("two")).content

    with make_guard(tmp_path, policy) as guard:

        def reload() -> None:
            strict = f"version: 1\nstore: sqlite:///{tmp_path}/guard.db\n" + policy.replace("100", "1")
            guard.reload(policy=Policy.load(Document(strict), base=tmp_path))

        chain = guard.runnable(RunnableLambda(lambda value: value) | RunnableGenerator(steps, asteps))

        async def later() -> list[str]:
            return [piece async for piece in chain.astream("hi")]

        said = "".join(chain.stream("hi") if mode == "stream" else asyncio.run(later()))
        assert said == "ok" + CLEAN * 2 + "ok"


SAYS = f"write to {MAIL}"
PROSE = "The report is ready and we will send it when the number of open points is low enough. " * 2
NAMES = {
    "id": [AIMessageChunk(PROSE, id=SAYS), AIMessageChunk(PROSE, id=SAYS)],
    "provider": [AIMessageChunk(PROSE, response_metadata={"model_provider": SAYS}), AIMessageChunk(PROSE)],
    "index": [AIMessageChunk([{"type": "text", "text": PROSE, "index": SAYS}])] * 2,
    "tool": [AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name=SAYS, args="{}", id="c1", index=0)])],
    "block": [
        AIMessageChunk(
            [{"type": "tool_use", "id": "c1", "name": SAYS, "input": {}, "index": 0}],
            tool_call_chunks=[tool_call_chunk(name=SAYS, args="{}", id="c1", index=0)],
        )
    ],
}


@both
@pytest.mark.parametrize("where", NAMES)
def test_words_in_place_of_a_name_are_not_told(where: str, mode: str, tmp_path: Path) -> None:
    """Ids, indexes, names of providers and of called tools stand in every piece: one that says something is no name."""
    with make_guard(tmp_path, PII) as guard:
        (said,) = run(mode, guard.model(pieces(*NAMES[where])), ["hi"], [{}])
        assert MAIL not in repr([piece.model_dump() for piece in said])
        assert len({piece.id for piece in said[:-1]}) == 1  # the last piece is LangChain's own


@both
def test_half_a_sign_is_kept_as_it_came(mode: str, tmp_path: Path) -> None:
    """A sign that a provider cuts into two surrogates comes out as it came, also where something is hidden."""
    chunks = [AIMessageChunk(f"{PROSE}\ud83d"), AIMessageChunk(f"\ude00 {PROSE}{SAYS} "), AIMessageChunk(PROSE)]
    with make_guard(tmp_path, PII) as guard:
        text = streamed(mode, guard.model(pieces(*chunks))).content
    assert text == f"{PROSE}\ud83d\ude00 {PROSE}write to [EMAIL_ADDRESS] {PROSE}"
