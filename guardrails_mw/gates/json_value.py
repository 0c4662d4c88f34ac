"""From a text or a Python value to a bounded JSON value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import re2

from guardrails_mw.event import Json

__all__ = ["MAX_CHARS", "MAX_DEPTH", "MAX_NODES", "UnfitError", "json_text", "json_value"]

MAX_CHARS = 1_000_000
"""Characters of a text that is parsed; no model answers more."""
MAX_DEPTH = 64
"""Levels of nesting."""
MAX_NODES = 200_000
"""Values of all kinds in one value."""

_FENCE = re2.compile(r"(?s)```[A-Za-z0-9_+-]*[ \t]*\r?\n(.*?)\r?\n?[ \t]*```")
_NOTES = {
    "not_json": "It must be one valid JSON value and nothing else.",
    "too_large": "It must be much shorter.",
    "too_deep": "It must not be nested so deeply.",
}


class UnfitError(ValueError):
    """Not a JSON value within the bounds; `code` is ``not_json``, ``too_large`` or ``too_deep``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code, self.note = code, _NOTES[code]


def json_text(text: str) -> Json:
    r"""Parse a text; one code fence around all of it is taken off, and a key may stand only once.

    Raises:
        UnfitError: it is no JSON, or beyond the bounds.

    >>> json_text('```json\n{"a": 1}\n```')
    {'a': 1}
    """
    if len(text) > MAX_CHARS:
        raise UnfitError("too_large")
    bare = text.strip()
    fenced = _FENCE.fullmatch(bare) if bare.startswith("```") else None
    try:
        value = json.loads(fenced.group(1) if fenced else bare, parse_constant=_constant, object_pairs_hook=_mapping)
    except UnfitError:
        raise
    except RecursionError:
        raise UnfitError("too_deep") from None
    except ValueError:  # also for integers of too many digits
        raise UnfitError("not_json") from None
    return json_value(value)


def json_value(value: object) -> Json:
    """A copy of a value in plain dicts and lists. Raises `UnfitError` when it is no JSON, or beyond the bounds."""
    return _Copier().copy(value, 0)


class _Copier:
    def __init__(self) -> None:
        self._nodes = 0

    def copy(self, value: object, depth: int) -> Json:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise UnfitError("too_large")
        if depth > MAX_DEPTH:
            raise UnfitError("too_deep")
        if isinstance(value, str):
            return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {str(self.copy(key, depth)): self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.copy(item, depth + 1) for item in value]
        raise UnfitError("not_json")


def _constant(_name: str) -> Json:
    raise UnfitError("not_json")  # NaN and Infinity are Python's, not JSON's


def _mapping(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise UnfitError("not_json")  # readers differ in which of the two they take
    return result
