"""A guarded chat model: takes the place of any chat model, and nothing passes it unseen.

It delegates to the inner model's protected methods, so that there is one model run, the guarded one:
tracers, token handlers, streams and checkpoints see guarded data only. In this version a stream is held
until it is complete, decided, and then released.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, SkipValidation

from guardrails_mw.adapters.host import HERE, Here, Runs, digest, pause, raise_block
from guardrails_mw.adapters.messages import (
    message_events,
    refusal_message,
    tokens,
    tool_call,
    with_content,
)
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, ModelCall, Origin, Stage
from guardrails_mw.seam import MODEL, Power, Seam
from guardrails_mw.verdict import Decision, Outcome, Usage
from guardrails_mw.wait import Either, drive, drive_async

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

__all__ = ["GuardedChatModel", "guard_model"]

_MAX_REASKS = 5


@dataclass(frozen=True, slots=True)
class _Entry:
    """What goes into a call of the guarded model: messages as tracers may see them, and where the call stands."""

    messages: list[BaseMessage]
    config: RunnableConfig
    here: Here

    @contextmanager
    def standing(self) -> Iterator[None]:
        """While the call is made."""
        token = HERE.set(self.here)
        try:
            yield
        finally:
            HERE.reset(token)


class GuardedChatModel(BaseChatModel):
    """Any chat model, guarded. Made by `Guard.model`; takes the same calls as the inner model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseChatModel
    """The provider's chat model."""
    answers: frozenset[str] = frozenset()
    """Names of tools whose arguments are the agent's answer, not calls."""
    cache: None = Field(default=None)
    """A guarded answer is never taken from a cache: what was allowed once may not be now."""
    # Fields, because reading a private attribute of a pydantic model takes forty times as long; `SkipValidation`,
    # because pydantic would otherwise rebuild the seam.
    enforcer: SkipValidation[Enforcer] = Field(repr=False, exclude=True)
    runs: SkipValidation[Runs] = Field(repr=False, exclude=True)
    seam: SkipValidation[Seam] = Field(repr=False, exclude=True)

    @property
    def _llm_type(self) -> str:
        return self.inner._llm_type

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: object) -> object:  # type: ignore[override]
        return self.inner._get_ls_params(stop=stop, **kwargs)

    def bind_tools(
        self, tools: Sequence[dict[str, object] | type | Callable[..., object] | BaseTool], **kwargs: object
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools the way the inner model spells them."""
        bound = self.inner.bind_tools(tools, **kwargs)  # type: ignore[arg-type]
        if isinstance(bound, RunnableBinding):
            return self.bind(**bound.kwargs)
        return self

    def with_structured_output(  # type: ignore[override]
        self, schema: dict[str, object] | type, **kwargs: object
    ) -> Runnable[LanguageModelInput, object]:
        """Answers in a schema: the tool that carries such an answer is output, not a call."""
        name = convert_to_openai_tool(schema)["function"]["name"]
        answering = self.model_copy(update={"answers": self.answers | {name}})
        return super(GuardedChatModel, answering).with_structured_output(schema, **kwargs)  # type: ignore[arg-type]

    # Input is cleaned before the run starts, so that tracers never see what an edit replaces. The calls
    # below decide again on the cleaned messages; the enforcer remembers, so that costs nothing.

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object) -> AIMessage:
        """Like the inner model's."""
        entry = drive(self._entering(input, config))
        with entry.standing():
            return super().invoke(entry.messages, entry.config, **kwargs)  # type: ignore[arg-type]

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object
    ) -> AIMessage:
        """Like the inner model's, with gates awaited instead of run in the loop's way."""
        entry = await drive_async(self._entering(input, config))
        with entry.standing():
            return await super().ainvoke(entry.messages, entry.config, **kwargs)  # type: ignore[arg-type]

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object
    ) -> Iterator[AIMessageChunk]:
        """Like the inner model's."""
        entry = drive(self._entering(input, config))
        chunks = super().stream(entry.messages, entry.config, **kwargs)  # type: ignore[arg-type]
        with entry.standing():  # the call is made before the first chunk comes
            first = next(chunks)
        yield first
        yield from chunks

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object
    ) -> AsyncIterator[AIMessageChunk]:
        """Like the inner model's, with gates awaited instead of run in the loop's way."""
        entry = await drive_async(self._entering(input, config))
        chunks = super().astream(entry.messages, entry.config, **kwargs)  # type: ignore[arg-type]
        with entry.standing():
            first = await anext(chunks)
        yield first
        async for chunk in chunks:
            yield chunk

    def stream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Like the inner model's."""
        if kwargs.get("version") == "v3":  # the other versions call `stream`
            entry = drive(self._entering(cast("LanguageModelInput", input), config))
            return super().stream_events(entry.messages, entry.config, **kwargs)  # type: ignore[call-overload]
        return super().stream_events(input, config, **kwargs)  # type: ignore[call-overload]

    def astream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Like the inner model's. With ``version="v3"`` the gates run in the loop's way."""
        if kwargs.get("version") == "v3":
            entry = drive(self._entering(cast("LanguageModelInput", input), config))
            return super().astream_events(entry.messages, entry.config, **kwargs)  # type: ignore[call-overload]
        return super().astream_events(input, config, **kwargs)  # type: ignore[call-overload]

    async def _entering(self, input: LanguageModelInput, config: RunnableConfig | None) -> _Entry:
        """Decide what goes into a run before it begins, and name the run, so that both belong together."""
        config = ensure_config(config)
        run_id = config.get("run_id") or uuid4()
        config["run_id"] = run_id
        parent = getattr(config.get("callbacks"), "parent_run_id", None) or run_id
        here = self.runs.here(str(parent), config=config)
        return _Entry(await self._cleaned(self._convert_input(input).to_messages(), here), config, here)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        return drive(self._calling(messages, run_manager, self._whole(stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        return await drive_async(self._calling(messages, run_manager, self._whole(stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> Iterator[ChatGenerationChunk]:
        yield _as_chunk(drive(self._calling(messages, run_manager, self._streamed(stop, kwargs))))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> AsyncIterator[ChatGenerationChunk]:
        yield _as_chunk(await drive_async(self._calling(messages, run_manager, self._streamed(stop, kwargs))))

    def _whole(self, stop: list[str] | None, kwargs: dict[str, object]) -> _Call:
        inner = self.inner
        return lambda messages: Either(
            lambda: inner._generate(messages, stop, None, **kwargs),
            lambda: inner._agenerate(messages, stop, None, **kwargs),
        )

    def _streamed(self, stop: list[str] | None, kwargs: dict[str, object]) -> _Call:
        inner = self.inner
        if type(inner)._stream is BaseChatModel._stream and type(inner)._astream is BaseChatModel._astream:
            return self._whole(stop, kwargs)
        if hasattr(inner, "stream_usage"):
            kwargs = {"stream_usage": True, **kwargs}  # without it a custom base_url reports no tokens
        return lambda messages: Either(
            lambda: generate_from_stream(inner._stream(messages, stop, None, **kwargs)),
            lambda: agenerate_from_stream(inner._astream(messages, stop, None, **kwargs)),
        )

    async def _cleaned(self, messages: Sequence[BaseMessage], here: Here) -> list[BaseMessage]:
        """The messages edited, with placeholders for blocked ones."""
        cleaned = list(messages)
        seam = self.seam if here.pausable else self.seam.without(Power.ASK)
        for index, event in message_events(messages, here):
            decision = await self.enforcer.deciding(event, seam)
            if decision.blocked or decision.edited:
                cleaned[index] = with_content(messages[index], self.enforcer.passed(decision).value)
        return cleaned

    async def _calling(
        self,
        messages: Sequence[BaseMessage],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        call: _Call,
    ) -> ChatResult:
        """One model call with everything that has to happen around it."""
        parent = str(run_manager.parent_run_id or run_manager.run_id) if run_manager else ""
        here = HERE.get() or self.runs.here(parent)
        attempt = str(run_manager.run_id) if run_manager else digest([m.id for m in messages])
        checked, refused = await self._checked(messages, here)
        if refused is not None:
            return self._refused(refused)
        for number in range(_MAX_REASKS + 1):
            result, decision = await self._attempt(checked, here, f"{attempt}#{number}", call)
            if decision is None:
                return result
            if number >= min(self.enforcer.engine.reasks(decision), _MAX_REASKS):
                return self._refused(decision)
            checked += [AIMessage(result.generations[0].message.content), HumanMessage(decision.verdict.note)]
        raise AssertionError("the last round returns")

    async def _checked(self, messages: Sequence[BaseMessage], here: Here) -> tuple[list[BaseMessage], Decision | None]:
        """The messages as the model may see them, and the block on what was said last, if there is one.

        What was blocked earlier in the conversation stays out of the model's sight and refuses nothing.
        """
        seam = self.seam if here.pausable else self.seam.without(Power.ASK)
        answered = max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)
        checked = list(messages)
        for index, event in message_events(messages, here):
            decision = await self.enforcer.deciding(event, seam)
            if index > answered and event.stage is Stage.INPUT:
                decision = await self.enforcer.answering(decision, seam, pause)
                if decision.blocked:
                    return checked, decision
            if decision.blocked and self.enforcer.manners.raises(event.stage) and index > answered:
                return checked, decision
            if decision.blocked or decision.edited:
                checked[index] = with_content(messages[index], self.enforcer.passed(decision).value)
        return checked, None

    async def _attempt(
        self, messages: list[BaseMessage], here: Here, attempt: str, call: _Call
    ) -> tuple[ChatResult, Decision | None]:
        """Ask for leave, call, settle, look at the answer. The decision is the one that blocked, if any."""
        event = self._model_event(messages, here, attempt)
        asked = event.call.input_tokens if isinstance(event.call, ModelCall) else 0
        permit = await self.enforcer.engine.deciding(event, self.seam)
        if permit.blocked:
            return ChatResult(generations=[]), permit
        began = time.perf_counter()
        try:
            result = await call(messages)
        except BaseException:
            self.enforcer.engine.settle(permit, Outcome("unknown", time.perf_counter() - began))
            raise
        self.enforcer.engine.settle(permit, self._outcome(result, asked, time.perf_counter() - began))
        generations: list[ChatGeneration] = []
        for index, generation in enumerate(result.generations):
            message, blocked = await self._answer(generation.message, here, f"{attempt}.{index}")
            if blocked is not None:
                return result, blocked
            generations.append(ChatGeneration(message=message, generation_info=generation.generation_info))
        return result.model_copy(update={"generations": generations}), None

    async def _answer(self, message: BaseMessage, here: Here, key: str) -> tuple[BaseMessage, Decision | None]:
        """Decide the answer's content and, where no tool seam will, its tool calls."""
        if isinstance(message, AIMessage) and message.tool_calls and not message.content:
            return await self._proposed(message, here, key)  # no answer yet: an empty text would fit no schema
        event = Event(
            Stage.OUTPUT,
            Content(message.content, blocks=True),
            Origin.MODEL,
            here.actor,
            here.where,
            key=here.key("output", key),
        )
        decision = await self.enforcer.deciding(event, self.seam)
        if decision.blocked:
            return message, decision
        if decision.edited:
            message = with_content(message, decision.content.value)
        if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
            return await self._proposed(message, here, key)
        return message, None

    async def _proposed(self, message: AIMessage, here: Here, key: str) -> tuple[BaseMessage, Decision | None]:
        """Decide what the model wants to call, as far as this seam has to."""
        calls = []
        for index, host_call in enumerate(message.tool_calls):
            answer = host_call["name"] in self.answers
            if self.enforcer.tool_seam and not answer:
                calls.append(host_call)
                continue
            event = Event(
                Stage.OUTPUT if answer else Stage.TOOL_CALL,
                Content(host_call["args"]),
                Origin.MODEL,
                here.actor,
                here.where,
                None if answer else tool_call(host_call),
                here.key("call", key, host_call.get("id") or str(index)),
            )
            decision = await self.enforcer.deciding(event, self.seam)
            if decision.blocked:
                return message, decision
            self.enforcer.engine.settle(decision, Outcome("done"))
            calls.append({**host_call, "args": cast("dict[str, object]", decision.content.value)})
        return message.model_copy(update={"tool_calls": calls}), None

    def _model_event(self, messages: Sequence[BaseMessage], here: Here, attempt: str) -> Event:
        params = self.inner._get_ls_params()
        call = ModelCall(
            name=str(params.get("ls_model_name") or self.inner._llm_type),
            input_tokens=tokens([message.text for message in messages]),
            max_tokens=int(params.get("ls_max_tokens") or 0),
        )
        return Event(Stage.MODEL, Content(None), Origin.MODEL, here.actor, here.where, call, here.key("model", attempt))

    @staticmethod
    def _outcome(result: ChatResult, asked: int, seconds: float) -> Outcome:
        message = result.generations[0].message if result.generations else None
        usage = message.usage_metadata if isinstance(message, AIMessage) else None
        name = str(message.response_metadata.get("model_name") or "") if message else ""
        if usage is not None:
            used = Usage(usage["input_tokens"], usage["output_tokens"])
        else:
            used = Usage(asked, tokens([message.text]) if message else 0)
        return Outcome("done", seconds, used, name)

    def _refused(self, decision: Decision) -> ChatResult:
        if self.enforcer.manners.raises(decision.stage):
            raise_block(self.enforcer, decision)
        return ChatResult(generations=[ChatGeneration(message=refusal_message(self.enforcer, decision))])


