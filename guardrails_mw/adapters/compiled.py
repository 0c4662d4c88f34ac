"""A compiled graph whose input is decided before anything of it is written down.

A graph keeps its input in a checkpoint before its first node runs, and tells tracers of it before that. No node,
middleware or model can undo this; only who stands before the graph can.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, merge_configs
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import RunControl, Runtime
from langgraph.types import Command, StateUpdate

from guardrails_mw.adapters.entrance import Entrance
from guardrails_mw.adapters.host import Here, Runs, actor_from, on_behalf, raise_block
from guardrails_mw.adapters.messages import refusal_message
from guardrails_mw.adapters.model import GuardedChatModel
from guardrails_mw.adapters.source import Source
from guardrails_mw.event import Actor
from guardrails_mw.generation import Seat
from guardrails_mw.wait import drive, drive_async, drive_each, drive_each_async

__all__ = ["GuardedGraph", "guard_graph"]

_REFUSING = "guardrails"
"""The node that puts a refusal into the state."""


@dataclass(frozen=True, slots=True)
class Doorman:
    """What decides at the door of a graph: for whom, and what belongs to which run."""

    seat: Seat
    runs: Runs
    actor: Actor | None


class GuardedGraph(CompiledStateGraph):  # type: ignore[type-arg]
    """A compiled graph, guarded at its door. Made by `Guard.graph`; used like the graph it was made of.

    Input that is blocked does not reach the graph's nodes: the state gets the placeholder and the refusal.
    """

    def __init__(self, *, doorman: Doorman, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.doorman = doorman

    def stream(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> Iterator[object]:  # type: ignore[override]
        """Like the graph's; `invoke` and `batch` come by here too."""
        return drive_each(self._flowing(input, config, kwargs))

    def astream(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> AsyncIterator[object]:  # type: ignore[override]
        """Like the graph's; `ainvoke`, `abatch` and `astream_events` come by here too."""
        return drive_each_async(self._flowing(input, config, kwargs))

    async def _flowing(
        self, input: object, config: RunnableConfig | None, kwargs: dict[str, object]
    ) -> AsyncGenerator[object, None]:
        config = on_behalf(config, self.doorman.actor)
        graph, value, here = await self._entering(input, config, kwargs)
        sync, there = (super().stream, super().astream) if graph is self else (graph.stream, graph.astream)
        source = Source[object](
            lambda: sync(value, config, **kwargs),  # type: ignore[call-overload]
            lambda: there(value, config, **kwargs),  # type: ignore[call-overload]
        )
        try:
            while True:
                with here.enclosing():
                    piece = await source.next()
                if source.ended:
                    break
                yield piece
        finally:
            await source.close()
        self.doorman.runs.over(kwargs["control"])

    def astream_events(self, input: object, config: RunnableConfig | None = None, **kwargs: object) -> object:  # type: ignore[override]
        """Like the graph's; the first event repeats the input, as it was decided."""
        if kwargs.get("version") == "v3":  # tells no input, and calls `astream`
            return super().astream_events(input, config, **kwargs)  # type: ignore[call-overload]
        return self._events(input, config, kwargs)

    async def _events(
        self, input: object, config: RunnableConfig | None, kwargs: dict[str, object]
    ) -> AsyncIterator[object]:
        config = on_behalf(config, self.doorman.actor)
        graph, value, _ = await drive_async(self._entering(input, config, kwargs))
        call = graph.astream_events if graph is not self else super().astream_events
        async with aclosing(call(value, config, **kwargs)) as events:  # type: ignore[call-overload]
            async for event in events:
                yield event

    def bulk_update_state(self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]) -> RunnableConfig:
        """Like the graph's, `update_state` included; what is blocked is not written, and raises."""
        return super().bulk_update_state(config, drive(self._updates(config, supersteps)))

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Like the graph's, `aupdate_state` included; what is blocked is not written, and raises."""
        return await super().abulk_update_state(config, await drive_async(self._updates(config, supersteps)))

    async def _entering(
        self, value: object, config: RunnableConfig | None, kwargs: dict[str, object]
    ) -> tuple[CompiledStateGraph, object, Here]:  # type: ignore[type-arg]
        """The graph that takes the input, the input as it was decided, and where.

        Runs are told apart by their control object, so the graph is given the one that the decision was made under.
        """
        config = ensure_config(merge_configs(self.config, config))
        runtime = (config.get("configurable") or {}).get("__pregel_runtime")
        control = kwargs.get("control") or getattr(runtime, "control", None) or RunControl()
        kwargs["control"] = control
        resuming = value is None or isinstance(value, Command)
        entrance = await self._entrance(config, control, resuming, kwargs.get("context"))
        arrived = await entrance.arriving(value)
        if arrived.refused is None:
            return self, arrived.value, entrance.here
        refusal = refusal_message(entrance.enforcer, arrived.refused)
        if not entrance.message_keys:
            raise_block(entrance.enforcer, arrived.refused)
        return self._refusing(entrance.message_keys[0], refusal), arrived.value, entrance.here

    async def _entrance(
        self, config: RunnableConfig, control: object, resuming: bool, context: object = None
    ) -> Entrance:
        doorman, actor = self.doorman, self.doorman.actor
        if actor is None and context is not None:  # the graph has no runtime yet that would tell
            actor = actor_from(config.get("configurable") or {}, Runtime(context=context))  # type: ignore[type-var]
        here = await doorman.runs.here(
            actor=actor, config=config, resuming=resuming, control=control, saver=self.checkpointer
        )
        return Entrance(doorman.seat.enforcer, here, _message_keys(self), self.input_schema_is_root)

    @property
    def input_schema_is_root(self) -> bool:
        """Whether the state is one value without keys."""
        return "__root__" in self.builder.channels

    def _refusing(self, key: str, refusal: BaseMessage) -> CompiledStateGraph:  # type: ignore[type-arg]
        """A graph of the same state and checkpoints, in which nothing happens but the refusal."""
        own = self.builder
        builder = StateGraph(
            own.state_schema, own.context_schema, input_schema=own.input_schema, output_schema=own.output_schema
        )
        builder.add_node(_REFUSING, lambda state: [refusal] if key == "__root__" else {key: [refusal]})  # noqa: ARG005
        builder.add_edge(START, _REFUSING)
        builder.add_edge(_REFUSING, END)
        graph = builder.compile(checkpointer=self.checkpointer, store=self.store, name=self.name)
        graph.channels = {**self.channels, **graph.channels}  # what other nodes keep for themselves stays kept
        graph.config = self.config
        return graph

    async def _updates(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> list[list[StateUpdate]]:
        entrance = await self._entrance(ensure_config(merge_configs(self.config, config)), RunControl(), True)
        decided = []
        for superstep in supersteps:
            updates = []
            for update in superstep:
                arrived = await entrance.arriving(update[0])
                if arrived.refused is not None:
                    raise_block(entrance.enforcer, arrived.refused)
                updates.append(StateUpdate(cast("dict[str, object] | None", arrived.value), *update[1:]))
            decided.append(updates)
        return decided


def guard_graph(graph: object, seat: Seat, runs: Runs, actor: Actor | None = None) -> GuardedGraph:
    """The graph, guarded at its door; one that this guard already guards is returned as it is.

    Raises:
        TypeError: not a compiled `StateGraph`. Anything else that runs is wrapped by ``guard.runnable``.
    """
    if not isinstance(graph, CompiledStateGraph):
        raise TypeError(
            f"guard.graph takes a compiled StateGraph or what create_agent returns, not {type(graph).__name__}; "
            "compile it first, or use guard.runnable"
        )
    if isinstance(graph, GuardedGraph) and graph.doorman.seat is seat:
        return graph
    _warn_of_models(graph)
    own = {name: value for name, value in vars(graph).items() if name not in ("__orig_class__", "doorman")}
    guarded = GuardedGraph(doorman=Doorman(seat, runs, actor), **own)
    vars(guarded).update(own)  # what a constructor does not take
    return guarded


def _message_keys(graph: CompiledStateGraph) -> tuple[str, ...]:  # type: ignore[type-arg]
    """The state's keys whose reducer is `add_messages`, in whichever form LangGraph keeps it."""
    found = []
    for key, channel in graph.builder.channels.items():
        operator = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
        operator = getattr(operator, "func", operator)  # add_messages(format=...) is a partial of it
        if "messages" in str(getattr(operator, "__name__", "")):
            found.append(key)
    return tuple(found)


def _warn_of_models(graph: CompiledStateGraph) -> None:  # type: ignore[type-arg]
    """Warn of models that a middleware calls on its own account: no seam stands between them and the state."""
    for name, spec in graph.builder.nodes.items():
        owner = getattr(getattr(spec.runnable, "func", None), "__self__", None)
        held: Mapping[str, object] = getattr(owner, "__dict__", {})
        for value in held.values():
            if isinstance(value, BaseChatModel) and not isinstance(value, GuardedChatModel):
                warnings.warn(
                    f"{name} calls a model of its own, which is not guarded: give it guard.model(model)", stacklevel=4
                )
                break
