"""All that a tool's message carries besides its content, as one tree, and the message with another one in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.messages import ToolCall as HostToolCall

from guardrails_mw.adapters.forms import in_form_of
from guardrails_mw.adapters.messages import no_text
from guardrails_mw.adapters.metadata import added, is_mark, with_added
from guardrails_mw.adapters.proposal import with_calls
from guardrails_mw.event import is_name

__all__ = ["cargo", "labelled", "with_cargo"]

_MARK = "guardrails"
_EMPTY: Mapping[str, object] = {"artifact": None, "invalid_tool_calls": []}
_TABLES = ("additional_kwargs", "response_metadata")


def cargo(message: BaseMessage) -> dict[str, object]:
    """What the message carries, by field; nothing of it is technical where a tool wrote it.

    >>> cargo(ToolMessage("fine", tool_call_id="c1", artifact=[1], note="new"))
    {'artifact': [1], 'fields': {'note': 'new'}}
    """
    found: dict[str, object] = {
        "artifact": getattr(message, "artifact", None),
        "additional_kwargs": _unmarked(message.additional_kwargs),
        "response_metadata": _unmarked(message.response_metadata),
        "fields": added(message),
    }
    if isinstance(message, AIMessage):
        found["tool_calls"] = [call["args"] for call in message.tool_calls]
        found["invalid_tool_calls"] = [dict(call) for call in message.invalid_tool_calls]
    return {name: value for name, value in found.items() if not _is_nothing(value)}


def with_cargo(message: BaseMessage, new: Mapping[str, object]) -> BaseMessage:
    """A copy that carries this instead, in the form that the old had; what `new` lacks is dropped."""
    old = cargo(message)
    held = {name: value for name, value in old.items() if name in new}
    made = in_form_of(held, {name: new[name] for name in held})
    update: dict[str, object] = {name: made.get(name, empty) for name, empty in _EMPTY.items() if name in old}
    for name in _TABLES:
        if name in old:
            kept = {key: value for key, value in getattr(message, name).items() if key == _MARK and is_mark(value)}
            update[name] = {**kept, **cast("dict[str, object]", made.get(name, {}))}
    copy = message.model_copy(update=update)
    copy = with_added(copy, cast("dict[str, object]", made.get("fields", {})))
    if not isinstance(copy, AIMessage) or "tool_calls" not in old:
        return copy
    if "tool_calls" not in made:
        return with_calls(copy, copy.tool_calls).model_copy(update={"tool_calls": []})
    args = cast("list[dict[str, object]]", made["tool_calls"])
    return with_calls(copy, [{**call, "args": each} for call, each in zip(copy.tool_calls, args, strict=True)])


def labelled(message: BaseMessage) -> BaseMessage:
    """The message under names and ids that are such: others might say something, and are kept where no gate looks."""
    update: dict[str, object] = {}
    if message.id and not is_name(message.id):
        update["id"] = no_text(message.id)
    if message.name and not is_name(message.name):
        update["name"] = None
    if isinstance(message, ToolMessage) and not is_name(message.tool_call_id):
        update["tool_call_id"] = no_text(message.tool_call_id)
    if isinstance(message, AIMessage) and any(_odd(call) for call in message.tool_calls):
        update["tool_calls"] = [
            {**call, "name": no_text(call["name"]), "id": no_text(call["id"] or "")} for call in message.tool_calls
        ]
    return message.model_copy(update=update) if update else message


def _odd(call: HostToolCall) -> bool:
    return any(text and not is_name(text) for text in (call["name"], call["id"] or ""))


def _unmarked(table: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in table.items() if not (key == _MARK and is_mark(value))}


def _is_nothing(value: object) -> bool:
    """Whether there is nothing to decide; an artifact may be of a kind that compares in its own way."""
    return value is None or (isinstance(value, str | Mapping | Sequence) and len(value) == 0)
