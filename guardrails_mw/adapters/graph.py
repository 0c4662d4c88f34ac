"""Nodes for an existing graph: gates before and after the agent, guarded tools, and a stop for a person."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.graph import END
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command, Send

from guardrails_mw.adapters.exchange import Exchange
from guardrails_mw.adapters.forms import plain
from guardrails_mw.adapters.host import Here, Runs, pause, pause_again
from guardrails_mw.adapters.messages import (
    call_event,
    last_answer,
    name_of,
    output_event,
    refusal_message,
    silent,
    tool_call,
    with_answer,
    with_beside_said,
    with_content,
)
from guardrails_mw.adapters.state import Asked, asked_of, fields_of, messages_of, rewritten
from guardrails_mw.adapters.tools import ToolResult, guarded_call, permitted, rejection
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, Origin, Stage, ToolCall
from guardrails_mw.generation import Seat
from guardrails_mw.seam import NODES
from guardrails_mw.verdict import Action, Check, Decision, Verdict
from guardrails_mw.wait import Either, Flow, drive, drive_async

__all__ = ["Nodes"]

Node = RunnableLambda[object, object]

_ASKED: ContextVar[Asked] = ContextVar("guardrails_mw_asked")
"""What the innermost tool node has been asked for."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Makes graph nodes for one guard. `key` arguments name the state key that holds the messages."""

    seat: Seat
    runs: Runs

    def input_node(self, then: str, blocked: str = END, key: str = "messages") -> Node:
        """A node that decides what was said last, goes on to `then`, or refuses and goes to `blocked`."""

        async def flow(state: object) -> Command[str]:
            here, enforcer = await self.runs.here(), self.seat.enforcer
            messages = messages_of(state, key)
            new, block = await _said(enforcer, messages, here)
            refusal = refusal_message(enforcer, block) if block else None
            update = rewritten(state, key, messages, new, refusal) if new or refusal else None
            return Command(goto=blocked if block else then, update=update)

        return _node(flow, "input_gate")

    def output_node(self, key: str = "messages") -> Node:
        """A node that decides what was answered last, and replaces it in the state where it must."""

        async def flow(state: object) -> object:
            here, enforcer = await self.runs.here(), self.seat.enforcer
            messages = messages_of(state, key)
            new = await _answered(enforcer, messages, here)
            return rewritten(state, key, messages, new, None) if new else None

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

        async def flow(state: object) -> Command[str]:
            here, enforcer = await self.runs.here(), self.seat.enforcer
            if not here.pausable:
                raise RuntimeError("an approval node needs a graph that was compiled with a checkpointer")
            ask = Check("approval", Verdict.ask(f"step.{action}"))
            asked = await enforcer.engine.stating(self._step(action, state, key, here), ask, NODES)
            ruled = await enforcer.answering(asked, NODES, pause, expected=expected, rollback=rollback)
            ruled = await enforcer.begin(ruled)
            following = rejected if ruled.blocked else then
            sent = here.sent and following != END  # a state of its own was approved: the graph's is another
            return Command(goto=Send(following, state) if sent else following)

        return _node(flow, f"approval:{action}")

    def _step(self, action: str, state: object, key: str, here: Here) -> Event:
        """A step of the graph as a call: named by the caller, made of everything in the state but messages."""
        args = {name: plain(value) for name, value in fields_of(state).items() if name != key}
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

    def invoke(self, state: object, config: RunnableConfig) -> object:
        """Run the last message's tool calls."""
        with self._asking(state) as asked:
            drive(self._ask_first(asked))
            return self._node.invoke(state, config)

    async def ainvoke(self, state: object, config: RunnableConfig) -> object:
        """Run the last message's tool calls."""
        with self._asking(state) as asked:
            await drive_async(self._ask_first(asked))
            return await self._node.ainvoke(state, config)

    @contextmanager
    def _asking(self, state: object) -> Iterator[Asked]:
        """While the calls that a state asks for are decided and run."""
        asked = asked_of(state, self._key)
        token = _ASKED.set(asked)
        try:
            yield asked
        finally:
            _ASKED.reset(token)

    async def _ask_first(self, asked: Asked) -> None:
        """Have every question of this message answered. Later calls find the answers on record."""
        here, enforcer = (await self._runs.here()).turn(asked.answer), self._seat.enforcer
        for call in asked.calls:
            if call["id"] not in asked.twins:
                known = call["name"] in self._node.tools_by_name
                await permitted(enforcer, tool_call(call, known), here, NODES)

    def _run(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        return drive(self._call(request, lambda changed: Either.only_here(lambda: execute(changed))))

    async def _arun(
        self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> ToolResult:
        return await drive_async(self._call(request, lambda changed: Either.only_there(lambda: execute(changed))))

    async def _call(
        self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Either[ToolResult]]
    ) -> ToolResult:
        asked, call, enforcer = _ASKED.get(), request.tool_call, self._seat.enforcer
        here = (await self._runs.here()).turn(asked.answer)
        if call["id"] in asked.twins:  # one id, one count, one approval: it would buy several effects
            twin = Check("tools", Verdict.block("tool.duplicate_id"))
            decision = await enforcer.engine.stating(call_event(tool_call(call), here), twin, NODES)
            if decision.blocked:
                return rejection(enforcer, decision, call, here)
        return await guarded_call(enforcer, request, here, NODES, execute, pause_again)


async def _said(
    enforcer: Enforcer, messages: Sequence[BaseMessage], here: Here
) -> tuple[dict[int, BaseMessage | None], Decision | None]:
    """What takes the place of what people and tools said, and the block on what was said since the last answer."""
    seam, answered, removes = here.within(NODES), last_answer(messages), enforcer.manners.blocked_messages == "remove"
    reading = await Exchange(enforcer, NODES, here).read(messages, system=True)
    new: dict[int, BaseMessage | None] = {}
    refused: Decision | None = None
    for index, decision in reading.decisions.items():
        message, said = reading.messages[index], decision.stage is Stage.INPUT
        if said and (index > answered or decision.action is Action.ASK):
            ruled = await enforcer.answering(decision, seam, pause, resuming=here.resuming)
            if ruled.blocked and not decision.blocked:
                message = with_beside_said(with_content(message, enforcer.passed(ruled).value), {})
            decision = ruled  # noqa: PLW2901 - as people left it
        if decision.blocked and said and index > answered:
            refused = refused or decision
        if decision.blocked and said and removes:
            new[index] = None
        elif message != messages[index]:
            new[index] = message
    return new, refused


async def _answered(enforcer: Enforcer, messages: Sequence[BaseMessage], here: Here) -> dict[int, BaseMessage | None]:
    """What takes the place of what the model said since the last thing that a person said."""
    seam, new = here.within(NODES), dict[int, BaseMessage | None]()
    asked = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    done = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    for index, message in enumerate(messages):
        if index < asked or not isinstance(message, AIMessage) or silent(message):
            continue
        decision = await enforcer.deciding(output_event(message, here, name_of(message)), seam)
        decision = await enforcer.answering(decision, seam, pause, resuming=here.resuming)
        if decision.blocked:
            calls = [call for call in message.tool_calls if call["id"] in done]  # their results refer to them
            refusal = refusal_message(enforcer, decision)
            new[index] = refusal.model_copy(update={"id": name_of(message), "tool_calls": calls})
        elif decision.edited:
            new[index] = with_answer(message, decision.content.value)
    return new


def _node(flow: Callable[[object], Flow[object]], name: str) -> Node:
    """One flow as a node that works in both worlds."""

    def sync(state: object) -> object:
        return drive(flow(state))

    async def asynchronous(state: object) -> object:
        return await drive_async(flow(state))

    return RunnableLambda(sync, afunc=asynchronous, name=name)
