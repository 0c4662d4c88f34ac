"""What a tool gave back, decided in every form that it has: messages, artifacts, state, exceptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TypeVar, cast

from langchain_core.messages import BaseMessage, RemoveMessage, ToolMessage
from langchain_core.messages import ToolCall as HostToolCall
from langchain_core.tools import BaseTool
from langchain_core.tools.base import _format_output
from langgraph.errors import GraphInterrupt, ParentCommand
from langgraph.types import Command, Interrupt, Send
from pydantic import BaseModel

from guardrails_mw.adapters.cargo import cargo, labelled, with_cargo
from guardrails_mw.adapters.failures import ToolFailed, heard, words_of
from guardrails_mw.adapters.forms import in_form_of, plain
from guardrails_mw.adapters.host import Here, digest, raise_block
from guardrails_mw.adapters.messages import (
    beside_event,
    name_of,
    named,
    result_event,
    tool_call,
    with_content,
)
from guardrails_mw.approvals import QUESTION
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Blocks, Content, Event, Origin, Stage, ToolCall, is_name
from guardrails_mw.seam import Seam
from guardrails_mw.verdict import Decision, Remedy
from guardrails_mw.wait import Either

__all__ = ["Ran", "rejection"]

T = TypeVar("T")

_MAX_DEPTH = 8
"""How deep messages are looked for in a state update; what lies deeper is decided as data."""


class _StateBlocked(Exception):
    """Something in a state update is blocked for which there is no placeholder."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(decision.verdict.reason)


