"""A wrapped chain: what goes in and what comes out is decided here, what happens inside by callbacks.

Texts and messages flow as far as the gates let them. What comes in another form, and what may hold tokens that
become values again, is held until it is complete.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.tracers._streaming import _StreamingCallbackHandler

from guardrails_mw.adapters.answered import ANSWERED, Answered
from guardrails_mw.adapters.callback import GuardrailsHandler
from guardrails_mw.adapters.chunks import last, settled
from guardrails_mw.adapters.exchange import Exchange
from guardrails_mw.adapters.forms import in_form_of, plain
from guardrails_mw.adapters.host import Here, Runs, digest, on_behalf, raise_block
from guardrails_mw.adapters.messages import no_text, refusal_message
from guardrails_mw.adapters.source import Source
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import ANONYMOUS, Actor, Content, Event, Origin, Stage
from guardrails_mw.generation import Held, Seat
from guardrails_mw.seam import RUNNABLE, Power, Seam
from guardrails_mw.stream import Hold, Shown
from guardrails_mw.verdict import Check, Decision, Verdict
from guardrails_mw.wait import Either, drive, drive_async, drive_each, drive_each_async

__all__ = ["GuardedRunnable"]

I = TypeVar("I")  # noqa: E741 - in and out
O = TypeVar("O")  # noqa: E741 - in and out
_INSIDE = Seam(
    "runnable", {stage: power for stage, power in RUNNABLE.powers.items() if stage not in (Stage.INPUT, Stage.OUTPUT)}
)
_RESULT = replace(RUNNABLE, powers={**RUNNABLE.powers, Stage.TOOL_CALL: Power.BLOCK | Power.EDIT})
"""What can be done about an answer that the chain gives back: its calls have not run."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[I]):
    """A call of the inner chain, with what may go in. One policy decides all of it."""

    enforcer: Enforcer
    here: Here
    value: I
    config: RunnableConfig
    kwargs: Mapping[str, object]
    held: Held
    answered: Answered
    """What models of this guard have decided inside."""


