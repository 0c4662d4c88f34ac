"""Answers, arguments and results that must have a shape: by JSON Schema or by a pydantic model.

What is told to the model on a re-ask names places and expectations, which the schema's author wrote, and
never values or keys, which the model did.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal, Protocol

from pydantic import Field, JsonValue, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, Json, Stage
from guardrails_mw.gate import Cost, Gate, GateConfig, Site
from guardrails_mw.gates.importing import imported
from guardrails_mw.gates.json_schema import MAX_PROBLEMS, SchemaCheck, named_keys, safe_path
from guardrails_mw.gates.json_value import UnfitError, json_text, json_value
from guardrails_mw.verdict import Remedy, Verdict

__all__ = ["JsonSchemaConfig", "JsonSchemaGate", "PydanticConfig", "PydanticGate", "SchemaCheck"]


class _ShapeConfig(GateConfig):
    on_fail: Literal["block", "flag", "reask"] = "block"
    """What an answer that does not fit means; `reask` blocks it and tells the model what to repair."""
    max_reasks: int = Field(default=1, ge=0, le=5)
    """How often the model is asked again before the block stands."""


class JsonSchemaConfig(_ShapeConfig):
    """The keys of a `json_schema` gate."""

    type: Literal["json_schema"] = "json_schema"
    schema_: str | dict[str, JsonValue] = Field(alias="schema")
    """A JSON file (relative to the policy), or the schema itself. Draft 2020-12, references inside it only."""


class PydanticConfig(_ShapeConfig):
    """The keys of a `pydantic` gate."""

    type: Literal["pydantic"] = "pydantic"
    model: str = Field(min_length=1)
    """Import path of the model: ``package.module:Name``."""


class Shape(Protocol):
    """Says what is wrong with a JSON value."""

    def problems(self, value: Json) -> list[str]:
        """Messages that hold no content; empty when the value fits."""


class _ShapeGate(Gate):
    """What both gates do; they differ in the shape alone.

    Reasons: ``schema.not_json``, ``schema.too_large``, ``schema.too_deep``, ``schema.invalid``.

    Args:
        name: the gate's name in the policy.
        shape: what the content is held against.
        on_fail: ``block``, ``flag`` or ``reask``.
        max_reasks: how often a seam may ask again.
    """

    joins: ClassVar[bool] = False  # it does so itself
    cost = Cost.BLOCKING  # a schema's author can write what is not linear in the value

    def __init__(self, name: str, shape: Shape, on_fail: str = "block", max_reasks: int = 1) -> None:
        super().__init__(name)
        self.max_reasks = max_reasks if on_fail == "reask" else 0
        self._shape, self._on_fail = shape, on_fail

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It only blocks."""
        return frozenset({"block"})

    def check(self, event: Event) -> Verdict:
        """Hold the content against the shape."""
        if _unsaid(event):
            return Verdict.allow()
        try:
            value = _value(event)
        except UnfitError as unfit:
            return self._fail(f"schema.{unfit.code}", unfit.note)
        problems = self._shape.problems(value)
        if not problems:
            return Verdict.allow()
        return self._fail("schema.invalid", "It does not have the required form: " + "; ".join(problems) + ".")

    def _fail(self, reason: str, note: str) -> Verdict:
        if self._on_fail == "flag":
            return Verdict.flag(reason)
        if self._on_fail == "reask":
            return Verdict.block(reason, remedy=Remedy.REASK, note=note)
        return Verdict.block(reason)


class JsonSchemaGate(_ShapeGate):
    """Blocks, flags or sends back what does not fit a JSON Schema."""

    config_type: ClassVar[type[GateConfig]] = JsonSchemaConfig

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> JsonSchemaGate:
        """Read and check the schema. Raises `PolicyError` for a schema that cannot be used as it stands."""
        assert isinstance(config, JsonSchemaConfig)
        return cls(site.name, SchemaCheck.from_file(config.schema_, site.base), config.on_fail, config.max_reasks)


