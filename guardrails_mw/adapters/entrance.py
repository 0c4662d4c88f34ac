"""What somebody hands in to a graph, decided: messages in whatever role they claim, and all other text beside them.

Who hands in a conversation can write every part of it. An answer or a system message in the input of a run is
therefore no more than what a user says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import cast
from uuid import uuid4

from langchain_core.messages import BaseMessage, RemoveMessage
from langgraph.types import Command, Send
from pydantic import BaseModel

from guardrails_mw.adapters.cargo import labelled
from guardrails_mw.adapters.forms import in_form_of, plain
from guardrails_mw.adapters.host import Here, digest, raise_block
from guardrails_mw.adapters.messages import last_answer, message_events, with_content
from guardrails_mw.adapters.metadata import added, with_added
from guardrails_mw.adapters.state import as_messages
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, Origin, Stage
from guardrails_mw.seam import GRAPH
from guardrails_mw.verdict import Check, Decision, Verdict

__all__ = ["Arrived", "Entrance"]

_ROOT = "__root__"


@dataclass(frozen=True, slots=True)
class Arrived:
    """An input as it goes on, and the block on what was said last, if there is one."""

    value: object
    refused: Decision | None = None


@dataclass(slots=True)
class Entrance:
    """Decides what is handed in here.

    Attributes:
        message_keys: keys of the state that hold messages in any form that LangGraph takes.
        rooted: whether the state is one value without keys.
    """

    enforcer: Enforcer
    here: Here
    message_keys: Sequence[str]
    rooted: bool = False
    refused: Decision | None = None

    async def arriving(self, value: object) -> Arrived:
        """An input, an update or a command, decided. Raises `GuardrailBlocked` where a block has no placeholder."""
        if isinstance(value, Command):
            value = await self._command(value)
            if self.refused is not None:  # it goes on with what waits: there is no place for a refusal
                raise_block(self.enforcer, self.refused)
        elif value is not None:
            value = await self._state(value)
        return Arrived(value, self.refused)

    async def _command(self, command: Command[object]) -> Command[object]:
        if command.goto:  # past gates and approvals, to any step
            event = self.here.event(Stage.INPUT, Origin.USER, Content(None), "input", "goto")
            jump = await self.enforcer.engine.stating(event, Check("graph", Verdict.block("graph.goto")), GRAPH)
            if jump.blocked:
                raise_block(self.enforcer, jump)
        update = command.update if command.update is None else await self._state(command.update)
        resume: object = command.resume
        if isinstance(resume, Mapping) and all(_PAUSE.fullmatch(str(key)) for key in resume):  # answers by pause
            resume = {key: await self._data("resume", answer) for key, answer in resume.items()}
        else:
            resume = await self._data("resume", resume)
        goto: object = command.goto
        if isinstance(goto, list | tuple):
            goto = [await self._sent(each) for each in goto]
        return replace(command, update=update, resume=resume, goto=await self._sent(goto))

    async def _sent(self, goto: object) -> object:
        return Send(goto.node, await self._state(goto.arg)) if isinstance(goto, Send) else goto

    async def _state(self, state: object) -> object:
        """A state or a part of one, value by value, in the form it has."""
        if self.rooted:
            return await self._value(_ROOT, state)
        if isinstance(state, Mapping):
            return {key: await self._value(str(key), value) for key, value in state.items()}
        if isinstance(state, BaseModel):
            new = {name: await self._value(name, getattr(state, name)) for name in state.model_fields_set}
            return state.model_copy(update=new)
        if is_dataclass(state) and not isinstance(state, type):
            made = {each.name: await self._value(each.name, getattr(state, each.name)) for each in fields(state)}
            return replace(state, **made)
        if isinstance(state, list | tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in state):
            return [(key, await self._value(str(key), value)) for key, value in state]
        return await self._value("", state)

    async def _value(self, key: str, value: object) -> object:
        if key in self.message_keys and value is not None:
            return await self._messages(as_messages(value))
        if isinstance(value, BaseMessage):
            found = await self._messages([value])
            return found[0] if found else None
        if isinstance(value, list | tuple) and any(isinstance(item, BaseMessage) for item in value):
            return await self._messages(as_messages(value))
        return await self._data(key, value)

    async def _data(self, key: str, value: object) -> object:
        """A value that is no message; a text that is blocked leaves a placeholder, anything else has none."""
        if value is None or isinstance(value, bool):
            return value
        content = plain(value)
        event = self.here.event(Stage.INPUT, Origin.USER, Content(content), "input", "state", key, digest(content))
        decision = await self.enforcer.deciding(event, GRAPH)
        if decision.blocked:
            if not isinstance(value, str) or self.enforcer.manners.raises(decision.stage):
                raise_block(self.enforcer, decision)
            self.refused = self.refused or decision
            return self.enforcer.passed(decision).value
        return in_form_of(value, self.enforcer.passed(decision).value) if decision.edited else value

    async def _messages(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Messages under names that stay theirs, each decided; what stands before an answer refuses nothing."""
        named = [_named(message) for message in messages]
        answered, result = last_answer(named), list[BaseMessage]()
        removes = self.enforcer.manners.blocked_messages == "remove"
        events = dict(message_events(named, self.here, everyone=True))
        for index, message in enumerate(named):
            event = events.get(index)
            if event is None:  # one that removes another: whatever else it carries would be written down with it
                result.append(RemoveMessage(id=message.id or ""))
                continue
            decided, block = await self._message(message, event)
            if block is not None and index >= answered:
                if block.stage is Stage.INPUT:
                    self.refused = self.refused or block
                elif self.enforcer.manners.raises(block.stage):
                    raise_block(self.enforcer, block)
            if not (removes and block is not None and block.stage is Stage.INPUT):
                result.append(decided)
        return result

    async def _message(self, message: BaseMessage, event: Event) -> tuple[BaseMessage, Decision | None]:
        """The message as it may be kept, and the block on it, if there is one."""
        decision = await self.enforcer.deciding(event, GRAPH)
        if not decision.blocked:
            if decision.edited:
                message = with_content(message, self.enforcer.passed(decision).value)
            beside = _beside(message)
            if not beside:
                return message, None
            said = Event(
                event.stage, Content(plain(beside)), event.origin, event.actor, event.where, key=f"{event.key}|beside"
            )
            decision = await self.enforcer.deciding(said, GRAPH)
            if not decision.blocked:
                return (
                    _with_beside(message, beside, self.enforcer.passed(decision).value) if decision.edited else message
                ), None
        if self.enforcer.manners.blocked_messages == "keep":
            return message, decision
        bare = {name: empty for name, empty in _EMPTY.items() if getattr(message, name, None)}
        text = (
            f"[blocked: {decision.verdict.reason}]"
            if decision.event is not event
            else (self.enforcer.passed(decision).value)
        )
        return with_added(with_content(message, text).model_copy(update=bare), {}), decision


_PAUSE = re.compile(r"[0-9a-f]{32}", re.ASCII)


def _named(message: BaseMessage) -> BaseMessage:
    """The message under ids that stay its own, and that are no text: ids are kept where no gate looks."""
    named = labelled(message)
    if named is not message:
        named = named.model_copy(update={"name": message.name})  # which is decided like all that it says
    return named if named.id else named.model_copy(update={"id": str(uuid4())})


_EMPTY: Mapping[str, object] = {
    "additional_kwargs": {}, "response_metadata": {}, "name": None, "artifact": None, "tool_calls": [],
    "invalid_tool_calls": [],
}  # fmt: skip


def _beside(message: BaseMessage) -> dict[str, object]:
    """What a message carries besides its content and may say something."""
    found: dict[str, object] = {name: value for name in _EMPTY if (value := getattr(message, name, None))}
    return {**found, "fields": fields} if (fields := added(message)) else found


def _with_beside(message: BaseMessage, old: Mapping[str, object], new: object) -> BaseMessage:
    update = dict(in_form_of(old, new))
    fields = cast("dict[str, object]", update.pop("fields", {}))
    return with_added(message.model_copy(update=update), fields)
