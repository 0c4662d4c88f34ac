"""A guarded chat model: takes the place of any chat model, and nothing passes it unseen.

It delegates to the inner model's protected methods, so that there is one model run, the guarded one:
tracers, token handlers, streams and checkpoints see guarded data only. Tokens flow as far as the gates at
`output` have seen what they must see; where one of them needs all of an answer, it comes in one piece.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal, cast
from uuid import uuid4

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field, SkipValidation

from guardrails_mw.adapters.answered import begun, decided
from guardrails_mw.adapters.chunks import as_chunk
from guardrails_mw.adapters.exchange import Exchange
from guardrails_mw.adapters.host import Here, Runs
from guardrails_mw.adapters.reading import ENTERED, Entered, Reading
from guardrails_mw.adapters.streaming import streamed
from guardrails_mw.adapters.target import Target
from guardrails_mw.event import Stage
from guardrails_mw.generation import Seat
from guardrails_mw.seam import MODEL, Seam
from guardrails_mw.verdict import Decision
from guardrails_mw.wait import Either, drive, drive_async, drive_each, drive_each_async

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

__all__ = ["GuardedChatModel", "guard_model"]


class GuardedChatModel(BaseChatModel):
    """Any chat model, guarded. Made by `Guard.model`; takes the same calls as the inner model."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseChatModel
    """The provider's chat model."""
    cheaper: BaseChatModel | None = None
    """Called instead where a budget is used up and says so; tools are bound to it as to the inner model."""
    answers: frozenset[str] = frozenset()
    """Names of tools whose arguments are the agent's answer, not calls."""
    cache: Literal[False] = False
    """A guarded answer is never taken from a cache, LangChain's global one included: what was allowed once, or to
    another guard, may not be now."""
    # Fields, because reading a private attribute of a pydantic model takes forty times as long; `SkipValidation`,
    # because pydantic would otherwise rebuild the seam.
    seat: SkipValidation[Seat] = Field(repr=False, exclude=True)
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

    # Input is cleaned before the run starts, so that tracers never see what an edit replaces. What was read
    # is taken over by the call itself.

    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object) -> AIMessage:
        """Like the inner model's."""
        entry, config = drive(self._entering(input, config))
        with entry.standing():
            return super().invoke(entry.reading.messages, config, **kwargs)  # type: ignore[arg-type]

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object
    ) -> AIMessage:
        """Like the inner model's, with gates awaited instead of run in the loop's way."""
        entry, config = await drive_async(self._entering(input, config))
        with entry.standing():
            return await super().ainvoke(entry.reading.messages, config, **kwargs)  # type: ignore[arg-type]

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object
    ) -> Iterator[AIMessageChunk]:
        """Like the inner model's."""
        entry, config = drive(self._entering(input, config))
        chunks = super().stream(entry.reading.messages, config, **kwargs)  # type: ignore[arg-type]
        with entry.standing():  # the call is made before the first chunk comes
            first = next(chunks)
        begun(self.seat, first)
        yield first
        yield from chunks

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: object
    ) -> AsyncIterator[AIMessageChunk]:
        """Like the inner model's, with gates awaited instead of run in the loop's way."""
        entry, config = await drive_async(self._entering(input, config))
        chunks = super().astream(entry.reading.messages, config, **kwargs)  # type: ignore[arg-type]
        with entry.standing():
            first = await anext(chunks)
        begun(self.seat, first)
        yield first
        async for chunk in chunks:
            yield chunk

    def stream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Like the inner model's."""
        if kwargs.get("version") == "v3":  # the other versions call `stream`
            entry, config = drive(self._entering(cast("LanguageModelInput", input), config))
            return super().stream_events(entry.reading.messages, config, **kwargs)  # type: ignore[call-overload]
        return super().stream_events(input, config, **kwargs)  # type: ignore[call-overload]

    def astream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Like the inner model's; the first event repeats the input, as it was decided."""
        if kwargs.get("version") == "v3":  # to be awaited, so the gates run in the loop's way
            entry, config = drive(self._entering(cast("LanguageModelInput", input), config))
            return super().astream_events(entry.reading.messages, config, **kwargs)  # type: ignore[call-overload]
        return self._events(cast("LanguageModelInput", input), config, kwargs)

    async def _events(
        self, input: LanguageModelInput, config: RunnableConfig | None, kwargs: dict[str, object]
    ) -> AsyncGenerator[object, None]:
        entry, config = await drive_async(self._entering(input, config))
        async with aclosing(super().astream_events(entry.reading.messages, config, **kwargs)) as events:  # type: ignore[call-overload]
            async for event in events:
                yield event

    def generate(self, messages: list[list[BaseMessage]], *args: object, **kwargs: object) -> LLMResult:
        """Like the inner model's: what `invoke` ends in, and what older code calls directly."""
        return drive(self._generating(messages, args, kwargs))

    async def agenerate(self, messages: list[list[BaseMessage]], *args: object, **kwargs: object) -> LLMResult:
        """Like the inner model's, with gates awaited instead of run in the loop's way."""
        return await drive_async(self._generating(messages, args, kwargs))

    async def _generating(
        self, messages: list[list[BaseMessage]], args: Sequence[object], kwargs: Mapping[str, object]
    ) -> LLMResult:
        """The answers to messages that are read first, unless they were for the call that this is part of."""

        def answers(read: list[list[BaseMessage]]) -> Either[LLMResult]:
            return Either(
                lambda: super(GuardedChatModel, self).generate(read, *args, **kwargs),  # type: ignore[arg-type]
                lambda: super(GuardedChatModel, self).agenerate(read, *args, **kwargs),  # type: ignore[arg-type]
            )

        if self._looks_after(messages):
            return self._given(await answers(messages))
        entry, cleaned = await self._entering_all(messages)
        with entry.standing():
            return self._given(await answers(cleaned))

    def _given(self, result: LLMResult) -> LLMResult:
        """The answers as LangChain made them up, known from now on as this guard's."""
        for generation in (each for several in result.generations for each in several):
            if isinstance(generation, ChatGeneration):
                decided(self.seat, generation.message)
        return result

    def _entered(self) -> Entered | None:
        """The call that this guard is looking after already."""
        entered = ENTERED.get()
        return entered if entered is not None and entered.enforcer.seat is self.seat else None

    def _looks_after(self, conversations: Sequence[Sequence[BaseMessage]]) -> bool:
        """Whether these were read for the call that this guard is looking after; another one may be made inside it."""
        entered = self._entered()
        if entered is None:
            return False
        read = {id(message) for message in entered.reading.messages}
        return all(id(message) in read for each in conversations for message in each)

    async def _entering(
        self, input: LanguageModelInput, config: RunnableConfig | None
    ) -> tuple[Entered, RunnableConfig]:
        """Decide what goes into a run before it begins. One that is in no other is named, so that both go together."""
        config = ensure_config(config)
        messages = self._convert_input(input).to_messages()
        entered = self._entered()
        if entered is not None and (known := entered.reading.again(messages)) is not None:
            return Entered(entered.enforcer, entered.here, known), config
        parent = getattr(config.get("callbacks"), "parent_run_id", None) or config.get("run_id")
        if parent is None:
            parent = config["run_id"] = uuid4()
        here = await self.runs.here(str(parent), config=config)
        exchange = self.exchange(here)
        return Entered(exchange.enforcer, here, await exchange.read(messages)), config

    async def _entering_all(
        self, conversations: Sequence[Sequence[BaseMessage]]
    ) -> tuple[Entered, list[list[BaseMessage]]]:
        """Decide several conversations of one call; they are one reading, in which each message is found again."""
        entered = self._entered()
        here = entered.here if entered is not None else await self.runs.here(uuid4().hex)
        cleaned, messages, decisions = list[list[BaseMessage]](), list[BaseMessage](), dict[int, Decision]()
        exchange = self.exchange(here)
        for conversation in conversations:
            reading = await exchange.read(conversation)
            decisions.update({len(messages) + index: decision for index, decision in reading.decisions.items()})
            messages += reading.messages
            cleaned.append(reading.messages)
        return Entered(exchange.enforcer, here, Reading(messages, decisions)), cleaned

    def exchange(self, here: Here) -> Exchange:
        """What happens around a call of this model that is made here; it ends under the policy it began under."""
        entered = self._entered()
        enforcer = entered.enforcer if entered is not None else self.seat.enforcer
        return Exchange(enforcer, self.seam, here, self.answers, self.cheaper)

    async def _calling(
        self,
        messages: Sequence[BaseMessage],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        target: Target,
    ) -> ChatResult:
        """The call, where the run stands that LangChain has begun for it."""
        exchange = await self._standing(run_manager)
        return await exchange.run(messages, target, Target.whole)

    async def _standing(self, run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None) -> Exchange:
        """What happens around the call that LangChain has begun a run for."""
        parent = str(run_manager.parent_run_id or run_manager.run_id) if run_manager else ""
        entered = self._entered()
        here = entered.here if entered is not None else await self.runs.here(parent)
        return self.exchange(here)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        return drive(self._calling(messages, run_manager, Target(self.inner, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        return await drive_async(self._calling(messages, run_manager, Target(self.inner, stop, kwargs)))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> Iterator[ChatGenerationChunk]:
        return drive_each(self._flowing(messages, run_manager, Target(self.inner, stop, kwargs)))

    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> AsyncIterator[ChatGenerationChunk]:
        return drive_each_async(self._flowing(messages, run_manager, Target(self.inner, stop, kwargs)))

    async def _flowing(
        self,
        messages: Sequence[BaseMessage],
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        target: Target,
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        """The answer as it comes, if the model streams and the gates let text flow; else whole."""
        exchange = await self._standing(run_manager)
        if not await target.streams or exchange.enforcer.engine.flow(Stage.OUTPUT) is None:
            chunk = as_chunk(await exchange.run(messages, target, Target.gathered))
            decided(self.seat, chunk.message)
            yield chunk
            return
        async with aclosing(streamed(exchange, messages, target)) as chunks:
            async for chunk in chunks:
                yield chunk


def guard_model(
    model: BaseChatModel | Runnable[LanguageModelInput, AIMessage],
    seat: Seat,
    runs: Runs,
    seam: Seam = MODEL,
    answers: frozenset[str] = frozenset(),
    cheaper: BaseChatModel | None = None,
) -> Runnable[LanguageModelInput, AIMessage]:
    """The model, guarded; one that this guard already guards is returned as it is, perhaps with a `cheaper` one.

    Raises:
        TypeError: not a chat model. A model with fallbacks or retries is guarded from the inside:
            ``guard.model(a).with_fallbacks([guard.model(b)])``.
    """
    if isinstance(model, GuardedChatModel) and model.seat is seat:
        cheaper = cheaper or model.cheaper
        if (seam is MODEL or model.seam is seam) and cheaper is model.cheaper:
            return model
        seam = model.seam if seam is MODEL else seam
        return model.model_copy(update={"seam": seam, "answers": model.answers | answers, "cheaper": cheaper})
    if isinstance(model, RunnableBinding):
        inner = guard_model(model.bound, seat, runs, seam, answers, cheaper)
        return RunnableBinding(
            bound=inner, kwargs=model.kwargs, config=model.config, config_factories=model.config_factories
        )
    if not isinstance(model, BaseChatModel):
        raise TypeError(
            f"guard.model takes a chat model, not {type(model).__name__}; guard the models inside it: "
            "guard.model(a).with_fallbacks([guard.model(b)])"
        )
    return GuardedChatModel(
        seat=seat,
        runs=runs,
        seam=seam,
        inner=model,
        answers=answers,
        cheaper=cheaper,
        disable_streaming=model.disable_streaming,
        rate_limiter=model.rate_limiter,
        profile=model.profile,
        metadata={**(model.metadata or {}), "guardrails": id(seat)},
        tags=model.tags,
    )
