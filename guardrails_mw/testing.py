"""For tests of your own policies and agents: a scripted chat model, assertions, a recording observer.

Needs the extra ``langchain``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, PrivateAttr

from guardrails_mw.event import ANONYMOUS, Actor, Content, Event, Origin, Stage, ToolCall
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.stores import open_store
from guardrails_mw.verdict import Action, Decision

__all__ = ["Recording", "ScriptedChatModel", "assert_allows", "assert_blocks", "calls"]

_ORIGINS = {Stage.INPUT: Origin.USER, Stage.TOOL_RESULT: Origin.TOOL}


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
        for piece in _pieces(self._next(messages)):
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


def _pieces(message: AIMessage) -> Iterator[AIMessageChunk]:
    for text in re.findall(r"\S+\s*|\s+", message.text):
        yield AIMessageChunk(content=text)
    for index, call in enumerate(message.tool_calls):
        head = tool_call_chunk(name=call["name"], args="", id=call["id"], index=index)
        yield AIMessageChunk(content="", tool_call_chunks=[head])
        args = json.dumps(call["args"])
        for start in range(0, len(args), 12):
            rest = tool_call_chunk(args=args[start : start + 12], index=index)
            yield AIMessageChunk(content="", tool_call_chunks=[rest])
    yield AIMessageChunk(content="", usage_metadata=message.usage_metadata, response_metadata=message.response_metadata)


class Recording:
    r"""Keeps every decision of a guard, in order.

    >>> from guardrails_mw.document import Document
    >>> source = "version: 1\ngates: {signs: {type: injection}}\nstages: {input: [signs]}"
    >>> guard = Guard(Policy.load(Document(source)))
    >>> seen = Recording(guard)
    >>> _ = guard.check("hello")
    >>> [decision.action.word for decision in seen.decisions]
    ['allow']
    """

    def __init__(self, guard: Guard) -> None:
        self.decisions: list[Decision] = []
        guard.engine.observers.append(self.decisions.append)

    @property
    def reasons(self) -> list[str]:
        """Gate and reason of every check that had something to say, as ``gate:reason``."""
        return [
            f"{check.gate}:{check.verdict.reason}"
            for decision in self.decisions
            for check in decision.checks
            if check.verdict.action > Action.ALLOW or check.verdict.edits
        ]


def assert_blocks(
    guard: Guard | Policy | str | Path,
    what: str | ToolCall,
    *,
    stage: Stage | str = Stage.INPUT,
    reason: str | None = None,
    actor: Actor = ANONYMOUS,
) -> Decision:
    """Fail unless a text or a tool call is blocked, by this reason if one is given.

    Args:
        guard: a guard, a policy, or the path of a policy file (decided with a store in memory).
        what: a text, or a tool call (then the stage is ``tool_call``).
        stage: where the text stands.
        reason: the expected reason code.
        actor: who asks.
    """
    decision = _decided(guard, what, Stage(stage), actor)
    assert decision.verdict.action is Action.BLOCK, f"not blocked: {_said(decision)}"
    assert reason in (None, decision.verdict.reason), f"blocked, but: {_said(decision)}"
    return decision


def assert_allows(
    guard: Guard | Policy | str | Path,
    what: str | ToolCall,
    *,
    stage: Stage | str = Stage.INPUT,
    actor: Actor = ANONYMOUS,
) -> Decision:
    """Fail if a text or a tool call is blocked or asked about; flags and edits are allowed. See `assert_blocks`."""
    decision = _decided(guard, what, Stage(stage), actor)
    assert decision.verdict.action <= Action.FLAG, f"not allowed: {_said(decision)}"
    return decision


def _decided(given: Guard | Policy | str | Path, what: str | ToolCall, stage: Stage, actor: Actor) -> Decision:
    if isinstance(what, ToolCall):
        event = Event(Stage.TOOL_CALL, Content(what.args), Origin.MODEL, actor, call=what)
    else:
        event = Event(stage, Content(what), _ORIGINS.get(stage, Origin.MODEL), actor)
    if isinstance(given, Guard):
        return given.decide(event)
    policy = given if isinstance(given, Policy) else Policy.read(given)
    with Guard(policy, store=open_store("memory:", policy.base)) as guard:
        return guard.decide(event)


def _said(decision: Decision) -> str:
    return f"{decision.verdict.action.word} {decision.gate} {decision.verdict.reason}".rstrip()
