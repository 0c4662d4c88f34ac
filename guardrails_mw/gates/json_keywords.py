"""The JSON Schema keywords that jsonschema does not do in linear time, done anew.

A schema that refers to itself from several branches multiplies its work at every level of a nested value.
All such work passes through a reference, so references are counted.

Imported only where jsonschema is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Protocol

import re2
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from guardrails_mw.errors import GateError
from guardrails_mw.event import Json
from guardrails_mw.gate import DEADLINE

__all__ = ["MAX_REFERENCES", "Pattern", "TooMuchError", "compiled", "counted", "validator_type"]

MAX_REFERENCES = 300_000
"""References followed for one value; more than a value can have items."""

_Errors = Iterator[ValidationError]


class TooMuchError(Exception):
    """More references than `MAX_REFERENCES` would have to be followed."""


_LEFT: ContextVar[list[int] | None] = ContextVar("guardrails_mw_references_left", default=None)


@contextmanager
def counted() -> Iterator[None]:
    """Bound the references that are followed inside. `TooMuchError` or `GateError` (``deadline``) ends it."""
    token = _LEFT.set([MAX_REFERENCES])
    try:
        yield
    finally:
        _LEFT.reset(token)


class _Descends(Protocol):
    """The validator, as far as a keyword needs it."""

    def descend(self, instance: Json, schema: object, path: str = ..., schema_path: str = ...) -> _Errors:
        """Hold an inner value against an inner schema."""


class Pattern:
    """A pattern that is looked for anywhere in a text. Raises `re2.error` for what RE2 does not know."""

    def __init__(self, source: str) -> None:
        options = re2.Options()
        options.log_errors = False
        self._regexp = re2.compile(source, options)

    def found_in(self, text: str) -> bool:
        """Whether it occurs, in time linear in the text."""
        return self._regexp.search(text) is not None


@cache
def compiled(source: str) -> Pattern:
    """A pattern, compiled once. Patterns come from schemas alone, so there are few."""
    return Pattern(source)


@cache
def validator_type() -> type[Validator]:
    """The Draft 2020-12 validator with the keywords of this module."""
    validators = import_module("jsonschema.validators")
    words = validators.Draft202012Validator.VALIDATORS
    kind: type[Validator] = validators.extend(
        validators.Draft202012Validator,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
            "uniqueItems": _unique_items,
            "$ref": _counting(words["$ref"]),
            "$dynamicRef": _counting(words["$dynamicRef"]),
        },
    )
    return kind


_Keyword = Callable[[object, str, Json, object], _Errors]


def _counting(keyword: _Keyword) -> _Keyword:
    def follow(validator: object, target: str, value: Json, schema: object) -> _Errors:
        left = _LEFT.get()
        if left is not None:
            left[0] -= 1
            if left[0] < 0:
                raise TooMuchError
            if time.perf_counter() > DEADLINE.get():
                raise GateError("deadline")
        yield from keyword(validator, target, value, schema)

    return follow


def _pattern(_validator: object, pattern: str, value: Json, _schema: object) -> _Errors:
    if isinstance(value, str) and not compiled(pattern).found_in(value):
        yield ValidationError("pattern")


def _pattern_properties(validator: _Descends, patterns: Mapping[str, object], value: Json, _schema: object) -> _Errors:
    if not isinstance(value, dict):
        return
    for pattern, schema in patterns.items():
        for key, item in value.items():
            if compiled(pattern).found_in(key):
                yield from validator.descend(item, schema, path=key, schema_path=pattern)


def _additional_properties(
    validator: _Descends, allowed: object, value: Json, schema: Mapping[str, Mapping[str, object]]
) -> _Errors:
    if not isinstance(value, dict):
        return
    named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, item in value.items():
        if key in named or any(compiled(pattern).found_in(key) for pattern in patterns):
            continue
        if allowed is False:
            yield ValidationError("additionalProperties")
            return
        yield from validator.descend(item, allowed, path=key)


def _unique_items(_validator: object, wanted: bool, value: Json, _schema: object) -> _Errors:
    if wanted and isinstance(value, list) and len({_identity(item) for item in value}) < len(value):
        yield ValidationError("uniqueItems")


def _identity(value: Json) -> Hashable:
    """Equal for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        return ("object", frozenset((key, _identity(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(_identity(item) for item in value))
    return ("boolean" if isinstance(value, bool) else "", value)
