"""What providers, tools and clients put beside a message: what of it is technical, and what may say something."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel

from guardrails_mw.event import is_name, is_sealed

__all__ = [
    "added",
    "folded",
    "is_mark",
    "metadata",
    "technical",
    "telling",
    "unfolded",
    "unscored",
    "with_added",
    "with_fields",
    "with_metadata",
]

M = TypeVar("M", bound=BaseMessage)
P = TypeVar("P", bound=BaseModel)

_WORD = re.compile(r"(?![0-9_.:/ -]{9,}$)[A-Za-z0-9_.:/ -]{0,128}", re.ASCII)
_TECHNICAL = frozenset(
    {
        "created", "created_at", "done", "done_reason", "eval_duration", "finish_reason", "id", "load_duration",
        "model", "model_id", "model_name", "model_provider", "object", "prompt_eval_duration", "prompt_feedback",
        "safety_ratings", "service_tier", "status", "stop_reason", "stop_sequence", "system_fingerprint",
        "token_usage", "total_duration", "usage", "usage_metadata",
    }
)  # fmt: skip
_SCORES = "logprobs"
_MARK = frozenset({"action", "decision", "stage", "gate", "reason", "remedy"})


def added(message: BaseMessage) -> dict[str, object]:
    """What a message says in fields that are not LangChain's: those of its own class, and those that it was made with.

    The role that a message names for itself is one, unless it is a name.

    >>> from langchain_core.messages import ChatMessage
    >>> added(ChatMessage("hi", role="critic", note="be kind", turn=1))
    {'note': 'be kind'}
    """
    own, more = _own_fields(type(message)), message.model_extra
    if not own and not more:
        return {}
    found = {name: getattr(message, name, None) for name in own} | (more or {})
    return {
        name: value
        for name, value in found.items()
        if not _is_slight(name, value) and not (name == "role" and is_name(str(value)))
    }


@lru_cache(maxsize=256)
def _own_fields(kind: type[BaseMessage]) -> tuple[str, ...]:
    """The names of fields that LangChain does not give to messages of this class."""
    theirs = next(each for each in kind.__mro__ if each.__module__.startswith("langchain_core.messages"))
    return tuple(name for name in kind.model_fields if name == "role" or name not in theirs.model_fields)  # type: ignore[attr-defined]


def with_added(message: M, new: Mapping[str, object]) -> M:
    """A copy with this in place of what it `added`, one for one and perhaps under other names; or without any of it."""
    old = added(message)
    if not old or new:
        return with_fields(message, old, new) if old else message
    own = {name: _nothing(value) for name, value in old.items() if name in type(message).model_fields}
    bare = message.model_copy(update=own)
    if bare.model_extra:
        bare.model_extra.clear()
    return bare


def with_fields(model: P, old: Iterable[str], new: Mapping[str, object]) -> P:
    """A copy of a model with these fields in place of the old ones, in their order.

    Names may differ, but not of fields that its class declares. They are not validated: what stands in for a value that
    was hidden need not look like one.
    """
    copy, more = model.model_copy(), dict(model.model_extra or {})
    for name, (called, value) in zip(old, new.items(), strict=True):
        if name in more:
            del more[name]
            more[called] = value
        else:
            vars(copy)[name] = value
    if copy.model_extra is not None:
        copy.model_extra.clear()
        copy.model_extra.update(more)
    return copy


def _nothing(value: object) -> object:
    return "" if isinstance(value, str) else [] if isinstance(value, list) else {} if isinstance(value, dict) else None


def is_mark(value: object) -> bool:
    """Whether this says of a block what a guard says of it: names and codes. Anybody may write under its key.

    >>> is_mark({"action": "block", "reason": "tool.unknown"}), is_mark({"reason": "Buy now"})
    (True, False)
    """
    return isinstance(value, Mapping) and all(key in _MARK and is_name(str(item)) for key, item in value.items())


def metadata(message: BaseMessage) -> dict[str, object]:
    """What a message's metadata may say: all of it but technical values under the names that providers use.

    Scores of tokens are left out as well: they repeat the content, and go when it is edited (`unscored`).

    >>> from langchain_core.messages import AIMessage
    >>> metadata(AIMessage("", response_metadata={"model_name": "m-1", "cited": "a page"}))
    {'cited': 'a page'}
    """
    scored = isinstance(message, AIMessage)  # by others they are no scores
    return {
        key: value
        for key, value in message.response_metadata.items()
        if _may_say(key, value) and not (scored and key == _SCORES)
    }


def technical(told: Mapping[str, object]) -> dict[str, object]:
    """What providers tell of a call without a word that could say something; scores of tokens are such words."""
    return {key: value for key, value in told.items() if not _may_say(key, value)}


def telling(kwargs: Mapping[str, object]) -> dict[str, object]:
    """What additional keys of a message may say: all of them but signatures, which are not text.

    >>> telling({"refusal": None, "reasoning_content": "Let me see", "thought_signature": "Q2Fu" * 40})
    {'reasoning_content': 'Let me see'}
    """
    return {key: value for key, value in kwargs.items() if not (_is_slight(key, value) or _is_signature(key, value))}


def _is_slight(key: str, value: object) -> bool:
    """Whether this is too little to tell of anybody: nothing, yes or no, or a small number, under a name."""
    return is_name(key) and (not value or (isinstance(value, int | float) and abs(value) < 100_000))


def _is_signature(key: str, value: object) -> bool:
    if isinstance(value, Mapping):
        return all(is_name(str(name)) and _is_signature(key, item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_signature(key, item) for item in value)
    return ("signature" in key or "encrypted" in key) and isinstance(value, str) and is_sealed(value)


def _may_say(key: str, value: object) -> bool:
    if _is_slight(key, value) or (key == "guardrails" and is_mark(value)):
        return False
    return not (key in _TECHNICAL and _is_technical(value))


def with_metadata(message: M, new: Mapping[str, object]) -> M:
    """A copy with this in place of what its metadata may say."""
    free = metadata(message)
    if not free:
        return message
    rest = {key: value for key, value in message.response_metadata.items() if key not in free}
    return unscored(message.model_copy(update={"response_metadata": {**rest, **new}}))


def _is_technical(value: object) -> bool:
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if isinstance(value, Mapping):
        return all(_is_technical(key) and _is_technical(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_technical(item) for item in value)
    return value is None or isinstance(value, bool | int | float)


def unscored(message: M) -> M:
    """A message without the scores of its tokens, which spell its text."""
    update: dict[str, object] = {}
    if _SCORES in message.response_metadata:
        update["response_metadata"] = {k: v for k, v in message.response_metadata.items() if k != _SCORES}
    if isinstance(message.content, list) and any(isinstance(b, dict) and _SCORES in b for b in message.content):
        update["content"] = [
            {k: v for k, v in block.items() if k != _SCORES} if isinstance(block, dict) else block
            for block in message.content
        ]
    return message.model_copy(update=update) if update else message


def folded(message: M, info: Mapping[str, object] | None) -> M:
    """A message with what was said about its generation in its metadata, where LangChain will put it."""
    return message.model_copy(update={"response_metadata": {**info, **message.response_metadata}}) if info else message


def unfolded(message: BaseMessage, info: Mapping[str, object] | None) -> dict[str, object] | None:
    """What may be said about a generation, once its message is decided."""
    kept = message.response_metadata
    return {key: kept[key] for key in info if key in kept} if info is not None else None
