"""Messages in our words and back: the events that they are, and the messages that stand in their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages import ToolCall as HostToolCall

from guardrails_mw.adapters.forms import in_form_of, plain
from guardrails_mw.adapters.host import Here, digest, raise_block
from guardrails_mw.adapters.metadata import added, metadata, telling, unscored, with_added, with_metadata
from guardrails_mw.adapters.proposal import said, with_calls, with_said
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, Json, ModelCall, Origin, Stage, ToolCall, is_name
from guardrails_mw.verdict import Decision, Remedy

__all__ = [
    "beside_event",
    "beside_said",
    "call_event",
    "calls_only",
    "ended",
    "last_answer",
    "last_result",
    "message_events",
    "model_event",
    "name_of",
    "named",
    "no_text",
    "output_event",
    "refusal_message",
    "result_event",
    "silent",
    "so_far",
    "tool_call",
    "with_answer",
    "with_beside_said",
    "with_content",
]

_CODE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")

_EMPTY: Sequence[object] = ("", {"type": "text", "text": ""})


def message_events(
    messages: Sequence[BaseMessage], here: Here, *, system: bool = False, everyone: bool = False
) -> Iterator[tuple[int, Event]]:
    """The messages that somebody outside wrote, each with its index and event.

    Human messages are input, tool messages are tool results. System messages are the caller's own words,
    except where anybody could have put a `system` message; answers of the model were decided when they were
    given, except where `everyone` could have written one.
    """
    calls: dict[str, HostToolCall] = {}
    for index, message in enumerate(messages):
        if isinstance(message, AIMessage):
            calls.update({call["id"] or "": call for call in message.tool_calls})
        if isinstance(message, RemoveMessage) or (isinstance(message, AIMessage) and not everyone):
            continue
        if isinstance(message, ToolMessage | FunctionMessage):
            call_id = _call_id(message)
            asked = calls.get(call_id)
            call = tool_call(asked) if asked else ToolCall(message.name or "", id=call_id)
            yield index, result_event(message, call, here)
        elif system or everyone or not isinstance(message, SystemMessage):
            content = Content(message.content, blocks=True)
            yield index, here.event(Stage.INPUT, Origin.USER, content, "input", name_of(message))


def result_event(message: ToolMessage | FunctionMessage, call: ToolCall, here: Here) -> Event:
    """The event of a tool's result, the same where the tool ran and where a model reads the conversation."""
    content = Content(message.content, blocks=True)
    if isinstance(message, ToolMessage) and message.status == "error":
        call = replace(call, failed=True)
    return here.event(Stage.TOOL_RESULT, Origin.TOOL, content, "result", _call_id(message), name_of(message), call=call)


def beside_event(message: ToolMessage, beside: Mapping[str, object], call_id: str, here: Here) -> Event:
    """The event of what stands beside a result. It is no second result: it names no call, so nothing counts it."""
    content = Content({key: plain(value) for key, value in beside.items()})
    return here.event(Stage.TOOL_RESULT, Origin.TOOL, content, "result", call_id, "beside", name_of(message))


def beside_said(message: BaseMessage) -> dict[str, object]:
    """What somebody put beside the content of a message that he wrote."""
    name = message.name if message.name and not is_name(message.name) else None
    found = {"name": name, "additional_kwargs": message.additional_kwargs, "response_metadata": metadata(message)}
    found["fields"] = added(message)
    return {key: value for key, value in found.items() if value}


def with_beside_said(message: BaseMessage, new: Mapping[str, object]) -> BaseMessage:
    """A copy of a message with this in place of what was beside its content."""
    old = beside_said(message)
    update = {"name": new.get("name")} if "name" in old else {}
    told = with_metadata(message, cast("dict[str, object]", new.get("response_metadata", {})))
    told = with_added(told, cast("dict[str, object]", new.get("fields", {})))
    kwargs = new.get("additional_kwargs", {})
    return told.model_copy(update={**update, "additional_kwargs": kwargs, "id": name_of(told)})


