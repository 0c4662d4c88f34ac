"""The JSON Schema keywords that jsonschema does not do in linear time, done anew.

Imported only where jsonschema is installed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Protocol

import re2
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator

from guardrails_mw.event import Json

__all__ = ["Pattern", "compiled", "validator_type"]

_Errors = Iterator[ValidationError]


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
    kind: type[Validator] = validators.extend(
        validators.Draft202012Validator,
        {
            "pattern": _pattern,
            "patternProperties": _pattern_properties,
            "additionalProperties": _additional_properties,
            "uniqueItems": _unique_items,
        },
    )
    return kind


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
