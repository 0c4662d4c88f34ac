"""A guarded model's stream: what flows, what waits, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from chat import Failing, ScriptedModel, decisions, in_turn, make_guard
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, LLMResult

from guardrails_mw import Guard
from guardrails_mw.errors import GuardrailBlocked

MAIL = "bob@example.com"
LONG = f"The report is ready and we will send it to {MAIL} when the number of open points is low enough for all. " * 4
CLEAN = LONG.replace(MAIL, "[EMAIL_ADDRESS]")
PII = "deadline_ms: 5000\ngates: {pii: {type: pii}}\nstages: {output: [pii]}"
WORD = (
    "deadline_ms: 5000\n"
    "gates: {pii: {type: pii}, word: {type: python, call: 'chat:codeword', cost: linear, max_span: 9}}\n"
    "stages: {output: [pii, word]}"
)
BUDGET = "budgets: {run: {tokens: 100000}}\n"


class Chunked(ScriptedModel):
    """Streams the chunks it was given; an exception among them is raised when its turn comes."""

    chunks: list[object]
    read: list[int] = []
    closed: list[str] = []

    def _pieces(self) -> Iterator[ChatGenerationChunk]:
        for number, chunk in enumerate(self.chunks):
            self.read.append(number)
            if isinstance(chunk, Exception):
                raise chunk
            yield ChatGenerationChunk(message=chunk.model_copy(update={"id": "c-1"}))

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        try:
            yield from self._pieces()
        finally:
            self.closed.append("sync")

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs) -> AsyncIterator[ChatGenerationChunk]:
        try:
            for chunk in self._pieces():
                await asyncio.sleep(0)
                yield chunk
        finally:
            self.closed.append("async")


def chunked(*chunks: object) -> Chunked:
    return Chunked(script=in_turn("never"), chunks=list(chunks), read=[], closed=[])


def words(text: str) -> list[AIMessageChunk]:
    return [AIMessageChunk(word + " ") for word in text.split(" ")[:-1]]


def stream(mode: str, model: object) -> list[AIMessageChunk]:
    async def later() -> list[AIMessageChunk]:
        return [chunk async for chunk in model.astream("hi")]

    return list(model.stream("hi")) if mode == "stream" else asyncio.run(later())


def added(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


both = pytest.mark.parametrize("mode", ["stream", "astream"])


@both
def test_tokens_flow_and_add_up_to_the_whole(mode: str, tmp_path: Path) -> None:
    """Text comes in many pieces, never raw; what they add up to, usage and metadata included, is what invoke gives."""
    with make_guard(tmp_path, PII) as guard:
        model = guard.model(ScriptedModel(script=in_turn(LONG)))
        chunks = stream(mode, model)
        whole = model.invoke("hi")
        assert len([chunk for chunk in chunks if chunk.content]) > 5
        assert all(MAIL not in chunk.content for chunk in chunks)
        total = added(chunks)
        assert total.content == whole.content == CLEAN
        assert (total.usage_metadata, total.id) == (whole.usage_metadata, "run-scripted")
        assert total.response_metadata["model_name"] == "scripted-1-dated"
        streamed_, invoked = [row for row in decisions(guard) if row["stage"] == "output"]
        assert streamed_["shown"] > 200
        same = ("action", "gate", "reason", "edits", "digest")
        assert [streamed_[key] for key in same] == [invoked[key] for key in same]


@both
def test_without_gates_at_output_nothing_waits(mode: str, tmp_path: Path) -> None:
    """Where no gate looks at answers every chunk goes on as it comes."""
    source = "gates: {pii: {type: pii}}\nstages: {input: [pii]}"
    with make_guard(tmp_path, source) as guard:
        chunks = stream(mode, guard.model(chunked(*words(LONG))))
        assert [chunk.content for chunk in chunks if chunk.content] == [word.content for word in words(LONG)]


@both
def test_a_gate_that_needs_the_whole_holds_it(mode: str, tmp_path: Path) -> None:
    """With one gate that has no bounds the answer comes in one piece."""
    source = "gates: {pii: {type: pii}, word: {type: python, call: 'chat:codeword'}}\nstages: {output: [pii, word]}"
    with make_guard(tmp_path, "deadline_ms: 5000\n" + source) as guard:
        chunks = stream(mode, guard.model(chunked(*words(LONG))))
        assert [chunk.content for chunk in chunks if chunk.content] == [CLEAN]


@both
def test_a_block_in_the_middle_ends_the_stream_with_the_refusal(mode: str, tmp_path: Path) -> None:
    """What was shown stays, the refusal follows, the model is not read on, and one decision says how much was shown."""
    with make_guard(tmp_path, BUDGET + WORD) as guard:
        inner = chunked(*words(LONG), AIMessageChunk("swordfish "), *words(LONG))
        chunks = stream(mode, guard.model(inner))
        total = added(chunks)
        (row,) = [row for row in decisions(guard) if row["stage"] == "output"]
        assert (row["action"], row["gate"], row["reason"]) == ("block", "word", "codeword")
        assert 0 < row["shown"] < len(total.content)
        assert total.content == CLEAN[: row["shown"]] + "I can't help with that (codeword)."
        assert total.response_metadata["guardrails"]["decision"] == row["decision"]
        assert max(inner.read) < len(words(LONG)) + 40
        assert inner.closed == ["sync" if mode == "stream" else "async"]


@both
def test_a_block_in_the_middle_raises_where_the_policy_says_so(mode: str, tmp_path: Path) -> None:
    """With `on_block: raise` the stream ends with the exception; the block is recorded once, with what was shown."""
    with make_guard(tmp_path, "on_block: raise\n" + WORD) as guard:
        model, shown = guard.model(chunked(*words(LONG), AIMessageChunk("swordfish "), *words(LONG))), []

        async def later() -> None:
            async for chunk in model.astream("hi"):
                shown.append(chunk.content)  # noqa: PERF401 - what came before the exception counts

        def now() -> None:
            for chunk in model.stream("hi"):
                shown.append(chunk.content)  # noqa: PERF401

        with pytest.raises(GuardrailBlocked) as block:
            now() if mode == "stream" else asyncio.run(later())
        rows = [row for row in decisions(guard) if row["stage"] == "output"]
        assert [row["decision"] for row in rows] == [block.value.decision_id]
        assert rows[0]["shown"] == len("".join(shown)) > 0


def test_what_tracers_hear_is_what_was_shown(tmp_path: Path) -> None:
    """Token handlers get guarded pieces only, and the end of the run says what the pieces said."""

    class Watcher(BaseCallbackHandler):
        def __init__(self) -> None:
            self.tokens, self.ends = [], []

        def on_llm_new_token(self, token: str, **_: object) -> None:
            self.tokens.append(token)

        def on_llm_end(self, response: LLMResult, **_: object) -> None:
            self.ends.append(response.generations[0][0].message.content)

    watcher = Watcher()
    with make_guard(tmp_path, PII) as guard:
        list(guard.model(chunked(*words(LONG))).stream("hi", {"callbacks": [watcher]}))
    assert "".join(watcher.tokens) == CLEAN
    assert watcher.ends == [CLEAN]


@both
def test_arguments_of_calls_wait_for_their_end(mode: str, tmp_path: Path) -> None:
    """Text before a call flows; its arguments come in one piece, decided, with the call's own name and id."""
    source = (
        "deadline_ms: 5000\ngates: {pii: {type: pii}}\nstages: {output: [pii], tool_call: [pii]}\ntools: {look: {}}"
    )
    pieces = [AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name="look", args="", id="t1", index=0)])]
    args = '{"q": "find bob@example.com now"}'
    pieces += [
        AIMessageChunk("", tool_call_chunks=[tool_call_chunk(args=args[at : at + 5], index=0)])
        for at in range(0, len(args), 5)
    ]
    with make_guard(tmp_path, source) as guard:
        chunks = stream(mode, guard.model(chunked(*words(LONG), *pieces)))
        total = added(chunks)
        assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) == 1
        assert len([chunk for chunk in chunks if chunk.content]) > 5
        assert total.tool_calls == [
            {"name": "look", "args": {"q": "find [EMAIL_ADDRESS] now"}, "id": "t1", "type": "tool_call"}
        ]
        assert MAIL not in repr(chunks)