def _call_id(message: ToolMessage | FunctionMessage) -> str:
    return message.tool_call_id if isinstance(message, ToolMessage) else ""


def call_event(call: ToolCall, here: Here) -> Event:
    """The event of a tool call, keyed so that it is the same when its node runs again."""
    key = ("call", here.where.task, here.step, call.id or digest([call.name, call.args]))
    return here.event(Stage.TOOL_CALL, Origin.MODEL, Content(call.args), *key, call=call)


def model_event(call: ModelCall, here: Here, attempt: str) -> Event:
    """The event of a model call. Every attempt has its own, because every attempt costs."""
    return here.event(Stage.MODEL, Origin.MODEL, Content(None), "model", attempt, call=call)


def output_event(message: BaseMessage, here: Here, key: str) -> Event:
    """The event of what a model answered, with what providers put beside the content, such as reasoning."""
    content, beside = said(message), _told(message)
    if beside:
        text = [{"type": "text", "text": content}] if isinstance(content, str) else content
        content = [*(() if calls_only(message) else text), {"type": "reasoning", "beside": beside}]
    return here.event(Stage.OUTPUT, Origin.MODEL, Content(content, blocks=True), "output", key)


def silent(message: BaseMessage) -> bool:
    """Whether an answer says nothing, only calls tools."""
    return calls_only(message) and not _told(message)


def with_answer(message: BaseMessage, content: object) -> BaseMessage:
    """A copy of an answer as the content of its event was edited."""
    beside = _told(message)
    if not beside or not isinstance(content, list):
        return unscored(with_content(message, with_said(message, content)))
    new, text = content[-1]["beside"], content[:-1]
    update: dict[str, object] = {name: new[name] for name in ("invalid_tool_calls", "name") if name in new}
    message = with_added(message, in_form_of(added(message), new.get("fields", {})))
    for name in ("additional_kwargs", "response_metadata"):
        if name in new:
            table, free = getattr(message, name), beside[name]
            rest = {key: value for key, value in table.items() if key not in free}
            update[name] = {**rest, **in_form_of({key: table[key] for key in table if key in free}, new[name])}
    if not calls_only(message):
        update["content"] = text[0]["text"] if isinstance(message.content, str) else with_said(message, text)
    told = unscored(with_content(message, message.content).model_copy(update=update))
    if not isinstance(told, AIMessage) or new.get("called") == beside.get("called"):
        return told
    names = iter(new["called"])
    calls: list[HostToolCall] = [{**c, "name": next(names)} if _odd(c) else c for c in told.tool_calls]
    return with_calls(told, calls)


def _odd(call: HostToolCall) -> bool:
    """Whether what a call names says more than a name does: a model may call a tool anything."""
    return bool(call["name"]) and not is_name(call["name"])


def _told(message: BaseMessage) -> dict[str, str | Sequence[object] | Mapping[str, object]]:
    """All that an answer says besides its content: beside it, in what its provider tells of it, in its name."""
    found: dict[str, str | Sequence[object] | Mapping[str, object]] = {**_beside(message)}
    if free := metadata(message):
        found["response_metadata"] = cast("Mapping[str, object]", plain(free))
    if message.name and not is_name(message.name):
        found["name"] = message.name
    if fields := added(message):
        found["fields"] = cast("dict[str, object]", plain(fields))
    if isinstance(message, AIMessage) and (called := [call["name"] for call in message.tool_calls if _odd(call)]):
        found["called"] = called
    return found


def _beside(message: BaseMessage) -> dict[str, Sequence[object] | Mapping[str, object]]:
    """What an answer carries besides its content. Signatures are not text, and change nothing for a reader."""
    kept = {key: plain(value) for key, value in telling(message.additional_kwargs).items()}
    found: dict[str, Sequence[object] | Mapping[str, object]] = {"additional_kwargs": kept} if kept else {}
    if isinstance(message, AIMessage) and message.invalid_tool_calls:
        found["invalid_tool_calls"] = [dict(call) for call in message.invalid_tool_calls]
    return found


