"""Nodes for an existing graph: gates before and after the agent, guarded tools, and a stop for a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage
from langchain_core.messages import ToolCall as HostToolCall
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph import END
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails_mw.adapters.host import Here, Runs, pause, pause_again
from guardrails_mw.adapters.messages import (
    call_event,
    last_answer,
    message_events,
    name_of,
    output_event,
    refusal_message,
    silent,
    tool_call,
    with_answer,
    with_content,
)
from guardrails_mw.adapters.tools import ToolResult, guarded_call, permitted, rejection
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, Origin, Stage, ToolCall
from guardrails_mw.generation import Seat
from guardrails_mw.seam import NODES
from guardrails_mw.verdict import Check, Decision, Verdict
from guardrails_mw.wait import Either, Flow, drive, drive_async

__all__ = ["Nodes"]

State = Mapping[str, object]
Update = dict[str, object]
Node = RunnableLambda[State, object]


@dataclass(frozen=True, slots=True)
class Nodes:
    """Makes graph nodes for one guard. `key` arguments name the state key that holds the messages."""

    seat: Seat
    runs: Runs

    def input_node(self, then: str, blocked: str = END, key: str = "messages") -> Node:
        """A node that decides what was said last, goes on to `then`, or refuses and goes to `blocked`."""

        async def flow(state: State) -> Command[str]:
            here, enforcer = await self.runs.here(), self.seat.enforcer
            update, refused = await _said(enforcer, _messages(state, key), here)
            if refused is None:
                return Command(goto=then, update={key: update} if update else None)
            return Command(goto=blocked, update={key: [*update, refusal_message(enforcer, refused)]})

        return _node(flow, "input_gate")

    def output_node(self, key: str = "messages") -> Node:
        """A node that decides the last answer and replaces it in the state where it must."""

        async def flow(state: State) -> Update:
            here, enforcer = await self.runs.here(), self.seat.enforcer
            seam = here.within(NODES)
            message = next((m for m in reversed(_messages(state, key)) if isinstance(m, AIMessage)), None)
            if message is None or silent(message):
                return {}
            event = output_event(message, here, name_of(message))
            decision = await enforcer.deciding(event, seam)
            decision = await enforcer.answering(decision, seam, pause, resuming=here.resuming)
            if decision.blocked:
                refusal = refusal_message(enforcer, decision)
                return {key: [refusal.model_copy(update={"id": message.id})]}
            return {key: [with_answer(message, decision.content.value)]} if decision.edited else {}

        return _node(flow, "output_gate")

    def tool_node(self, tools: Sequence[BaseTool | Callable[..., object]], key: str = "messages") -> Node:
        """A `ToolNode` whose every call is decided before any of them runs.

        Nothing has an effect before all questions about the calls of a message are answered, because a
        graph runs the whole node again when it resumes.
        """
        runner = _GuardedToolNode(self.seat, self.runs, tools, key)
        self.seat.tool_seam |= runner.names
        return RunnableLambda(runner.invoke, afunc=runner.ainvoke, name="guarded_tools")

    def approval_node(
        self, action: str, then: str, rejected: str = END, expected: str = "", rollback: str = "", key: str = "messages"
    ) -> Node:
        """A node at which the graph waits for a person, whatever the policy's gates say.

        `expected` and `rollback` tell the reviewer what will happen and how it can be undone.
        """

        async def flow(state: State) -> Command[str]:
            here, enforcer = await self.runs.here(), self.seat.enforcer
            if not here.pausable:
                raise RuntimeError("an approval node needs a graph that was compiled with a checkpointer")
            ask = Check("approval", Verdict.ask(f"step.{action}"))
            asked = await enforcer.engine.stating(self._step(action, state, key, here), ask, NODES)
            ruled = await enforcer.answering(asked, NODES, pause, expected=expected, rollback=rollback)
            return Command(goto=rejected if ruled.blocked else then)

        return _node(flow, f"approval:{action}")

    def _step(self, action: str, state: State, key: str, here: Here) -> Event:
        """A step of the graph as a call: named by the caller, made of everything in the state but messages."""
        args = {name: value for name, value in state.items() if name != key}
        call = ToolCall(action, {}, id=here.where.task)
        return here.event(Stage.INPUT, Origin.SYSTEM, Content(args), "step", here.where.task, call=call)


class _GuardedToolNode:
    """Decides all calls of the last message, then lets a `ToolNode` run what may run."""

    def __init__(self, seat: Seat, runs: Runs, tools: Sequence[BaseTool | Callable[..., object]], key: str) -> None:
        self._seat, self._runs, self._key = seat, runs, key
        self._node = ToolNode(tools, messages_key=key, wrap_tool_call=self._run, awrap_tool_call=self._arun)

    @property
    def names(self) -> set[str]:
        """The tools it runs."""
        return set(self._node.tools_by_name)

    def invoke(self, state: State, config: RunnableConfig) -> object:
        """Run the last message's tool calls."""
        drive(self._ask_first(state))
        return self._node.invoke(state, config)

    async def ainvoke(self, state: State, config: RunnableConfig) -> object:
        """Run the last message's tool calls."""
        await drive_async(self._ask_first(state))
        return await self._node.ainvoke(state, config)

    async def _ask_first(self, state: State) -> None:
        """Have every question of this message answered. Later calls find the answers on record."""
        here, enforcer = await self._here(state), self._seat.enforcer
        calls, twins = self._asked(state)
        for call in calls:
            if call["id"] not in twins:
                known = call["name"] in self._node.tools_by_name
                await permitted(enforcer, tool_call(call, known), here, NODES)

    def _asked(self, state: State) -> tuple[Sequence[HostToolCall], set[str | None]]:
        """The calls of the last message, and the ids that more than one of them has."""
        message = self._answer(state)
        calls = message.tool_calls if message else []
        ids = [call["id"] for call in calls]
        return calls, {id_ for id_ in ids if ids.count(id_) > 1}

    def _answer(self, state: State) -> AIMessage | None:
        return next((m for m in reversed(_messages(state, self._key)) if isinstance(m, AIMessage)), None)

    async def _here(self, state: State) -> Here:
        """Where the calls of the last message happen."""
        here, answer = await self._runs.here(), self._answer(state)
        return here.turn(answer.id or "") if answer else here

    def _run(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        return drive(self._call(request, lambda changed: Either.only_here(lambda: execute(changed))))

    async def _arun(
        self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        return await drive_async(self._call(request, lambda changed: Either.only_there(lambda: execute(changed))))

    async def _call(
        self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Either[ToolResult]]
    ) -> ToolResult:
        here, call, enforcer = await self._here(request.state), request.tool_call, self._seat.enforcer
        if call["id"] in self._asked(request.state)[1]:  # one id, one count, one approval: it would buy several effects
            twin = Check("tools", Verdict.block("tool.duplicate_id"))
            decision = await enforcer.engine.stating(call_event(tool_call(call), here), twin, NODES)
            if decision.blocked:
                return rejection(enforcer, decision, call, here)
        return await guarded_call(enforcer, request, here, NODES, execute, pause_again)


async def _said(
    enforcer: Enforcer, messages: Sequence[BaseMessage], here: Here
) -> tuple[list[BaseMessage], Decision | None]:
    """Replacements for what people and tools said, and the block on what was said since the last answer."""
    seam, answered = here.within(NODES), last_answer(messages)
    update: list[BaseMessage] = []
    refused: Decision | None = None
    for index, event in message_events(messages, here, system=True):
        decision = await enforcer.deciding(event, seam)
        if event.stage is Stage.INPUT and index > answered:
            decision = await enforcer.answering(decision, seam, pause, resuming=here.resuming)
        if decision.blocked and event.stage is Stage.INPUT and index > answered:
            refused = refused or decision
        if decision.blocked or decision.edited:
            update += _replacement(enforcer, messages[index], decision)
    return update, refused


def _replacement(enforcer: Enforcer, message: BaseMessage, decision: Decision) -> list[BaseMessage]:
    if decision.blocked and enforcer.manners.blocked_messages == "remove" and message.id:
        return [RemoveMessage(id=message.id)]
    new = enforcer.passed(decision).value
    return [with_content(message, new)] if new != message.content else []


def _messages(state: State, key: str) -> list[BaseMessage]:
    found = state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
    return [m for m in found if isinstance(m, BaseMessage)] if isinstance(found, list) else []


def _node(flow: Callable[[State], Flow[object]], name: str) -> Node:
    """One flow as a node that works in both worlds."""

    def sync(state: State) -> object:
        return drive(flow(state))

    async def asynchronous(state: State) -> object:
        return await drive_async(flow(state))

    return RunnableLambda(sync, afunc=asynchronous, name=name)
