"""What a host passed around, as plain JSON values of a bounded size, taken before anybody can change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["snapshot"]

_CHARACTERS = 16_000
_VALUES = 2_000
_DEPTH = 16
_CUT = "…"
_MESSAGE = ("name", "tool_calls", "tool_call_id")
_COMMANDS = ("Command", "Send", "Interrupt")
_COMMAND = ("resume", "update", "goto", "node", "arg", "value")


def snapshot(value: object) -> object:
    """A copy that shares only texts with the original.

    Chat messages become ``{"role", "content", ...}``; what JSON has no form for becomes its type's name.
    Once about 16,000 characters or 2,000 values are reached the rest is a ``…``.

    >>> snapshot({"n": 1, "at": {"x": (True, b"raw")}})
    {'n': 1, 'at': {'x': [True, '<bytes>']}}
    """
    return _Walk().copy(value, 0)


class _Walk:
    def __init__(self) -> None:
        self._characters, self._values = _CHARACTERS, _VALUES

    def copy(self, value: object, depth: int) -> object:
        self._values -= 1
        if self._values < 0 or self._characters < 0 or depth > _DEPTH:
            return _CUT
        if isinstance(value, str):
            self._characters -= len(value)
            return value
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._items(list(value), depth)
        known = _fields(value)
        return f"<{type(value).__name__}>" if known is None else self._mapping(known, depth)

    def _mapping(self, value: Mapping[object, object], depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        for key, item in value.items():
            if self._values < 0 or self._characters < 0:
                result[_CUT] = _CUT
                break
            result[str(key)] = self.copy(item, depth + 1)
        return result

    def _items(self, values: Sequence[object], depth: int) -> list[object]:
        result: list[object] = []
        for item in values:
            if self._values < 0 or self._characters < 0:
                result.append(_CUT)
                break
            result.append(self.copy(item, depth + 1))
        return result


def _fields(value: object) -> Mapping[object, object] | None:
    """A chat message, a document or a command by what it is made of; None for anything else."""
    fields: Mapping[object, object] = getattr(value, "__dict__", {})  # asking a message for what it lacks is slow
    if "content" in fields and "type" in fields:
        shown: dict[object, object] = {"role": fields["type"], "content": fields["content"]}
        shown.update((name, fields[name]) for name in _MESSAGE if fields.get(name))
        return shown
    if "page_content" in fields:
        return {"content": fields["page_content"], "metadata": fields.get("metadata")}
    if type(value).__name__ in _COMMANDS:
        return {name: item for name in _COMMAND if (item := getattr(value, name, None))}
    return None