def last_answer(messages: Sequence[BaseMessage]) -> int:
    """The index of the model's last answer, -1 where there is none: what comes after it is new."""
    return max((i for i, message in enumerate(messages) if isinstance(message, AIMessage)), default=-1)


def ended(enforcer: Enforcer, messages: Sequence[BaseMessage]) -> AIMessage | None:
    """The answer that a run ends with, where a tool call was blocked for good since the model's last answer."""
    for message in messages[last_answer(messages) + 1 :]:
        mark = message.additional_kwargs.get("guardrails") if isinstance(message, ToolMessage) else None
        if isinstance(mark, Mapping) and mark.get("remedy") == Remedy.END:
            reason = str(mark.get("reason"))  # a tool may have written this mark: it ends the run, and says no more
            code = reason if _CODE.fullmatch(reason) else "ended"
            said = enforcer.refusal_of(Stage.TOOL_CALL, code, so_far(messages))
            return AIMessage(said, response_metadata={"guardrails": dict(mark)})
    return None


def last_result(messages: Sequence[object], call: HostToolCall) -> str:
    """What the model last read from the same tool, from the same call if it made it before; empty if nothing."""
    same = {
        asked["id"]: asked["args"] == call["args"]
        for message in messages
        if isinstance(message, AIMessage)
        for asked in message.tool_calls
        if asked["name"] == call["name"] and asked["id"] != call["id"]
    }
    read = [
        (same[message.tool_call_id], str(message.text))
        for message in messages
        if isinstance(message, ToolMessage)
        and message.tool_call_id in same
        and "guardrails" not in message.additional_kwargs
    ]
    return max(enumerate(read), key=lambda item: (item[1][0], item[0]))[1][1] if read else ""


def calls_only(message: BaseMessage) -> bool:
    """Whether a message is no answer yet, only calls: an empty text would fit no schema."""
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return False
    content = said(message)
    return not content or (isinstance(content, list) and all(block in _EMPTY for block in content))


def so_far(messages: Sequence[BaseMessage]) -> str:
    """What a model has said since the last thing that a person said."""
    asked = max((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    said = [str(message.text).strip() for message in messages[asked + 1 :] if isinstance(message, AIMessage)]
    return "\n".join(text for text in said if text)


def refusal_message(enforcer: Enforcer, decision: Decision, partial: str = "") -> AIMessage:
    """What the user sees instead of a blocked content. Raises where the policy says so.

    `partial`: what was said before, for refusals that repeat it.
    """
    if enforcer.manners.raises(decision.stage):
        raise_block(enforcer, decision)
    return AIMessage(enforcer.refusal(decision, partial), response_metadata={"guardrails": enforcer.mark(decision)})


def named(message: ToolMessage, here: Here) -> ToolMessage:
    """The message with an id of its own, by which it is known again in the conversation."""
    if message.id is not None and is_name(message.id):
        return message
    own = [here.where.task, here.step, message.tool_call_id, message.content]
    own += [message.id] if message.id else []
    return message.model_copy(update={"id": f"gm-{digest(own)}"})


def name_of(message: BaseMessage) -> str:
    """A message's id, or one made from its content."""
    return message.id or f"gm-{digest(message.content)}"


def no_text(id_: str | None) -> str | None:
    """An id or a name as it may be told: who gives them can write words in them, which are kept where no gate looks.

    What is told in place of one is the same for the same text.
    """
    return id_ if not id_ or is_name(id_) else f"gm-{digest(id_)}"


def tool_call(call: HostToolCall, known: bool = True) -> ToolCall:
    """A host's tool call in our words."""
    args: Mapping[str, Json] = call["args"] if isinstance(call["args"], dict) else {}
    return ToolCall(call["name"], args, call.get("id") or "", isinstance(call["args"], dict), known)


def with_content(message: BaseMessage, content: object) -> BaseMessage:
    """A copy of a message with other content and the same name; the caller's object is left alone."""
    return message.model_copy(update={"content": content, "id": name_of(message)})
