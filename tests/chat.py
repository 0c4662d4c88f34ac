"""A scripted chat model, a few tools and gates for tests. Everything around them is real."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from guardrails_mw import Guard
from guardrails_mw.document import Document
from guardrails_mw.errors import StoreError
from guardrails_mw.event import Event
from guardrails_mw.policy import Policy
from guardrails_mw.store import Entry
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Edit, Verdict

Reply = str | AIMessage | BaseException
Script = Callable[[Sequence[BaseMessage]], Reply]

MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


def in_turn(*replies: Reply) -> Script:
    """A script that gives these replies by how many answers the conversation holds; the last one repeats."""

    def script(messages: Sequence[BaseMessage]) -> Reply:
        given = sum(isinstance(message, AIMessage) for message in messages)
        return replies[min(given, len(replies) - 1)]

    return script


def wants(tool: str, call_id: str = "c1", **args: object) -> AIMessage:
    """An answer that calls one tool."""
    return AIMessage("", tool_calls=[{"name": tool, "args": args, "id": call_id}])


class ScriptedModel(BaseChatModel):
    """Answers by a script, whole or word by word, reports its usage and remembers what it was asked."""

    script: Script
    usage: bool = True
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        """The messages of every call, in order."""
        return self._asked

    @property
    def calls(self) -> int:
        """How often it was called."""
        return len(self._asked)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: object) -> dict[str, object]:
        return {"ls_provider": "scripted", "ls_model_name": "scripted-1", "ls_model_type": "chat"}

    def bind_tools(self, tools: Sequence[object], **kwargs: object) -> object:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            self._asked.append(list(messages))
        reply = self.script(messages)
        if isinstance(reply, BaseException):
            raise reply
        message = AIMessage(reply) if isinstance(reply, str) else reply.model_copy(deep=True)
        if self.usage:
            message.usage_metadata = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        message.response_metadata = {"model_name": "scripted-1-dated"}
        return message

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        await asyncio.sleep(0)
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(self._answer(messages)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(self._answer(messages)):
            await asyncio.sleep(0)
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """A message as a provider streams it: words, then the arguments of each tool call in pieces, then the usage."""
    pieces: list[AIMessageChunk] = []
    if isinstance(message.content, str):
        pieces += [AIMessageChunk(word) for word in re.findall(r"\S+\s*|\s+", message.content)]
    elif message.content:
        pieces.append(AIMessageChunk(message.content))
    bad = [(call["name"], call["args"] or "", call["id"]) for call in message.invalid_tool_calls]
    good = [(call["name"], json.dumps(call["args"]), call["id"]) for call in message.tool_calls]
    for index, (name, args, id_) in enumerate(good + bad):
        pieces.append(AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name=name, args="", id=id_, index=index)]))
        pieces += [
            AIMessageChunk("", tool_call_chunks=[tool_call_chunk(args=args[at : at + 7], index=index)])
            for at in range(0, len(args), 7)
        ]
    last = AIMessageChunk("", usage_metadata=message.usage_metadata, response_metadata=message.response_metadata)
    for piece in [*pieces, last]:
        yield ChatGenerationChunk(message=piece.model_copy(update={"id": "run-scripted"}))


def run(mode: str, runnable: object, inputs: list[object], configs: list[dict[str, object]]) -> list[object]:
    """Run each input in a mode; what came out of each: a value, a list of chunks, or the exception."""

    async def later() -> list[object]:
        if mode == "abatch":
            return await runnable.abatch(inputs, configs, return_exceptions=True)
        return [await _atry(mode, runnable, value, config) for value, config in zip(inputs, configs, strict=True)]

    if mode == "batch":
        return runnable.batch(inputs, configs, return_exceptions=True)
    if mode.startswith("a"):
        return asyncio.run(later())
    return [_try(mode, runnable, value, config) for value, config in zip(inputs, configs, strict=True)]


def _try(mode: str, runnable: object, value: object, config: dict[str, object]) -> object:
    try:
        return runnable.invoke(value, config) if mode == "invoke" else list(runnable.stream(value, config))
    except Exception as error:
        return error


async def _atry(mode: str, runnable: object, value: object, config: dict[str, object]) -> object:
    try:
        if mode == "ainvoke":
            return await runnable.ainvoke(value, config)
        return [chunk async for chunk in runnable.astream(value, config)]
    except Exception as error:
        return error


class Tools:
    """Tools that remember what they did."""

    def __init__(self, result: str = "found nothing special") -> None:
        self.result = result
        self.done: list[tuple[str, str]] = []

    def all(self) -> list[BaseTool]:
        from langchain_core.tools import tool

        @tool
        def look(q: str) -> str:
            """Look something up."""
            self.done.append(("look", q))
            return self.result

        @tool
        def wipe(path: str) -> str:
            """Remove a folder."""
            self.done.append(("wipe", path))
            return f"wiped {path}"

        return [look, wipe]


class Failing(SqliteStore):
    """A real store whose log cannot be written while `broken` is set."""

    broken = False

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        if self.broken:
            raise StoreError("store.disk_full")
        return super().append(run, key, at, kind, body)


def make_guard(folder: Path, source: str, **options: object) -> Guard:
    """A guard for a policy text, with a SQLite store in the folder; no test but one of deadlines hangs on them."""
    text = source if "store:" in source else f"store: sqlite:///{folder}/guard.db\n{source}"
    text = text if "deadline_ms" in text else f"deadline_ms: 20000\n{text}"
    return Guard(Policy.load(Document("version: 1\n" + text, "policy.yaml"), base=folder), **options)


def decisions(guard: Guard) -> list[dict[str, object]]:
    """The bodies of all decisions on record, oldest run first."""
    rows = [entry for each in reversed(guard.ledger.runs()) for entry in guard.ledger.read(each.run)]
    return [{**row["body"], "run": row["run"]} for row in rows if row["kind"] == "decision"]


def spoke(guard: Guard) -> list[tuple[object, ...]]:
    """Stage, action, gate, reason and number of edits of every decision that did something."""
    return [
        (row["stage"], row["verdict"], row["gate"], row["reason"], row["edits"])
        for row in decisions(guard)
        if row["verdict"] != "allow" or row["edits"]
    ]


def thread(name: str = "t1", **more: object) -> dict[str, object]:
    """A configuration with a thread."""
    return {"configurable": {"thread_id": name, **more}}


def tool_messages(state: dict[str, list[BaseMessage]]) -> list[ToolMessage]:
    """The tool messages of a state."""
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


# gates that policies of tests name


def codeword(event: Event) -> Verdict:
    """Blocks what holds the word swordfish."""
    return Verdict.block("codeword") if "swordfish" in event.content.text else Verdict.allow()


def odd(event: Event) -> Verdict:
    """Asks a person about what holds the word odd."""
    return Verdict.ask("odd") if "odd" in event.content.text else Verdict.allow()


async def later(event: Event) -> Verdict:
    """Allows everything, once it is awaited."""
    return Verdict.allow()


def late(event: Event) -> Verdict:
    """Hides the beginning once the end is there: what it says depends on all of the text, whatever its bounds say."""
    text = event.content.text
    edits = [Edit(0, 3, "...")] if text.startswith("The") and text.endswith("hide") else []
    return Verdict.allow("late", edits=edits)


def flaky(event: Event, name: str = "") -> Verdict:
    """Fails the first time that it is asked about a text, once for each name."""
    if (name, event.content.text) not in _FAILED:
        _FAILED.add((name, event.content.text))
        raise ValueError("raw secret text")
    return Verdict.allow()


_FAILED: set[tuple[str, str]] = set()


def raises(event: Event, name: str = "ValueError") -> Verdict:
    """Raises what it is told to."""
    raise {
        "ValueError": ValueError("raw secret text"),
        "NotImplementedError": NotImplementedError("raw secret text"),
        "BaseException": _Stray("raw secret text"),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError(),
        "RecursionError": RecursionError("raw secret text"),
    }[name]


class _Stray(BaseException):
    """What no `except Exception` catches."""


def answers(event: Event, what: object = None) -> object:
    """Gives back something that is no verdict."""
    return what


def sleeps(event: Event, seconds: float = 0.5) -> Verdict:
    """Answers too late."""
    time.sleep(seconds)
    return Verdict.allow()


def holds_the_lock(event: Event) -> Verdict:
    """Never lets another thread of its process run: catastrophic backtracking in C."""
    re.match(r"(a+)+$", "a" * 64 + "b")
    return Verdict.allow()


def dies(event: Event) -> Verdict:
    """Ends its process."""
    import os

    os._exit(3)