@both
def test_blocks_of_text_and_reasoning_flow_side_by_side(mode: str, tmp_path: Path) -> None:
    """Every block has its own hold; signatures wait; what is added up is what one piece would have been."""

    def block(kind: str, text: str, index: int) -> AIMessageChunk:
        return AIMessageChunk([{"type": kind, kind: text, "index": index}])

    pieces = [block("thinking", word.content, 0) for word in words(LONG)]
    pieces += [AIMessageChunk([{"type": "thinking", "signature": "sig==", "index": 0}])]
    pieces += [block("text", word.content, 1) for word in words(LONG)]
    with make_guard(tmp_path, PII) as guard:
        chunks = stream(mode, guard.model(chunked(*pieces)))
        total = added(chunks)
        assert [(each["type"], each.get("thinking", each.get("text"))) for each in total.content] == [
            ("thinking", CLEAN),
            ("text", CLEAN),
        ]
        assert total.content[0]["signature"] == "sig=="
        assert len(chunks) > 10
        assert MAIL not in repr(chunks)


@both
def test_reasoning_beside_the_content_flows_and_is_decided(mode: str, tmp_path: Path) -> None:
    """Reasoning that a provider puts beside the content is held and edited like text."""
    pieces = [AIMessageChunk("", additional_kwargs={"reasoning_content": word.content}) for word in words(LONG)]
    with make_guard(tmp_path, PII) as guard:
        chunks = stream(mode, guard.model(chunked(*pieces, *words(LONG))))
        total = added(chunks)
        assert total.content == CLEAN
        assert total.additional_kwargs == {"reasoning_content": CLEAN}
        assert sum("reasoning_content" in chunk.additional_kwargs for chunk in chunks) > 5
        assert MAIL not in repr(chunks)