class GuardedRunnable(Runnable[I, O], Generic[I, O]):
    """Any LCEL chain, guarded. Made by `Guard.runnable`.

    A refusal has the form of the chain's output where that is a text or a message; a chain with another
    output type raises, because a refusal would not be what its caller expects.
    """

    def __init__(self, inner: Runnable[I, O], seat: Seat, runs: Runs, actor: Actor | None = None) -> None:
        self._inner, self._seat, self._runs, self._actor = inner, seat, runs, actor
        self.name = f"Guarded{inner.get_name()}"

    @property
    def InputType(self) -> type[I]:  # noqa: N802 - LangChain's name
        """What the inner chain takes."""
        return self._inner.InputType

    @property
    def OutputType(self) -> type[O]:  # noqa: N802 - LangChain's name
        """What the inner chain gives."""
        return self._inner.OutputType

    def invoke(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> O:
        """Run the chain under guard."""
        return drive(self._flow(input, config, kwargs))

    async def ainvoke(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> O:
        """Run the chain under guard."""
        return await drive_async(self._flow(input, config, kwargs))

    def stream(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> Iterator[O]:
        """Run the chain under guard; texts and messages flow as far as the gates let them."""
        return drive_each(self._flowing(input, config, kwargs))

    def astream(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> AsyncIterator[O]:
        """Run the chain under guard; texts and messages flow as far as the gates let them."""
        return drive_each_async(self._flowing(input, config, kwargs))

    def astream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Events of the guarded whole, as it flows; with gates at `output`, what its parts stream is nobody's yet.

        The first event, and tracers, repeat the input as it was decided.
        """
        return self._events(cast("I", input), config, kwargs)

    async def _events(
        self, value: I, config: RunnableConfig | None, kwargs: Mapping[str, object]
    ) -> AsyncGenerator[object, None]:
        call, refused = await drive_async(self._begun(value, config, {}))

        async def flowing(_: I, config: RunnableConfig) -> AsyncGenerator[O, None]:
            inside = replace(call, config=self._inside(config, call.enforcer, call.here))
            flow = cast("AsyncGenerator[O, None]", drive_each_async(self._flown(inside, refused)))
            async with aclosing(flow):
                async for piece in flow:
                    yield piece

        whole: Runnable[I, O] = RunnableLambda(flowing, name=self.name)  # type: ignore[arg-type]  # it takes generators
        told = call.value if refused is None else call.enforcer.passed(refused).value
        async with aclosing(whole.astream_events(told, config, **kwargs)) as events:  # type: ignore[call-overload]
            async for event in events:
                yield event

    @contextmanager
    def _running(self, call: _Call[I]) -> Iterator[None]:
        """While the inner chain works: in the call's run, under the call's policy."""
        answered = ANSWERED.set(call.answered)
        try:
            with call.held.standing(), call.here.enclosing():
                yield
        finally:
            ANSWERED.reset(answered)

    def _unwatched(self, config: RunnableConfig | None, enforcer: Enforcer) -> RunnableConfig:
        """The configuration without the handlers that show tokens as they come, where they have yet to be decided."""
        config = ensure_config(config)
        if not enforcer.engine.serves(Stage.OUTPUT):
            return config
        callbacks = config.get("callbacks")
        if isinstance(callbacks, BaseCallbackManager):
            callbacks = callbacks.copy()
            for handler in {*callbacks.handlers, *callbacks.inheritable_handlers}:
                if isinstance(handler, _StreamingCallbackHandler):
                    callbacks.remove_handler(handler)
        elif callbacks:
            callbacks = [handler for handler in callbacks if not isinstance(handler, _StreamingCallbackHandler)]
        return {**config, "callbacks": callbacks}

    async def _flow(self, value: I, config: RunnableConfig | None, kwargs: Mapping[str, object]) -> O:
        call, refused = await self._begun(value, config, kwargs)
        if refused is not None:
            return self._refused(call.enforcer, refused)
        inner = self._inner
        try:
            with self._running(call):
                result = await Either(
                    lambda: inner.invoke(call.value, call.config, **call.kwargs),
                    lambda: inner.ainvoke(call.value, call.config, **call.kwargs),
                )
        finally:
            call.held.over()
        self._runs.going_on(call.here.where.run)
        return await self._given(call, *await self._decided(call, result))

    async def _flowing(
        self, value: I, config: RunnableConfig | None, kwargs: Mapping[str, object]
    ) -> AsyncGenerator[O, None]:
        async with aclosing(self._flown(*await self._begun(value, config, kwargs))) as pieces:
            async for piece in pieces:
                yield piece

    async def _flown(self, call: _Call[I], refused: Decision | None) -> AsyncGenerator[O, None]:
        """The pieces as they come, as far as they may be shown; then the rest, or a refusal."""
        if refused is not None:
            yield self._refused(call.enforcer, refused)
            return
        engine = call.enforcer.engine
        event = self._event(Stage.OUTPUT, Origin.MODEL, "", call.here)
        restored = not call.here.where.task and engine.restores(event)
        hold = None if restored else Hold(engine, event, RUNNABLE)
        inner, pieces, shown, flows = self._inner, list[O](), list[str](), True
        source = Source(
            lambda: inner.stream(call.value, call.config, **call.kwargs),
            lambda: inner.astream(call.value, call.config, **call.kwargs),
        )
        try:
            while hold is None or not hold.ending:
                with self._running(call):
                    piece = await source.next()
                if piece is None:
                    break
                pieces.append(piece)
                flows = flows and _alike(pieces)  # from the first odd one on, the rest waits for its end
                if hold is not None and flows and (text := await hold.feeding(_text(piece))):
                    shown.append(text)
                    yield _saying(piece, text)
            self._runs.going_on(call.here.where.run)
            result, block = await self._decided(call, _joined(pieces), hold)
        except BaseException:
            await _broken_off(call.enforcer, event, "".join(shown))
            raise
        finally:
            call.held.over()
            await source.close()
        yield await self._given(call, result, block, sum(map(len, shown)))

    async def _begun(
        self, value: I, config: RunnableConfig | None, kwargs: Mapping[str, object]
    ) -> tuple[_Call[I], Decision | None]:
        """Decide what goes in; the decision is one that blocked."""
        enforcer, here = self._seat.enforcer, await self._runs.here(actor=self._actor, config=config)
        decision = await enforcer.deciding(self._event(Stage.INPUT, Origin.USER, value, here), RUNNABLE)
        if decision.edited and not decision.blocked:
            value = in_form_of(value, decision.content.value)
        inner = self._inside(config, enforcer, here)
        call = _Call(enforcer, here, value, inner, kwargs, Held(enforcer), Answered(self._seat))
        return call, decision if decision.blocked else None

    def _inside(self, config: RunnableConfig | None, enforcer: Enforcer, here: Here) -> RunnableConfig:
        """The configuration of the inner chain, with the callbacks that decide what happens inside."""
        asking = here.actor if here.actor != ANONYMOUS else None  # a model alone does not show its configuration
        handler = GuardrailsHandler(self._seat, self._runs, asking, _INSIDE)
        outer = on_behalf(self._unwatched(config, enforcer), self._actor)
        return merge_configs(outer, {"callbacks": [handler]})

    async def _decided(self, call: _Call[I], result: O, hold: Hold | None = None) -> tuple[O, Decision | None]:
        """What may come out, and the decision that blocked, if one did. A model's answer is decided as everywhere."""
        shown = None
        if hold is not None:
            shown = Shown(hold.shown, lambda content: hold.fits(_flowed(content.value)), hold.ending)
        if isinstance(result, AIMessage):
            return cast("tuple[O, Decision | None]", await self._answer(call, result, shown))
        event = self._event(Stage.OUTPUT, Origin.MODEL, result, call.here)
        decision = await call.enforcer.deciding(event, RUNNABLE, shown=shown)
        if decision.blocked:
            return result, decision
        return in_form_of(result, decision.content.value) if decision.edited else result, None

    async def _answer(
        self, call: _Call[I], answer: AIMessage, shown: Shown | None
    ) -> tuple[BaseMessage, Decision | None]:
        whole = settled(answer)
        exchange = Exchange(call.enforcer, _RESULT, call.here, decided=call.answered.calls)
        decided, block = await exchange.answer(whole, exchange.named(), shown)
        if decided is whole:
            return answer, block
        return last(cast("AIMessage", decided), None).message if whole is not answer else decided, block

    async def _given(self, call: _Call[I], result: O, block: Decision | None, cut: int = 0) -> O:
        """What the caller gets of a decided result, or a refusal; without the characters that were shown."""
        if block is not None:
            return self._refused(call.enforcer, block, result, after=cut > 0)
        engine = call.enforcer.engine
        if not call.here.where.task:  # inside a graph what comes out would go into its checkpoints
            said = Content(plain(result, beside=False))
            event = call.here.event(Stage.OUTPUT, Origin.MODEL, said, "output", call.here.where.run, digest(said.value))
            content = await engine.restoring(event)
            if content is not said:
                result = in_form_of(result, content.value)
        return _rest(result, cut) if cut else result

    def _event(self, stage: Stage, origin: Origin, value: object, here: Here) -> Event:
        content = _content(value)
        return here.event(stage, origin, content, stage.value, here.where.run, digest(content.value))

    def _refused(self, enforcer: Enforcer, decision: Decision, result: object = None, *, after: bool = False) -> O:
        """A refusal in the form of the chain's output, perhaps `after` pieces that were shown."""
        wants = result if result is not None else self._output_form()
        if enforcer.manners.raises(decision.stage):
            raise_block(enforcer, decision)
        if isinstance(wants, BaseMessage) or wants is BaseMessage:
            refusal = refusal_message(enforcer, decision)
            if after:
                refusal = AIMessageChunk(content=refusal.content, response_metadata=refusal.response_metadata)
            return refusal  # type: ignore[return-value]
        if isinstance(wants, str) or wants is str:
            return enforcer.refusal(decision)  # type: ignore[return-value]
        return raise_block(enforcer, decision)

    def _output_form(self) -> object:
        try:
            declared = self._inner.OutputType
        except TypeError:
            return None
        if declared is str:
            return str
        return BaseMessage if isinstance(declared, type) and issubclass(declared, BaseMessage) else _last(self._inner)


async def _broken_off(enforcer: Enforcer, event: Event, shown: str) -> None:
    """Keep what was shown of a result that stays undecided: its stream broke, or nobody listens any more."""
    if shown and enforcer.engine.serves(Stage.OUTPUT):
        check, event = Check("stream", Verdict.flag("stream.broken_off")), replace(event, content=Content(shown))
        await enforcer.engine.stating(event, check, RUNNABLE, len(shown))


def _last(inner: object) -> object:
    """The form of a sequence that ends in a chat model, whose output type is a union of messages."""
    from langchain_core.language_models import BaseChatModel

    last = getattr(inner, "last", inner)
    last = getattr(last, "bound", last)
    return BaseMessage if isinstance(last, BaseChatModel) else None


def _content(value: object) -> Content:
    """Everything readable in a chain's input or output."""
    return Content(plain(value))


def _flowed(value: object) -> str:
    """The text of a decided result that can have flowed; more may stand beside it."""
    first = value[0] if isinstance(value, list) and value else value
    return str(first.get("text", "")) if isinstance(first, Mapping) else str(first)


def _rest(result: O, cut: int) -> O:
    """The result without the characters of its text that were shown."""
    if isinstance(result, AIMessage):
        return result.model_copy(update={"content": str(result.content)[cut:]})
    return str(result)[cut:]  # type: ignore[return-value]


def _text(piece: object) -> str:
    return str(piece.content if isinstance(piece, AIMessageChunk) else piece)


def _alike(pieces: Sequence[object]) -> bool:
    """Whether the last piece is a text, or a message with one, as the first is."""
    first, last = pieces[0], pieces[-1]
    if type(first) is not type(last):
        return False
    return isinstance(last.content if isinstance(last, AIMessageChunk) else last, str)


def _saying(piece: O, text: str) -> O:
    """A piece of the same form that says this and nothing else."""
    if isinstance(piece, AIMessageChunk):
        return AIMessageChunk(content=text, id=no_text(piece.id))  # type: ignore[return-value]
    return text  # type: ignore[return-value]


def _joined(pieces: list[O]) -> O:
    """The pieces of a stream added up."""
    if not pieces:
        return None  # type: ignore[return-value]
    total = pieces[0]
    for piece in pieces[1:]:
        try:
            total = total + piece  # type: ignore[operator]
        except TypeError:  # as LangChain does: each of them is what there is so far
            total = piece
    return total
