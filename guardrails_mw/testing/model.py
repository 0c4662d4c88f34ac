"""A chat model that says what a script tells it to, and streams it for real."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from threading import Lock

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, PrivateAttr

__all__ = ["ScriptedChatModel", "calls"]


class ScriptedChatModel(BaseChatModel):
    """A chat model that gives the replies it was made with, one per call, and streams them for real.

    It offers what guardrails have to cope with: text in pieces, tool calls whose arguments arrive in
    fragments, usage in the last piece. A call beyond the script raises `IndexError`.

    Args:
        replies: texts or messages; `calls` makes a message that calls tools.

    >>> model = ScriptedChatModel(replies=["Hello there"])
    >>> [chunk.content for chunk in model.stream("hi")][:2]
    ['Hello ', 'there']
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    replies: Sequence[str | AIMessage]
    """What it says, in order."""
    model_name: str = "scripted"
    """The name it goes by, which prices are looked up under."""
    cut: str = r"\S+\s*|\s+"
    """A regular expression of the pieces that texts are streamed in."""
    _heard: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: Lock = PrivateAttr(default_factory=Lock)

    @property
    def heard(self) -> Sequence[Sequence[BaseMessage]]:
        """The messages of every call so far: what really reached the model."""
        return self._heard

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(
        self,
        tools: Sequence[object],  # noqa: ARG002 - LangChain's signature
        **kwargs: object,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The script knows which tools it calls."""
        return self.bind(**{key: value for key, value in kwargs.items() if key != "tool_choice"})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002
        **kwargs: object,  # noqa: ARG002
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,  # noqa: ARG002
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,  # noqa: ARG002
    ) -> Iterator[ChatGenerationChunk]:
        for piece in _pieces(self._next(messages), self.cut):
            chunk = ChatGenerationChunk(message=piece)
            if run_manager is not None:
                run_manager.on_llm_new_token(piece.text, chunk=chunk)
            yield chunk

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            reply = self.replies[len(self._heard)]
            self._heard.append(list(messages))
        return AIMessage(reply) if isinstance(reply, str) else reply.model_copy()


def calls(*tools: tuple[str, dict[str, object]], say: str = "") -> AIMessage:
    """A reply that calls tools.

    >>> calls(("refund", {"amount": 5})).tool_calls[0]["name"]
    'refund'
    """
    made = [{"name": name, "args": args, "id": f"call-{n}-{name}"} for n, (name, args) in enumerate(tools)]
    return AIMessage(say, tool_calls=made)


def _pieces(message: AIMessage, cut: str) -> Iterator[AIMessageChunk]:
    """A message in pieces: texts by the pattern `cut`, other blocks whole, calls by their arguments, the rest last."""
    if isinstance(message.content, str):
        yield from (AIMessageChunk(content=text, id=message.id) for text in re.findall(cut, message.content))
    else:
        yield from (AIMessageChunk(content=[block], id=message.id) for block in message.content)
    good = [(call["name"], json.dumps(call["args"]), call["id"]) for call in message.tool_calls]
    bad = [(call["name"], call["args"] or "", call["id"]) for call in message.invalid_tool_calls]
    for index, (name, args, id_) in enumerate(good + bad):
        head = tool_call_chunk(name=name, args="", id=id_, index=index)
        yield AIMessageChunk(content="", tool_call_chunks=[head])
        for start in range(0, len(args), 12):
            rest = tool_call_chunk(args=args[start : start + 12], index=index)
            yield AIMessageChunk(content="", tool_call_chunks=[rest])
    yield AIMessageChunk(
        content="",
        name=message.name,
        usage_metadata=message.usage_metadata,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
    )