_Call = Callable[[list[BaseMessage]], Either[ChatResult]]


def guard_model(
    model: BaseChatModel | Runnable[LanguageModelInput, AIMessage],
    enforcer: Enforcer,
    runs: Runs,
    seam: Seam = MODEL,
    answers: frozenset[str] = frozenset(),
) -> Runnable[LanguageModelInput, AIMessage]:
    """The model, guarded; one that this guard already guards is returned as it is.

    Raises:
        TypeError: not a chat model. A model with fallbacks or retries is guarded from the inside:
            ``guard.model(a).with_fallbacks([guard.model(b)])``.
    """
    if isinstance(model, GuardedChatModel) and model.enforcer is enforcer:
        return model
    if isinstance(model, RunnableBinding):
        inner = guard_model(model.bound, enforcer, runs, seam, answers)
        return RunnableBinding(
            bound=inner, kwargs=model.kwargs, config=model.config, config_factories=model.config_factories
        )
    if not isinstance(model, BaseChatModel):
        raise TypeError(
            f"guard.model takes a chat model, not {type(model).__name__}; guard the models inside it: "
            "guard.model(a).with_fallbacks([guard.model(b)])"
        )
    return GuardedChatModel(
        enforcer=enforcer,
        runs=runs,
        seam=seam,
        inner=model,
        answers=answers,
        disable_streaming=model.disable_streaming,
        rate_limiter=model.rate_limiter,
        profile=model.profile,
        metadata={**(model.metadata or {}), "guardrails": id(enforcer)},
        tags=model.tags,
    )


def _json(args: object) -> str:
    return json.dumps(args, ensure_ascii=False)


def _as_chunk(result: ChatResult) -> ChatGenerationChunk:
    """A whole answer as the one chunk of a stream."""
    message = result.generations[0].message
    assert isinstance(message, AIMessage)
    chunks = [
        tool_call_chunk(name=call["name"], args=_json(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    chunk = AIMessageChunk(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=chunks,
        id=message.id,
    )
    return ChatGenerationChunk(message=chunk, generation_info=result.generations[0].generation_info)