@dataclass(frozen=True, slots=True)
class Ran:
    """A tool call that runs or ran: `call` is what is run, `host_call` what the model asked for."""

    enforcer: Enforcer
    call: ToolCall
    host_call: HostToolCall
    here: Here
    seam: Seam

    async def responding(
        self, tool: BaseTool, execute: Either[object], again: Callable[[], Awaitable[ToolMessage | None]]
    ) -> object:
        """What the tool's own function gives back or raises, decided before the tool's callbacks hear of it.

        `again` may have something else to give back, where the tool must not run (once more).
        """
        refused = await again()
        if refused is not None:
            return (refused, None) if tool.response_format == "content_and_artifact" else refused
        return await self._response(tool, await self.responded(execute))

    async def responded(self, execute: Either[T]) -> T:
        """What something gives back; where its exception, question or command must not be heard, it raises another."""
        try:
            return await heard(execute, self._failure)
        except (GraphInterrupt, ParentCommand) as error:
            raised = error
        raise await (self._paused(raised) if isinstance(raised, GraphInterrupt) else self._sent_up(raised)) from None

    async def _sent_up(self, raised: ParentCommand) -> Exception:
        """What a graph that a tool ran does to the graph around: a result like any other, though it is raised."""
        command = await self._command(raised.args[0])
        return ParentCommand(command) if isinstance(command, Command) else ToolFailed(str(command.text))

    async def _paused(self, pause: GraphInterrupt) -> Exception:
        """A tool's own question as it may be asked. Our questions in a sub-agent were redacted when they were made."""
        asked = list[Interrupt]()
        for each in pause.args[0]:
            if isinstance(each.value, Mapping) and each.value.get("type") == QUESTION:
                asked.append(each)
                continue
            content = plain(each.value)
            decision = await self._decided(content, "question", digest(content))
            if decision.blocked:
                return ToolFailed(f"blocked: {decision.verdict.reason}")
            value = in_form_of(each.value, self.enforcer.passed(decision).value) if decision.edited else each.value
            asked.append(Interrupt(value, each.id))
        return GraphInterrupt(asked)

    async def _failure(self, error: Exception) -> Exception:
        """The exception as it may be heard: itself, or where its words are edited or blocked, another."""
        words = words_of(error)
        decision = await self.enforcer.deciding(self._event(Content(words), "error", digest(words)), self.seam)
        if decision.blocked:
            return ToolFailed(f"blocked: {decision.verdict.reason}")
        if not decision.edited:
            return error
        return ToolFailed(cast("list[str]", self.enforcer.passed(decision).value)[0])

    async def gated(self, result: object) -> object:
        """What may be read of a result, in whichever form a graph accepts it."""
        if isinstance(result, ToolMessage):
            return await self._message(result.model_copy(update={"tool_call_id": self.host_call["id"]}))
        if isinstance(result, Command):
            return await self._command(result)
        if type(result) is list:
            return [await (self._message(x) if isinstance(x, ToolMessage) else self.gated(x)) for x in result]
        return result

    async def _response(self, tool: BaseTool, response: object) -> object:
        pair = tool.response_format == "content_and_artifact"
        if pair and not (isinstance(response, tuple) and len(response) == 2):
            return response  # the tool says what is wrong with it
        content, artifact = cast("tuple[object, object]", response) if pair else (response, None)
        gated = await self.gated(_format_output(content, artifact, self.host_call["id"], tool.name, "success"))
        return (gated, None) if pair else gated

    async def _message(self, message: ToolMessage) -> ToolMessage:
        message = cast("ToolMessage", labelled(named(message, self.here)))
        decision = await self.enforcer.deciding(result_event(message, self.call, self.here), self.seam)
        if decision.blocked:
            return rejection(self.enforcer, decision, self.host_call, self.here)
        if decision.edited:
            message = message.model_copy(update={"content": self.enforcer.passed(decision).value})
        return await self._beside(message)

    async def _beside(self, message: ToolMessage) -> ToolMessage:
        """The message with what stands beside its content, decided like it; dropped where it is blocked."""
        found = cargo(message)
        if not found:
            return message
        event = beside_event(message, found, self.call.id, self.here)
        decision = await self.enforcer.deciding(event, self.seam)
        if decision.blocked:
            return cast("ToolMessage", with_cargo(message, {}))
        if not decision.edited:
            return message
        return cast("ToolMessage", with_cargo(message, _mapping(self.enforcer.passed(decision))))

    async def _command(self, command: Command[object]) -> Command[object] | ToolMessage:
        """The command with its state update decided; where there is no place for a refusal, a refusal in its place."""
        try:
            goto: object = command.goto
            if isinstance(goto, list | tuple):
                goto = [await self._sent(each) for each in goto]
            goto, resume = await self._sent(goto), await self._state(command.resume, ("resume",))
            return replace(command, update=await self._update(command.update), goto=goto, resume=resume)
        except _StateBlocked as blocked:
            decision = blocked.decision
        return rejection(self.enforcer, decision, self.host_call, self.here)

    async def _update(self, update: object) -> object:
        """A state update in any form that a command takes it in."""
        if isinstance(update, BaseModel) or (is_dataclass(update) and not isinstance(update, type)):
            update = dict(_fields(update))
        return await self._state(update, ())

    async def _sent(self, goto: object) -> object:
        if isinstance(goto, Send):
            return Send(await self._name(goto.node), await self._state(goto.arg, ("goto",)))
        return await self._name(goto) if isinstance(goto, str) else goto

    async def _name(self, name: str) -> str:
        """A node's or a key's name; one that is no name as programs make them is data like any other."""
        return name if is_name(name) else str(await self._state(name, ("name",)))

    async def _state(self, value: object, path: tuple[str, ...]) -> object:
        """A value on its way into the state: messages one by one, everything else as data."""
        if isinstance(value, ToolMessage):
            return await self._message(value)
        if isinstance(value, BaseMessage):
            return await self._written(value)
        if len(path) < _MAX_DEPTH:
            if isinstance(value, Mapping) and (not path or _holds_messages(value)):
                return {
                    (await self._name(key) if isinstance(key, str) else key): await self._state(item, (*path, str(key)))
                    for key, item in value.items()
                }
            if isinstance(value, list | tuple) and any(_holds_messages(item) for item in value):
                items = [await self._state(item, (*path, str(index))) for index, item in enumerate(value)]
                return items if isinstance(value, list) else tuple(items)
        if value is None or isinstance(value, bool):
            return value
        content = plain(value)
        decision = await self._decided(content, "state", *path, digest(content))
        if decision.blocked:
            raise _StateBlocked(decision)
        return in_form_of(value, self.enforcer.passed(decision).value) if decision.edited else value

    async def _written(self, message: BaseMessage) -> BaseMessage:
        """A message that the tool wrote in somebody else's name: what it says and calls is the tool's all the same."""
        if isinstance(message, RemoveMessage):  # whatever else it carries is written down with it
            return RemoveMessage(id=await self._name(message.id or ""))
        message = labelled(message)
        said = message.content if isinstance(message.content, str) else Blocks(message.content)
        found = {**({"content": said} if said else {}), **_plain(cargo(message))}
        decision = await self._decided(found, "message", name_of(message))
        if decision.blocked:
            text = self.enforcer.passed(decision).value
            kept = text is decision.event.content.value  # a policy that keeps what it blocks
            return message if kept else with_content(with_cargo(message, {}), text)
        if not decision.edited:
            return message
        new = _mapping(self.enforcer.passed(decision))
        content = new.get("content", message.content)
        return with_content(with_cargo(message, new), list(content) if isinstance(content, list) else content)

    async def _decided(self, value: object, *key: str) -> Decision:
        return await self.enforcer.deciding(self._event(Content(value), *key), self.seam)

    def _event(self, content: Content, *key: str) -> Event:
        """Something else that a call brought back. It is no second result: it names no call, so nothing counts it."""
        return self.here.event(Stage.TOOL_RESULT, Origin.TOOL, content, "result", self.call.id, *key)


def rejection(enforcer: Enforcer, decision: Decision, call: HostToolCall, here: Here) -> ToolMessage:
    """What the model reads in place of a result: the reason code, or a nudge. Raises where the policy says so."""
    if enforcer.manners.raises(decision.stage):
        raise_block(enforcer, decision)
    mark = enforcer.mark(decision)
    if decision.verdict.remedy is Remedy.END:
        mark["remedy"] = Remedy.END.value  # the next call of the model ends the run instead
    message = ToolMessage(
        decision.verdict.note or f"blocked: {decision.verdict.reason}",
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="error",
        additional_kwargs={"guardrails": mark},
        id=f"gm-{decision.id}",
    )
    enforcer.vouch(result_event(message, tool_call(call), here), decision)
    return message


def _plain(found: Mapping[str, object]) -> dict[str, object]:
    return {name: plain(value) for name, value in found.items()}


def _mapping(content: Content) -> Mapping[str, object]:
    return cast("Mapping[str, object]", content.value)


def _holds_messages(value: object, depth: int = 0) -> bool:
    if isinstance(value, BaseMessage):
        return True
    if depth >= _MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
        return False
    return any(_holds_messages(item, depth + 1) for item in (value.values() if isinstance(value, Mapping) else value))


def _fields(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, BaseModel):
        yield from ((name, getattr(value, name)) for name in value.model_fields_set)
    elif is_dataclass(value):
        yield from ((each.name, getattr(value, each.name)) for each in fields(value))
