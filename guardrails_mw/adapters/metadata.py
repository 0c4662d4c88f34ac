"""What providers, tools and clients put beside a message: what of it is technical, and what may say something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from langchain_core.messages import AIMessage, BaseMessage

from guardrails_mw.event import is_name, is_sealed

__all__ = ["folded", "metadata", "telling", "unfolded", "unscored", "with_metadata"]

M = TypeVar("M", bound=BaseMessage)

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


def metadata(message: BaseMessage) -> dict[str, object]:
    """What a message's metadata may say: all of it but technical values under the names that providers use.

    Scores of tokens are left out as well: they repeat the content, and go when it is edited (`unscored`).

    >>> from langchain_core.messages import AIMessage
    >>> metadata(AIMessage("", response_metadata={"model_name": "m-1", "cited": "a page"}))
    {'cited': 'a page'}
    """
    return {
        key: value
        for key, value in message.response_metadata.items()
        if not _is_slight(key, value)
        and key != "guardrails"
        and not (key == _SCORES and isinstance(message, AIMessage))
        and not (key in _TECHNICAL and _is_technical(value))
    }


def with_metadata(message: M, new: Mapping[str, object]) -> M:
    """A copy with this in place of what its metadata may say."""
    free = metadata(message)
    if not free:
        return message
    rest = {key: value for key, value in message.response_metadata.items() if key not in free}
    return unscored(message.model_copy(update={"response_metadata": {**rest, **new}}))


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