class PydanticGate(_ShapeGate):
    """Blocks, flags or sends back what a pydantic model does not accept."""

    config_type: ClassVar[type[GateConfig]] = PydanticConfig

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> PydanticGate:
        """Import the model. Raises `PolicyError` when there is none of that name."""
        assert isinstance(config, PydanticConfig)
        return cls(site.name, ModelShape(config.model), config.on_fail, config.max_reasks)


class ModelShape:
    """A pydantic model, or any other class that pydantic can validate, as a shape.

    Args:
        path: ``package.module:Name``.

    Raises:
        PolicyError: nothing of that name, or pydantic makes nothing of it.
    """

    def __init__(self, path: str) -> None:
        target = imported(path, field="model")
        if not isinstance(target, type):
            raise PolicyError(f"{path!r} is not a class; name a pydantic model", field="model")
        try:
            self._adapter: TypeAdapter[object] = TypeAdapter(target)
            self._known = named_keys(self._adapter.json_schema())
        except (PydanticUserError, PydanticSerializationError) as error:
            raise PolicyError(f"pydantic cannot use {path!r}: {type(error).__name__}", field="model") from None

    def problems(self, value: Json) -> list[str]:
        """Messages that hold no content; empty when the model accepts the value, read as JSON."""
        try:
            self._adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False, include_context=False)
            return _unique(f"at {safe_path(each['loc'], self._known)}: {_expected(each)}" for each in details)
        return []


_SPEAKABLE = frozenset(
    {
        "missing", "extra_forbidden", "model_type", "model_attributes_type", "dict_type", "list_type", "tuple_type",
        "set_type", "string_type", "bool_type", "bool_parsing", "int_type", "int_parsing", "int_from_float",
        "float_type", "float_parsing", "none_required", "literal_error", "enum", "greater_than", "greater_than_equal",
        "less_than", "less_than_equal", "multiple_of", "finite_number", "string_too_short", "string_too_long",
        "string_pattern_mismatch", "too_short", "date_type", "datetime_type", "decimal_type", "decimal_parsing",
        "decimal_max_digits", "decimal_max_places", "uuid_type", "url_type", "dataclass_type",
    }
)  # fmt: skip
"""Pydantic errors whose message is made of the model's own words; others may quote the value."""


def _expected(detail: Mapping[str, object]) -> str:
    return str(detail["msg"]) if detail["type"] in _SPEAKABLE else "not accepted"


def _unique(messages: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(messages))[:MAX_PROBLEMS]


def _unsaid(event: Event) -> bool:
    """Whether this is only what a provider puts beside an answer that is yet to come."""
    value = event.content.value
    if event.stage is not Stage.OUTPUT or not (event.content.blocks and isinstance(value, list) and len(value) == 1):
        return False
    return isinstance(value[0], Mapping) and "beside" in value[0]


def _value(event: Event) -> Json:
    """What the event carries as a JSON value. Raises `UnfitError`."""
    if event.tool is not None and event.stage is Stage.TOOL_CALL:
        if not event.tool.valid:
            raise UnfitError("not_json")
        # the content is where edits arrive; a seam that has put none there leaves the call's own arguments
        content = event.content.value
        return json_value(content if isinstance(content, Mapping) else event.tool.args)
    text = _text(event.content)
    return json_value(event.content.value) if text is None else json_text(text)


def _text(content: Content) -> str | None:
    """The text of a message; None where the content is a structured value already."""
    if isinstance(content.value, str):
        return content.value
    if not (content.blocks and isinstance(content.value, list | tuple)):
        return None
    pieces = []
    for block in content.value:
        if isinstance(block, str):
            pieces.append(block)
        elif isinstance(block, Mapping) and block.get("type") in ("text", "output_text"):
            pieces.append(str(block.get("text", "")))
    return "".join(pieces)
