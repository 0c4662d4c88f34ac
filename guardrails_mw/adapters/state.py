"""The conversation in a graph's state: read in every form that a state holds it in, and written back in its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import cast

from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, convert_to_messages
from langchain_core.messages import ToolCall as HostToolCall
from langgraph.types import Overwrite
from pydantic import BaseModel

from guardrails_mw.adapters.host import channel

__all__ = ["Asked", "as_messages", "asked_of", "by_id", "fields_of", "messages_of", "rewritten"]

_NOWHERE = object()


def as_messages(value: object) -> list[BaseMessage]:
    """Messages in any form that LangGraph takes. Raises `ValueError`, without content, for any other."""
    if isinstance(value, list) and all(isinstance(message, BaseMessage) for message in value):
        return value
    try:
        return list(convert_to_messages(value if isinstance(value, list | tuple) else [value]))  # type: ignore[list-item]
    except (ValueError, TypeError, NotImplementedError, KeyError):
        pass
    raise ValueError("the messages are in a form that LangChain does not know")


def fields_of(state: object) -> Mapping[str, object]:
    """A state's values by key: of a mapping, a model, a dataclass; a conversation has none."""
    if is_dataclass(state):
        return {each.name: getattr(state, each.name) for each in fields(state)}
    return state if isinstance(state, Mapping) else vars(state) if isinstance(state, BaseModel) else {}


def messages_of(state: object, key: str) -> list[BaseMessage]:
    """The conversation in a state, or the state if it is one. Raises `ValueError` where there is none to be found."""
    if isinstance(state, list):
        return as_messages(state)
    found = state.get(key, _NOWHERE) if isinstance(state, Mapping) else getattr(state, key, _NOWHERE)
    if found is _NOWHERE:
        raise ValueError(f"the state has no {key!r}: name the key of its messages, key=...")
    return [] if found is None else as_messages(found)


@dataclass(frozen=True, slots=True)
class Asked:
    """The calls that a tool node runs, and the id of the answer that asked for them, if it was not sent them."""

    calls: Sequence[HostToolCall]
    answer: str = ""

    @property
    def twins(self) -> set[str | None]:
        """The ids that more than one of the calls has."""
        ids = [call["id"] for call in self.calls]
        return {id_ for id_ in ids if ids.count(id_) > 1}


def asked_of(state: object, key: str) -> Asked:
    """What a tool node is asked for: the calls of the last answer, or those that it is sent."""
    if isinstance(state, Mapping) and state.get("__type") == "tool_call_with_context":
        return Asked([cast("HostToolCall", state["tool_call"])])
    if isinstance(state, list) and state and isinstance(state[-1], dict) and state[-1].get("type") == "tool_call":
        return Asked(cast("list[HostToolCall]", state))
    answers = (message for message in reversed(messages_of(state, key)) if isinstance(message, AIMessage))
    last = next(answers, None)
    return Asked(last.tool_calls, last.id or "") if last else Asked(())


def by_id(channel: object) -> bool:
    """Whether a channel of a graph takes messages as `add_messages` does: one with a known id replaces the other."""
    return "messages" in str(getattr(_reducer(channel), "__name__", ""))


def rewritten(
    state: object,
    key: str,
    messages: Sequence[BaseMessage],
    new: Mapping[int, BaseMessage | None],
    more: BaseMessage | None,
) -> object:
    """The update of a state that puts new messages, or none, in the place of old ones, and adds one more.

    Not every state replaces by id: one that only appends would keep what was replaced, beside what replaces it.
    """
    name = "__root__" if isinstance(state, list) else key
    kept, added = channel(name), [more] if more else []
    if kept is None or str(getattr(_reducer(kept), "__module__", "")).startswith("langgraph."):
        changed = [each or RemoveMessage(id=messages[index].id or "") for index, each in new.items()]
        value: object = [*changed, *added]
    else:
        whole = [new.get(index, message) for index, message in enumerate(messages)]
        value = [message for message in [*whole, *added] if message is not None]
        value = Overwrite(value) if _reducer(kept) else value
    return value if name == "__root__" else {key: value}


def _reducer(channel: object) -> object:
    found = getattr(channel, "operator", None) or getattr(channel, "reducer", None)
    return getattr(found, "func", found)  # add_messages(format=...) is a partial of it
