"""The calls that a model proposes, in every place where an answer holds their arguments.

Providers repeat a call's arguments in content blocks (`tool_use`, `function_call`, `tool_call`) and beside the
content. A copy of a call is a call: it is decided as one, and an edit reaches every copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages import ToolCall as HostToolCall

from guardrails_mw.adapters.metadata import unscored
from guardrails_mw.event import is_name

__all__ = ["call_blocks", "said", "with_calls", "with_said"]

_KINDS = frozenset({"tool_use", "function_call", "tool_call", "tool_call_chunk"})
_ARGS = ("input", "arguments", "args", "partial_json")
_KNOWN = frozenset({"type", "id", "call_id", "name", "index", "status", *_ARGS})


def call_blocks(message: BaseMessage) -> dict[int, HostToolCall]:
    """The content blocks, by index, that say what one of the message's calls says and nothing else.

    >>> use = {"type": "tool_use", "id": "1", "name": "look", "input": {"q": "x"}}
    >>> call = {"name": "look", "args": {"q": "x"}, "id": "1"}
    >>> sorted(call_blocks(AIMessage([{"type": "text", "text": "Let me see"}, use], tool_calls=[call])))
    [1]
    """
    return {index: call for index, call in _blocks(message).items() if _copies(message.content[index], call)}


def said(message: BaseMessage) -> str | list[object]:
    """The content without the copies of calls: what the answer says."""
    if isinstance(message.content, str):
        return message.content
    copies = call_blocks(message)
    return [block for index, block in enumerate(message.content) if index not in copies]


def with_said(message: BaseMessage, new: object) -> object:
    """The content with what it `said` replaced, block by block, and the copies of calls where they were."""
    if not isinstance(message.content, list) or not isinstance(new, list):
        return new
    copies, rest = call_blocks(message), iter(new)
    return [block if index in copies else next(rest) for index, block in enumerate(message.content)]


def with_calls(message: AIMessage, calls: Sequence[HostToolCall]) -> AIMessage:
    """A copy with these calls in place of the message's own, one for one, also in the blocks that repeat them."""
    blocks, content = _blocks(message), message.content
    new = {id(old): call for old, call in zip(message.tool_calls, calls, strict=True)}
    if isinstance(content, list):
        content = [
            _rewritten(block, new[id(blocks[index])]) if index in blocks else block
            for index, block in enumerate(content)
        ]
    beside = {k: v for k, v in message.additional_kwargs.items() if k not in ("tool_calls", "function_call")}
    copy = message.model_copy(update={"content": content, "tool_calls": list(calls), "additional_kwargs": beside})
    return unscored(copy)  # some providers score the tokens of calls too


def _blocks(message: BaseMessage) -> dict[int, HostToolCall]:
    """The content blocks that go under the id of one of the message's calls, and that call."""
    if not isinstance(message, AIMessage) or not message.tool_calls or isinstance(message.content, str):
        return {}
    left: dict[str, list[HostToolCall]] = {}
    for call in message.tool_calls:
        left.setdefault(call["id"] or "", []).append(call)
    found: dict[int, HostToolCall] = {}
    for index, block in enumerate(message.content):
        if isinstance(block, Mapping) and str(block.get("type")) in _KINDS:
            calls = left.get(str(block.get("call_id") or block.get("id") or ""))
            if calls:
                found[index] = calls.pop(0) if len(calls) > 1 else calls[0]
    return found


def _copies(block: object, call: HostToolCall) -> bool:
    if not isinstance(block, Mapping) or not set(block) <= _KNOWN or block.get("name") not in (None, call["name"]):
        return False
    if not all(isinstance(block.get(key), int | None) or is_name(str(block[key])) for key in _KNOWN.difference(_ARGS)):
        return False
    return all(_parsed(block[name]) == call["args"] for name in _ARGS if block.get(name))


def _parsed(args: object) -> object:
    if not isinstance(args, str):
        return args
    try:
        return json.loads(args)
    except (ValueError, RecursionError):
        return args


def _rewritten(block: str | dict[str, object], call: HostToolCall) -> str | dict[str, object]:
    """The block with the call's name and arguments, in the form it had them in."""
    assert isinstance(block, Mapping)
    text = json.dumps(call["args"], ensure_ascii=False, default=str)
    return {
        key: (text if isinstance(value, str) else call["args"])
        if key in _ARGS
        else (call["name"] if key == "name" else value)
        for key, value in block.items()
    }
