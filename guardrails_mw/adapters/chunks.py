"""A whole answer as the one chunk of a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult

__all__ = ["arriving", "as_chunk", "last", "settled"]

_UNSETTLED = frozenset({"type", "tool_call_chunks", "chunk_position"})


def arriving(result: ChatResult) -> ChatGenerationChunk:
    """A model's result as it would arrive in a stream: calls whose arguments are cut off are completed."""
    message, info = _first(result)
    return ChatGenerationChunk(message=_chunk(message, [*_good(message), *_bad(message)]), generation_info=info)


def as_chunk(result: ChatResult) -> ChatGenerationChunk:
    """A decided result as the one chunk of a stream."""
    return last(*_first(result))


def last(message: AIMessage, info: Mapping[str, object] | None) -> ChatGenerationChunk:
    """A decided answer, or what is left of one, as the last chunk of a stream.

    Whoever adds chunks up reads their arguments anew: a call that could not be parsed when it was decided stays out
    if it could be now, with an edit in it.
    """
    chunk = _chunk(message, [*_good(message), *_bad(message)])
    if len(chunk.tool_calls) > len(message.tool_calls):
        chunk = _chunk(message, _good(message))
    return ChatGenerationChunk(message=chunk, generation_info=dict(info) if info is not None else None)


def settled(message: AIMessage) -> AIMessage:
    """An answer without the pieces that its calls came in, which would repeat them; of whichever class of chunk it is.

    >>> settled(AIMessageChunk("so")).type
    'ai'
    """
    if not isinstance(message, AIMessageChunk):
        return message
    told = {**vars(message), **(message.model_extra or {})}
    return AIMessage(**{name: value for name, value in told.items() if name not in _UNSETTLED})


_Call: TypeAlias = "tuple[str | None, str | None, str | None]"
"""Name, arguments as text and id."""


def _first(result: ChatResult) -> tuple[AIMessage, dict[str, object] | None]:
    generation = result.generations[0]
    assert isinstance(generation.message, AIMessage)
    return generation.message, generation.generation_info


def _good(message: AIMessage) -> list[_Call]:
    return [(call["name"], json.dumps(call["args"], ensure_ascii=False), call["id"]) for call in message.tool_calls]


def _bad(message: AIMessage) -> list[_Call]:
    return [(call["name"], call["args"], call["id"]) for call in message.invalid_tool_calls]


def _chunk(message: AIMessage, calls: Sequence[_Call]) -> AIMessageChunk:
    return AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=[
            tool_call_chunk(name=name, args=args, id=id_, index=index) for index, (name, args, id_) in enumerate(calls)
        ],
        id=message.id,
    )
