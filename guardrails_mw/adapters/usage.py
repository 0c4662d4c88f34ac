"""What a model call used: the tokens that its provider reports, and estimates where it reports none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from langchain_core.messages import AIMessage, BaseMessage

from guardrails_mw.tokens import tokens
from guardrails_mw.verdict import Outcome, Usage

__all__ = ["length", "offered", "outcome", "size"]

_MOST_TOKENS = 10**12  # more than that no call can have used, and stores could not count
_OFFERS = ("tools", "functions", "response_format", "format")
"""Arguments of a model call that providers hand to the model as text."""
_REPEATED = ("tool_calls", "function_call")
_CALLS = frozenset({"tool_use", "function_call", "tool_call", "tool_call_chunk"})
_OPAQUE = frozenset(
    {
        "image", "image_url", "input_image", "audio", "input_audio", "video", "file", "input_file", "document", "media",
        "text-plain",
    }
)  # fmt: skip
_LEAST, _CHARACTERS = 1_600, 16
"""Tokens of a picture or a document, or one for so many characters of it; about the most that providers count."""
_REPORTS = (("input_tokens", "output_tokens"), ("prompt_tokens", "completion_tokens"))
"""How providers spell their figures where LangChain has not put them into its own form."""


def outcome(
    answers: Sequence[BaseMessage], asked: int, seconds: float, *, told: object = None, cached: bool = False
) -> Outcome:
    """How a model call ended.

    Args:
        answers: all that it gave; providers report the tokens of all of them with each.
        asked: estimated tokens of what went in.
        seconds: how long it took.
        told: what the host says of the call besides, perhaps with the figures of its provider.
        cached: whether the host may have answered from a cache. LangChain then says that it cost nothing, and
            repeats the old figures.
    """
    if not answers:
        return Outcome("done", seconds)
    first = answers[0]
    figures = first.usage_metadata if isinstance(first, AIMessage) else None
    if cached and figures and figures.get("total_cost") == 0:
        used: Usage | None = Usage()
    else:
        used = _usage(figures) or _told(first.response_metadata) or _told(told)
    used = used or Usage(asked, size(*answers), estimated=True)
    return Outcome("done", seconds, used, str(first.response_metadata.get("model_name") or ""))


def _usage(told: object) -> Usage | None:
    """What LangChain's form of a usage says; None where that cannot be. By zeros servers mean that they do not know."""
    if not isinstance(told, Mapping):
        return None
    asked, said = _count(told.get("input_tokens")), _count(told.get("output_tokens"))
    if asked is None or said is None or asked + said == 0:
        return None
    into, out = told.get("input_token_details"), told.get("output_token_details")
    kept = _sum(into, "cache_creation")  # Anthropic's are also told by how long they last
    written = min(asked, max(kept, _sum(into, "_input_tokens", start="ephemeral")))
    read = min(asked - written, _sum(into, "cache_read"))
    reasoning = min(said, _sum(out, "reasoning"))
    return Usage(
        input_tokens=asked,
        output_tokens=said,
        cached_tokens=read,
        cache_write_tokens=written,
        audio_input_tokens=min(asked - written - read, _sum(into, "audio")),
        reasoning_tokens=reasoning,
        audio_output_tokens=min(said - reasoning, _sum(out, "audio")),
    )


def _told(told: object) -> Usage | None:
    """The figures in what a provider says of an answer, in its own words."""
    if not isinstance(told, Mapping):
        return None
    for figures in (told.get("token_usage"), told.get("usage")):
        if not isinstance(figures, Mapping):
            continue
        for into, out in _REPORTS:
            used = _usage({"input_tokens": figures.get(into), "output_tokens": figures.get(out)})
            if used is not None:
                return used
    return None


def _sum(details: object, name: str, start: str = "") -> int:
    """The figures whose names end so; service tiers stand before the name, as in ``priority_cache_read``."""
    if not isinstance(details, Mapping):
        return 0
    found = (each for key, each in details.items() if str(key).endswith(name) and str(key).startswith(start))
    return sum(_count(each) or 0 for each in found)


def _count(told: object) -> int | None:
    """A number of tokens, if it can be one: a negative one would give money back."""
    return told if isinstance(told, int) and 0 <= told <= _MOST_TOKENS else None


def size(*messages: BaseMessage) -> int:
    """An estimate of the tokens in messages: what they say, what they call, and what stands beside it."""
    return sum(map(_size, messages))


def _size(message: BaseMessage) -> int:
    calls: list[object] = [*getattr(message, "tool_calls", ()), *getattr(message, "invalid_tool_calls", ())]
    beside = {k: v for k, v in message.additional_kwargs.items() if not calls or k not in _REPEATED}
    more = tokens([json.dumps(each, default=str, ensure_ascii=False) for each in [beside, *calls] if each])
    if isinstance(message.content, str):
        return more + tokens([message.content])
    return more + tokens([""]) + sum(_weight(block) for block in message.content if not (calls and _calls(block)))


def _calls(block: object) -> bool:
    """Whether a content block repeats a call."""
    return isinstance(block, Mapping) and str(block.get("type")) in _CALLS


def _weight(value: object) -> int:
    """The tokens of a content block, or of a part of one."""
    if isinstance(value, str):
        return tokens([value])
    if isinstance(value, Mapping):
        weight = sum(_weight(each) for key, each in value.items() if key != "type")
        if str(value.get("type")) not in _OPAQUE:
            return weight
        source = value.get("source")
        texts = isinstance(source, Mapping) and source.get("type") in ("text", "content")
        return max(_LEAST, weight if texts or isinstance(value.get("text"), str) else weight * 4 // _CHARACTERS)
    return sum(map(_weight, value)) if isinstance(value, Sequence) and not isinstance(value, bytes) else 0


def offered(call: Mapping[str, object]) -> int:
    """An estimate of the tokens in what a call tells a model besides messages: its tools, the form of the answer.

    >>> offered({"tools": [{"name": "look"}]}), offered({"temperature": 0})
    (9, 0)
    """
    return tokens([json.dumps(call[name], default=str) for name in _OFFERS if call.get(name)])


def length(limit: object) -> int:
    """The longest answer that a limit allows; 0 where it is none: providers write 0, -1 or None for that."""
    try:
        return max(0, int(limit))  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return 0
