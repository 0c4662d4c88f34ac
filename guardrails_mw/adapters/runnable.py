"""A wrapped chain: what goes in and what comes out is decided here, what happens inside by callbacks.

In this version a stream is held until it is complete, decided, and then released in one piece.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Generic, TypeVar

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.runnables.config import ensure_config, merge_configs
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from pydantic import BaseModel

from guardrails_mw.adapters.callback import GuardrailsHandler
from guardrails_mw.adapters.host import RUN, Here, Runs, digest, raise_block
from guardrails_mw.adapters.messages import refusal_message
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Actor, Blocks, Content, Event, Origin, Stage
from guardrails_mw.generation import Seat
from guardrails_mw.seam import RUNNABLE, Seam
from guardrails_mw.verdict import Decision
from guardrails_mw.wait import Either, drive, drive_async

__all__ = ["GuardedRunnable", "in_form_of", "plain"]

I = TypeVar("I")  # noqa: E741 - in and out
O = TypeVar("O")  # noqa: E741 - in and out
_INSIDE = Seam(
    "runnable", {stage: power for stage, power in RUNNABLE.powers.items() if stage not in (Stage.INPUT, Stage.OUTPUT)}
)


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
        return drive(self._flow(input, config, kwargs, streamed=False))

    async def ainvoke(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> O:
        """Run the chain under guard."""
        return await drive_async(self._flow(input, config, kwargs, streamed=False))

    def stream(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> Iterator[O]:
        """Run the chain under guard; its pieces come together once they were decided."""
        yield drive(self._flow(input, config, kwargs, streamed=True))

    async def astream(self, input: I, config: RunnableConfig | None = None, **kwargs: object) -> AsyncIterator[O]:
        """Run the chain under guard; its pieces come together once they were decided."""
        yield await drive_async(self._flow(input, config, kwargs, streamed=True))

    def astream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Events of the guarded whole; with gates at `output`, what its parts stream is nobody's yet."""
        whole = RunnableLambda(self.invoke, afunc=self.ainvoke, name=self.name)
        return whole.astream_events(input, config, **kwargs)  # type: ignore[call-overload]

    def _unwatched(self, config: RunnableConfig | None) -> RunnableConfig:
        """The configuration without the handlers that show tokens as they come, where they have yet to be decided."""
        config = ensure_config(config)
        if not self._seat.enforcer.engine.serves(Stage.OUTPUT):
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

    async def _flow(self, value: I, config: RunnableConfig | None, kwargs: Mapping[str, object], streamed: bool) -> O:
        with self._seat.holding() as enforcer:
            return await self._guarded(enforcer, value, config, kwargs, streamed)

    async def _guarded(
        self,
        enforcer: Enforcer,
        value: I,
        config: RunnableConfig | None,
        kwargs: Mapping[str, object],
        streamed: bool,
    ) -> O:
        handler = GuardrailsHandler(self._seat, self._runs, self._actor, _INSIDE)
        here = await self._runs.here(actor=self._actor, config=config)
        decision = await enforcer.deciding(self._event(Stage.INPUT, Origin.USER, value, here), RUNNABLE)
        if decision.blocked:
            return self._refused(enforcer, decision)
        if decision.edited:
            value = in_form_of(value, decision.content.value)
        inner_config = merge_configs(self._unwatched(config), {"callbacks": [handler]})
        token = RUN.set(here.where.run)
        try:
            result = await self._called(value, inner_config, dict(kwargs), streamed)
        finally:
            RUN.reset(token)
        decision = await enforcer.deciding(self._event(Stage.OUTPUT, Origin.MODEL, result, here), RUNNABLE)
        if decision.blocked:
            return self._refused(enforcer, decision, result)
        content = decision.content
        if not here.where.task:  # inside a graph what comes out would go into its checkpoints
            content = await enforcer.engine.restoring(replace(decision.event, content=content))
        return in_form_of(result, content.value) if content is not decision.event.content else result

    def _called(self, value: I, config: RunnableConfig, kwargs: dict[str, object], streamed: bool) -> Either[O]:
        inner = self._inner
        if not streamed:
            return Either(lambda: inner.invoke(value, config, **kwargs), lambda: inner.ainvoke(value, config, **kwargs))

        def here() -> O:
            return _joined(list(inner.stream(value, config, **kwargs)))

        async def there() -> O:
            return _joined([piece async for piece in inner.astream(value, config, **kwargs)])

        return Either(here, there)

    def _event(self, stage: Stage, origin: Origin, value: object, here: Here) -> Event:
        content = _content(value)
        return here.event(stage, origin, content, stage.value, here.where.run, digest(content.value))

    def _refused(self, enforcer: Enforcer, decision: Decision, result: object = None) -> O:
        """A refusal in the form of the chain's output."""
        wants = result if result is not None else self._output_form()
        if enforcer.manners.raises(decision.stage):
            raise_block(enforcer, decision)
        if isinstance(wants, BaseMessage) or wants is BaseMessage:
            return refusal_message(enforcer, decision)  # type: ignore[return-value]
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


def _last(inner: object) -> object:
    """The form of a sequence that ends in a chat model, whose output type is a union of messages."""
    from langchain_core.language_models import BaseChatModel

    last = getattr(inner, "last", inner)
    last = getattr(last, "bound", last)
    return BaseMessage if isinstance(last, BaseChatModel) else None


def _content(value: object) -> Content:
    """Everything readable in a chain's input or output."""
    return Content(plain(value))


def plain(value: object) -> object:
    """The contents of messages, prompts and models in a value, as mappings, lists and texts."""
    if isinstance(value, BaseMessage):
        return value.content if isinstance(value.content, str) else Blocks(value.content)
    if isinstance(value, PromptValue):
        return [plain(message) for message in value.to_messages()]
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def in_form_of(original: O, new: object) -> O:
    """The edited values in the form of the original."""
    result: object = new
    if isinstance(original, BaseMessage):
        result = original.model_copy(update={"content": new})
    elif isinstance(original, PromptValue):
        from langchain_core.prompt_values import ChatPromptValue

        assert isinstance(new, list)
        result = ChatPromptValue(messages=[in_form_of(m, n) for m, n in zip(original.to_messages(), new, strict=True)])
    elif isinstance(original, BaseModel):
        result = type(original).model_validate(new)
    elif isinstance(original, Mapping) and isinstance(new, Mapping):
        pairs = zip(new.items(), original.values(), strict=True)
        result = {key: in_form_of(old, value) for (key, value), old in pairs}
    elif is_dataclass(original) and not isinstance(original, type) and isinstance(new, Mapping):
        changes = {each.name: in_form_of(getattr(original, each.name), new[each.name]) for each in fields(original)}
        result = replace(original, **{each.name: changes[each.name] for each in fields(original) if each.init})
    elif isinstance(original, set | frozenset) and isinstance(new, list):
        result = type(original)(in_form_of(o, n) for o, n in zip(original, new, strict=True))
    elif isinstance(original, list | tuple) and isinstance(new, list):
        result = [in_form_of(o, n) for o, n in zip(original, new, strict=True)]
    return result  # type: ignore[return-value]


def _joined(pieces: list[O]) -> O:
    """The pieces of a stream added up."""
    if not pieces:
        return None  # type: ignore[return-value]
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece  # type: ignore[operator]
    return total