@both
def test_content_that_nobody_can_read_is_blocked_and_not_shown(mode: str, tmp_path: Path) -> None:
    """An image in the middle of a stream of blocks gets the policy's `unchecked` verdict; nothing after it flows."""
    pieces = [AIMessageChunk([{"type": "text", "text": word.content, "index": 0}]) for word in words(LONG)]
    pieces += [AIMessageChunk([{"type": "image", "base64": "AAAA", "index": 1}])]
    with make_guard(tmp_path, PII) as guard:
        chunks = stream(mode, guard.model(chunked(*pieces)))
        assert "AAAA" not in repr(chunks)
        assert added(chunks).content[-1]["text"] == "I can't help with that (unchecked.image)."


@both
def test_json_waits_for_its_end(mode: str, tmp_path: Path) -> None:
    """An answer that may be JSON as a whole is read as such, so it is held."""
    text = '{"mail": "bob@example.com", "note": "' + "word " * 100 + '"} '
    with make_guard(tmp_path, PII) as guard:
        chunks = stream(mode, guard.model(chunked(*words(text))))
        assert len([chunk for chunk in chunks if chunk.content]) == 1
        assert '"[EMAIL_ADDRESS]"' in chunks[0].content


@both
def test_a_consumer_that_stops_listening_is_settled_and_recorded(mode: str, tmp_path: Path) -> None:
    """Leaving a stream closes the model's, settles what was held for it once, and keeps what was shown, once."""
    with make_guard(tmp_path, BUDGET + PII) as guard:
        inner, outcomes = chunked(*words(LONG)), watch(guard)
        model = guard.model(inner)

        async def later() -> str:
            chunks = model.astream("hi")
            shown = (await anext(chunks)).content
            await chunks.aclose()
            return shown

        if mode == "stream":
            chunks = model.stream("hi")
            shown = next(chunks).content
            chunks.close()
        else:
            shown = asyncio.run(later())
        (row,) = [row for row in decisions(guard) if row["stage"] == "output"]
        assert (row["verdict"], row["reason"], row["shown"], row["content"]) == (
            "flag", "stream.broken_off", len(shown), shown,
        )  # fmt: skip
        assert outcomes == ["unknown"]
        assert inner.closed == ["sync" if mode == "stream" else "async"]


def watch(guard: Guard) -> list[str]:
    """The outcomes that budgets are told, in order."""
    outcomes: list[str] = []
    settle = guard.engine.settle
    guard.engine.settle = lambda decision, outcome: (outcomes.append(outcome.status), settle(decision, outcome))
    return outcomes


@both
def test_a_model_that_breaks_off_is_settled_and_recorded(mode: str, tmp_path: Path) -> None:
    """A provider's error in mid-stream reaches the caller; the hold is settled and what was shown is on record."""
    with make_guard(tmp_path, BUDGET + PII) as guard:
        outcomes = watch(guard)
        with pytest.raises(ConnectionError):
            stream(mode, guard.model(chunked(*words(LONG), ConnectionError("gone"))))
        (row,) = [row for row in decisions(guard) if row["stage"] == "output"]
        assert (row["reason"], row["shown"] > 0, MAIL in row["content"]) == ("stream.broken_off", True, False)
        assert outcomes == ["unknown"]


def test_a_cancelled_task_is_settled_and_recorded(tmp_path: Path) -> None:
    """Cancelling the task that reads a stream settles and records exactly once."""
    with make_guard(tmp_path, BUDGET + PII) as guard:
        outcomes, model = watch(guard), guard.model(chunked(*words(LONG)))

        async def read(shown: list[str], some: asyncio.Event) -> None:
            async for chunk in model.astream("hi"):
                shown.append(chunk.content)
                some.set()
                await asyncio.sleep(0.01)

        async def main() -> str:
            shown, some = list[str](), asyncio.Event()
            task = asyncio.create_task(read(shown, some))
            await some.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return "".join(shown)

        shown = asyncio.run(main())
        (row,) = [row for row in decisions(guard) if row["stage"] == "output"]
        assert (row["reason"], row["content"]) == ("stream.broken_off", shown)
        assert outcomes == ["unknown"]


