"""One exchange with a model: what goes in, leave to call it, what it cost, what came out.

The guarded model runs it for every call, whichever way LangChain makes that call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages import ToolCall as HostToolCall
from langchain_core.outputs import ChatGeneration, ChatResult

from guardrails_mw.adapters.host import Here, pause
from guardrails_mw.adapters.messages import (
    ended,
    last_answer,
    message_events,
    model_event,
    outcome,
    output_event,
    refusal_message,
    silent,
    size,
    tool_call,
    with_answer,
    with_content,
)
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, ModelCall, Origin, Stage
from guardrails_mw.seam import MIDDLEWARE, Seam
from guardrails_mw.verdict import Action, Decision, Outcome
from guardrails_mw.wait import Either

__all__ = ["ANSWERED", "ENTERED", "Call", "Entered", "Exchange", "Reading"]

Call = Callable[[list[BaseMessage]], Either[ChatResult]]
"""Calls the model with messages, in either world."""

ANSWERED: ContextVar[list[str] | None] = ContextVar("guardrails_mw_answered", default=None)
"""Filled with the names of the exchanges that ran, for whoever wants to know that an answer came from one."""

_MAX_REASKS = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """A conversation as it was decided.

    Attributes:
        messages: as a model and tracers may see them, with placeholders for blocked ones.
        decisions: by index, on those that somebody outside wrote.
        texts: what the messages say, to notice a change.
    """

    messages: list[BaseMessage]
    decisions: dict[int, Decision]
    texts: list[object] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", [message.content for message in self.messages])

    def again(self, messages: Sequence[BaseMessage]) -> Reading | None:
        """The same for messages that are all of these and say what they said, but for system messages; else None.

        Content blocks can be changed in place, so messages made of them are read anew.
        """
        places = {id(message): index for index, message in enumerate(self.messages)}
        decisions: dict[int, Decision] = {}
        for index, message in enumerate(messages):
            place = places.get(id(message))
            if place is None:
                if isinstance(message, SystemMessage):
                    continue
                return None
            if type(message.content) is not str or message.content is not self.texts[place]:
                return None
            if place in self.decisions:
                decisions[index] = self.decisions[place]
        return Reading(list(messages), decisions)


@dataclass(frozen=True, slots=True)
class Entered:
    """A call that a guard has begun to look after: where it stands, and what was read for it."""

    enforcer: Enforcer
    here: Here
    reading: Reading

    @contextmanager
    def standing(self) -> Iterator[None]:
        """While the call is made."""
        token = ENTERED.set(self)
        try:
            yield
        finally:
            ENTERED.reset(token)


ENTERED: ContextVar[Entered | None] = ContextVar("guardrails_mw_entered", default=None)
"""The innermost call of a model that some guard looks after."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Everything that has to happen around a call of one model.

    Attributes:
        here: where the call is made.
        inner: the model, for its name and limits; it is called by what `run` is given.
        answers: names of tools whose arguments are the agent's answer, not calls.
    """

    enforcer: Enforcer
    seam: Seam
    here: Here
    inner: BaseChatModel
    answers: frozenset[str]

    async def read(self, messages: Sequence[BaseMessage]) -> Reading:
        """Decide what others wrote; what was decided a moment ago is taken over. Asks nobody and refuses nothing."""
        earlier = ENTERED.get()
        if earlier is not None and earlier.enforcer is self.enforcer:
            known = earlier.reading.again(messages)
            if known is not None:
                return known
        cleaned, decisions = list(messages), dict[int, Decision]()
        seam = self.here.within(self.seam)
        for index, event in message_events(messages, self.here):
            decision = decisions[index] = await self.enforcer.deciding(event, seam)
            if decision.blocked or decision.edited:
                cleaned[index] = with_content(messages[index], self.enforcer.passed(decision).value)
        return Reading(cleaned, decisions)

    async def run(self, messages: Sequence[BaseMessage], name: str, call: Call) -> ChatResult:
        """The model's answer, or a refusal. `name` tells this call from all others of the run."""
        checked, refused = await self._checked(messages)
        if refused is not None:
            return self._refused(refused, name)
        if (end := ended(self.enforcer, messages)) is not None:
            return _noted(ChatResult(generations=[ChatGeneration(message=end)]), name)
        for number in range(_MAX_REASKS + 1):
            result, block = await self._attempt(checked, f"{name}#{number}", call)
            if block is None:
                return _noted(result, name)
            if block.stage is Stage.MODEL or number >= min(self.enforcer.engine.reasks(block), _MAX_REASKS):
                return self._refused(block, name)
            checked += [AIMessage(result.generations[0].message.content), HumanMessage(block.verdict.note)]
        raise AssertionError("the last round returns")

    async def foreign(self, message: AIMessage, name: str) -> AIMessage:
        """An answer that was had past this exchange, as it may go on: counted and decided, though after the fact."""
        permit = await self.enforcer.engine.deciding(model_event(self._model_call([]), self.here, name), self.seam)
        if permit.blocked:
            return refusal_message(self.enforcer, permit)
        self.enforcer.engine.settle(permit, outcome(message, 0, 0.0))
        answer, block = await self._answer(message, name)
        return refusal_message(self.enforcer, block) if block else cast("AIMessage", answer)

    async def _checked(self, messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], Decision | None]:
        """The messages as the model may see them, and the block on what was said last, if there is one.

        What was blocked earlier in the conversation stays out of the model's sight and refuses nothing.
        """
        reading, seam = await self.read(messages), self.here.within(self.seam)
        answered, checked = last_answer(messages), list(reading.messages)
        for index, decision in reading.decisions.items():
            if decision.stage is Stage.INPUT and (index > answered or decision.action is Action.ASK):
                ruled = await self.enforcer.answering(decision, seam, pause, resuming=self.here.resuming)
                if ruled.blocked and index > answered:
                    return reading.messages, ruled
                if ruled.blocked:
                    checked[index] = with_content(checked[index], self.enforcer.passed(ruled).value)
            elif index > answered and decision.blocked and self.enforcer.manners.raises(decision.stage):
                return reading.messages, decision
        return checked, None

    async def _attempt(
        self, messages: list[BaseMessage], attempt: str, call: Call
    ) -> tuple[ChatResult, Decision | None]:
        """Ask for leave, call, settle, look at the answer. The decision is the one that blocked, if any."""
        asked = self._model_call(messages)
        permit = await self.enforcer.engine.deciding(model_event(asked, self.here, attempt), self.seam)
        if permit.blocked:
            return ChatResult(generations=[]), permit
        began = time.perf_counter()
        try:
            result = await call(messages)
        except BaseException:
            self.enforcer.engine.settle(permit, Outcome("unknown", time.perf_counter() - began))
            raise
        answer = result.generations[0].message if result.generations else None
        self.enforcer.engine.settle(permit, outcome(answer, asked.input_tokens, time.perf_counter() - began))
        generations: list[ChatGeneration] = []
        for index, generation in enumerate(result.generations):
            message, block = await self._answer(generation.message, f"{attempt}.{index}")
            if block is not None:
                return result, block
            generations.append(ChatGeneration(message=message, generation_info=generation.generation_info))
        return result.model_copy(update={"generations": generations}), None

    def _model_call(self, messages: Sequence[BaseMessage]) -> ModelCall:
        params = self.inner._get_ls_params()
        return ModelCall(
            name=str(params.get("ls_model_name") or self.inner._llm_type),
            input_tokens=size(*messages),
            max_tokens=int(params.get("ls_max_tokens") or 0),
        )

    async def _answer(self, message: BaseMessage, key: str) -> tuple[BaseMessage, Decision | None]:
        """Decide the answer's content and, where no tool seam will, its tool calls."""
        if not silent(message):
            decision = await self.enforcer.deciding(output_event(message, self.here, key), self.seam)
            if decision.blocked:
                return message, decision
            if decision.edited:
                message = with_answer(message, decision.content.value)
        if isinstance(message, AIMessage) and message.tool_calls:
            return await self._proposed(message, key)
        return message, None

    async def _proposed(self, message: AIMessage, key: str) -> tuple[BaseMessage, Decision | None]:
        """Decide what the model wants to call, as far as this seam has to."""
        calls = []
        for index, call in enumerate(message.tool_calls):
            elsewhere = self.seam is MIDDLEWARE or call["name"] in self.enforcer.seat.tool_seam
            if elsewhere and call["name"] not in self.answers:
                calls.append(call)
                continue
            decision = await self.enforcer.deciding(self._call_event(call, key, index), self.seam)
            if decision.blocked:
                return message, decision
            self.enforcer.engine.settle(decision, Outcome("done"))
            calls.append({**call, "args": cast("dict[str, object]", decision.content.value)})
        if calls == message.tool_calls:
            return message, None
        beside = {k: v for k, v in message.additional_kwargs.items() if k not in ("tool_calls", "function_call")}
        return message.model_copy(update={"tool_calls": calls, "additional_kwargs": beside}), None

    def _call_event(self, call: HostToolCall, key: str, index: int) -> Event:
        """A proposed call; one that carries the agent's answer is output."""
        content, name = Content(call["args"]), ("call", key, call.get("id") or str(index))
        if call["name"] in self.answers:
            return self.here.event(Stage.OUTPUT, Origin.MODEL, content, *name)
        return self.here.event(Stage.TOOL_CALL, Origin.MODEL, content, *name, call=tool_call(call))

    def _refused(self, block: Decision, name: str) -> ChatResult:
        return _noted(ChatResult(generations=[ChatGeneration(message=refusal_message(self.enforcer, block))]), name)


def _noted(result: ChatResult, name: str) -> ChatResult:
    """The result, with a note that it came from an exchange."""
    if (answered := ANSWERED.get()) is not None:
        answered.append(name)
    return result
