"""Values in any form as plain trees of texts, and edited trees in the form that the values had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar

from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import PromptValue
from pydantic import BaseModel

from guardrails_mw.event import Blocks

__all__ = ["in_form_of", "plain"]

O = TypeVar("O")  # noqa: E741 - in and out


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
