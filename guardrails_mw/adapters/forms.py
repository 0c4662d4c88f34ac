"""Values in any form as plain trees of texts, and edited trees in the form that the values had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from guardrails_mw.adapters.chunks import last, settled
from guardrails_mw.adapters.metadata import added, metadata, telling, unscored, with_added, with_fields, with_metadata
from guardrails_mw.adapters.proposal import with_calls
from guardrails_mw.event import Blocks, is_name

__all__ = ["in_form_of", "plain"]

O = TypeVar("O")  # noqa: E741 - in and out


def plain(value: object, *, beside: bool = True) -> object:
    """What messages, prompts and models in a value say, as mappings, lists and texts.

    A message is its content, or a mapping that has it as ``content`` where more stands `beside` it.
    """
    if isinstance(value, BaseMessage):
        content = value.content if isinstance(value.content, str) else Blocks(value.content)
        more = _beside(value) if beside else {}
        return {"content": content, **more} if more else content
    if isinstance(value, PromptValue):
        return [plain(message, beside=beside) for message in value.to_messages()]
    if isinstance(value, BaseModel):
        return {str(name): plain(item, beside=beside) for name, item in _fields(value).items()}
    if is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item, beside=beside) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, beside=beside) for item in value]
    return value


def in_form_of(original: O, new: object) -> O:
    """The edited values in the form of the original."""
    result: object = new
    if isinstance(original, BaseMessage):
        result = _saying(original, new)
    elif isinstance(original, PromptValue):
        from langchain_core.prompt_values import ChatPromptValue

        assert isinstance(new, list)
        result = ChatPromptValue(messages=[in_form_of(m, n) for m, n in zip(original.to_messages(), new, strict=True)])
    elif isinstance(original, BaseModel) and isinstance(new, Mapping):
        old = _fields(original)
        result = with_fields(original, old, in_form_of(old, new))
    elif isinstance(original, Mapping) and isinstance(new, Mapping):
        pairs = zip(new.items(), original.values(), strict=True)
        result = {key: in_form_of(old, value) for (key, value), old in pairs}
    elif is_dataclass(original) and not isinstance(original, type) and isinstance(new, Mapping):
        changes = {each.name: in_form_of(getattr(original, each.name), new[each.name]) for each in fields(original)}
        result = replace(original, **{each.name: changes[each.name] for each in fields(original) if each.init})
    elif isinstance(original, set | frozenset) and isinstance(new, list):
        result = type(original)(in_form_of(o, n) for o, n in zip(original, new, strict=True))
    elif isinstance(original, list | tuple) and isinstance(new, list):
        items = [in_form_of(o, n) for o, n in zip(original, new, strict=True)]
        result = items if isinstance(original, list) else getattr(original, "_make", tuple)(items)
    return result  # type: ignore[return-value]


def _fields(model: BaseModel) -> dict[str, object]:
    """All that a model holds, also what its dump would leave out, such as fields of a subclass further in."""
    return {**vars(model), **(model.model_extra or {})}


def _beside(message: BaseMessage) -> dict[str, object]:
    """What a message says besides its content. Signatures are no text."""
    found: dict[str, object] = {
        "name": message.name if message.name and not is_name(message.name) else None,
        "additional_kwargs": telling(message.additional_kwargs),
        "response_metadata": metadata(message),
        "artifact": plain(getattr(message, "artifact", None)),
        "fields": plain(added(message)),
    }
    if isinstance(message, AIMessage):
        found["tool_calls"] = [call["args"] for call in message.tool_calls]
        found["invalid_tool_calls"] = [dict(call) for call in message.invalid_tool_calls]
    return {key: value for key, value in found.items() if value}


def _saying(message: BaseMessage, new: object) -> BaseMessage:
    """A copy of a message that says this instead."""
    message = unscored(message)
    if not isinstance(new, Mapping):
        return message.model_copy(update={"content": new})
    update: dict[str, object] = {"content": new["content"]}
    if "name" in new:
        update["name"] = new["name"]
    message = with_added(message, in_form_of(added(message), cast("dict[str, object]", new.get("fields", {}))))
    if "artifact" in new:
        update["artifact"] = in_form_of(getattr(message, "artifact", None), new["artifact"])
    if "additional_kwargs" in new:
        read = telling(message.additional_kwargs)
        rest = {key: value for key, value in message.additional_kwargs.items() if key not in read}
        update["additional_kwargs"] = {**rest, **new["additional_kwargs"]}
    told = with_metadata(message, new.get("response_metadata", {})).model_copy(update=update)
    return _calling(told, new) if isinstance(told, AIMessage) else told


def _calling(message: AIMessage, new: Mapping[str, object]) -> AIMessage:
    """An answer with the arguments of its calls replaced, in whichever form it holds them."""
    args, invalid = cast("list[dict[str, object]]", new.get("tool_calls", [])), new.get("invalid_tool_calls", [])
    calls = [{**call, "args": each} for call, each in zip(message.tool_calls, args, strict=True)]
    if calls == message.tool_calls and invalid == message.invalid_tool_calls:
        return message
    whole = settled(message)
    whole = with_calls(whole.model_copy(update={"invalid_tool_calls": invalid}), cast("list[ToolCall]", calls))
    return cast("AIMessage", last(whole, None).message) if isinstance(message, AIMessageChunk) else whole
