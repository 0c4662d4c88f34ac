"""Diagnostics: what is wrong with a policy file, in the words of the file.

Pydantic reports in terms of its models. The author of a policy gets a line, a field and what is allowed there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from guardrails_mw.document import Document, nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Path as Loc

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["explained", "together"]


def explained(document: Document, model: type[BaseModel], error: ErrorDetails, prefix: Loc = ()) -> PolicyError:
    """A pydantic error in the words of the file.

    Args:
        document: the file.
        model: what was validated.
        error: one of `ValidationError.errors`.
        prefix: where in the file the validated section stands.
    """
    loc: Loc = prefix + tuple(part for part in error["loc"] if part != "[key]")
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        message = f"unknown key; {nearest(str(loc[-1]), _keys_at(model, error['loc'][:-1]))}"
    elif kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        given = error.get("input")
        message = f"{given!r} is not allowed; {nearest(str(given), allowed)}" if allowed else message
    elif kind == "missing":
        message = "this key is required"
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    if loc[:1] == ("stages",) and loc[2:3] == ("gates",) and loc not in document:
        loc = loc[:2] + loc[3:]  # the short form: a stage is a list
    return document.error(loc, message)


def _keys_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys that a section may hold, found by following a path through the models."""
    current: object = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, BaseModel):
            field = next((f for n, f in current.model_fields.items() if part in (n, f.alias)), None)
            current = _model_in(field.annotation) if field else current  # else: a name in a mapping, or an index
    if isinstance(current, type) and issubclass(current, BaseModel):
        return sorted(field.alias or name for name, field in current.model_fields.items())
    return []


def _model_in(annotation: object) -> object:
    """The section model inside ``X | None``, ``list[X]`` or ``dict[str, X]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(item) for item in getattr(annotation, "__args__", ())]
    return next((item for item in inner if item is not None), None)


def together(errors: Sequence[PolicyError]) -> PolicyError:
    """One error that lists them all, in the order of the file."""
    first, *others = sorted(errors, key=lambda error: error.line)
    if not others:
        return first
    rest = "\n".join(str(error) for error in others)
    return PolicyError(f"{first.problem}\n{rest}", file=first.file, line=first.line, field=first.field)
