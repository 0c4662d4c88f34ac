"""Running something in every mode, and keeping all that comes out of it and all that tracers are told."""

from __future__ import annotations

import asyncio
import sqlite3
import warnings
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Protocol, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessageChunk
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from guardrails_mw.testing.leaving import bytes_of, rows

__all__ = ["CANARY_MODES", "Tracer", "checkpoint_bytes", "joined", "ran"]

CANARY_MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "events", "events v3")
"""The ways in which `Watch.run` can run something."""

_STREAMS = ("values", "updates", "messages", "custom", "tasks", "checkpoints", "debug")


class _Runnable(Protocol):
    """What can be run: LangChain's `Runnable`, as far as it is used here."""

    def invoke(self, input: object, config: object, /) -> object: ...  # noqa: A002
    async def ainvoke(self, input: object, config: object, /) -> object: ...  # noqa: A002
    def stream(self, input: object, config: object, /, **kwargs: object) -> Iterator[object]: ...  # noqa: A002
    def astream(self, input: object, config: object, /, **kwargs: object) -> AsyncIterator[object]: ...  # noqa: A002
    def batch(self, inputs: list[object], config: object, /) -> list[object]: ...
    async def abatch(self, inputs: list[object], config: object, /) -> list[object]: ...
    def astream_events(self, input: object, config: object, /, *, version: str) -> object: ...  # noqa: A002


class Tracer(BaseCallbackHandler):
    """Somebody else's tracer: hears everything there is to hear, and keeps it as it was when it was told."""

    def __init__(self) -> None:
        self._heard: list[tuple[str, bytes]] = []
        self._tokens: dict[object, list[str]] = {}

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def hook(*args: object, **kwargs: object) -> None:
            self._heard.append((f"tracer {name}", bytes_of((args, kwargs))))
            if name == "on_llm_new_token":
                self._tokens.setdefault(kwargs.get("run_id"), []).append(str(kwargs.get("token", *args[:1])))

        return hook

    def told(self) -> list[tuple[str, bytes]]:
        """What it heard, and the tokens of each run put together."""
        joined = [("tracer tokens", "".join(tokens).encode()) for tokens in self._tokens.values()]
        return [*self._heard, *joined]


def ran(given: object, mode: str, value: object, config: object, options: dict[str, object]) -> object:
    """What came out of a run, piece by piece where it streams; of a graph in every stream mode."""
    target = cast("_Runnable", given)
    if mode in ("stream", "astream") and hasattr(given, "get_state"):
        options = {"stream_mode": list(_STREAMS), "subgraphs": True, **options}
    if mode == "batch":
        return target.batch([value], [config])
    if mode == "stream":
        return list(target.stream(value, config, **options))
    if mode == "invoke":
        return target.invoke(value, config, **options)
    return asyncio.run(_aran(target, mode, value, config, options))


async def _aran(target: _Runnable, mode: str, value: object, config: object, options: dict[str, object]) -> object:
    if mode == "ainvoke":
        return await target.ainvoke(value, config, **options)
    if mode == "abatch":
        return await target.abatch([value], [config])
    if mode == "astream":
        return [chunk async for chunk in target.astream(value, config, **options)]
    if mode == "events":
        events = cast("AsyncIterator[object]", target.astream_events(value, config, version="v2"))
        return [event async for event in events]
    if mode != "events v3":
        raise ValueError(f"unknown mode; allowed: {', '.join(CANARY_MODES)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain calls it experimental
        run = await cast("Awaitable[AsyncIterator[object]]", target.astream_events(value, config, version="v3"))
        return [event async for event in run]


def joined(returned: object) -> bytes:
    """The texts, reasoning and arguments of streamed answers, put together: a value may come in pieces."""
    pieces: dict[tuple[str, object], list[str]] = {}
    for chunk in _chunks(returned, 0):
        pieces.setdefault(("text", chunk.id), []).append(str(chunk.text))
        for call in chunk.tool_call_chunks:
            pieces.setdefault((str(chunk.id), call["index"]), []).append(call["args"] or "")
    return b"\n".join("".join(piece).encode("utf-8", "surrogatepass") for piece in pieces.values())


def _chunks(value: object, depth: int) -> Iterator[AIMessageChunk]:
    if isinstance(value, AIMessageChunk):
        yield value
    elif isinstance(value, list | tuple | Mapping) and depth < 6:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _chunks(item, depth + 1)


def checkpoint_bytes(saver: BaseCheckpointSaver[str]) -> bytes:
    """All that a checkpointer holds: checkpoints, metadata, blobs, pending writes."""
    if isinstance(saver, InMemorySaver):
        return bytes_of((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))
    connection = getattr(saver, "conn", None)
    return rows(connection) if isinstance(connection, sqlite3.Connection) else bytes_of(list(saver.list(None)))