@both
def test_a_whole_stream_settles_with_its_usage(mode: str, tmp_path: Path) -> None:
    """A stream that ends well settles once, as done."""
    with make_guard(tmp_path, BUDGET + PII) as guard:
        outcomes = watch(guard)
        stream(mode, guard.model(ScriptedModel(script=in_turn(LONG))))
        assert outcomes == ["done"]


@both
def test_shadow_keeps_nothing_back(mode: str, tmp_path: Path) -> None:
    """In shadow mode everything flows as it comes, and what would have happened is on record."""
    with make_guard(tmp_path, "mode: shadow\n" + WORD) as guard:
        chunks = stream(mode, guard.model(chunked(*words(LONG), AIMessageChunk("swordfish "))))
        assert "".join(chunk.content for chunk in chunks) == LONG + "swordfish "
        assert len([chunk for chunk in chunks if chunk.content]) == len(words(LONG)) + 1
        (row,) = [row for row in decisions(guard) if row["stage"] == "output"]
        assert (row["verdict"], row["action"]) == ("block", "allow")


def test_tokens_of_the_vault_flow_as_the_whole_would_have_them(tmp_path: Path) -> None:
    """Values become the same tokens in a stream as in one piece, and the user gets them back."""
    source = "deadline_ms: 5000\ngates: {pii: {type: pii, style: token}}\nstages: {output: [pii]}"
    config = {"configurable": {"thread_id": "t1"}}
    with make_guard(tmp_path, source) as guard:
        model = guard.model(ScriptedModel(script=in_turn(LONG)))
        chunks = [chunk.content for chunk in model.stream("hi", config)]
        assert "".join(chunks) == model.invoke("hi", config).content
        assert len(chunks) > 5
        assert MAIL not in "".join(chunks)
        assert guard.restore("".join(chunks), thread="t1") == LONG


def test_a_classifier_looks_at_strides_where_the_policy_says_so(tmp_path: Path) -> None:
    """With `hold: window` text goes as far as the classifier agreed; without, the classifier sees the whole first."""
    gate = (
        "gates: {word: {type: python, call: 'chat:codeword', cost: linear, classifies: true}}\nstages: {output: [word]}"
    )
    for pace, flows in (("stream: {hold: window, every_tokens: 16}\n", True), ("", False)):
        with make_guard(tmp_path, "store: 'memory:'\n" + pace + gate) as guard:
            chunks = stream("stream", guard.model(chunked(*words(LONG), AIMessageChunk("swordfish "), *words(LONG))))
            total = added(chunks)
            assert "swordfish" not in total.content
            assert (len([chunk for chunk in chunks if chunk.content]) > 3) is flows


def test_bounds_that_are_not_true_end_in_a_block(tmp_path: Path) -> None:
    """A gate that changes its mind about what was shown is found out: the stream ends blocked, not silently wrong."""
    gate = "gates: {late: {type: python, call: 'chat:late', cost: linear, max_span: 5}}\nstages: {output: [late]}"
    with make_guard(tmp_path, gate) as guard:
        total = added(stream("stream", guard.model(chunked(*words(LONG), AIMessageChunk("hide")))))
        assert total.content.endswith("(error.stream).")
        assert total.response_metadata["guardrails"]["gate"] == "stream"


@both
def test_nothing_is_shown_that_is_not_on_record(mode: str, tmp_path: Path) -> None:
    """A stream is on record before its first character is shown; where that fails, the stream is blocked."""
    store = Failing(tmp_path / "guard.db")
    with make_guard(tmp_path, PII, store=store) as guard:
        model, seen = guard.model(chunked(*words(LONG))), list[bool]()

        def kinds(_: object = None) -> bool:
            rows = [row["kind"] for run in guard.ledger.runs() for row in guard.ledger.read(run.run)]
            return "stream" in rows

        async def later() -> None:
            async for _ in model.astream("hi"):
                seen.append(kinds())

        seen.extend(map(kinds, model.stream("hi"))) if mode == "stream" else asyncio.run(later())
        assert all(seen)
        assert len(seen) > 3
        store.broken = True
        total = added(stream(mode, guard.model(chunked(*words(LONG)))))
        assert total.content == "I can't help with that (store.disk_full)."


@both
def test_a_gate_that_fails_in_the_middle_does_not_cut_the_answer_short(mode: str, tmp_path: Path) -> None:
    """What a window could not be checked for blocks the stream, also if the gate recovers for what there was."""
    gate = f"{{type: python, call: 'chat:flaky', with: {{name: {mode}}}, cost: linear, max_span: 5}}"
    with make_guard(tmp_path, f"gates: {{flaky: {gate}}}\nstages: {{output: [flaky]}}") as guard:
        total = added(stream(mode, guard.model(chunked(*words(LONG)))))
        assert total.content == "I can't help with that (error.gate_error)."
