"""The JSON Schema of a policy file, for editors: the policy's own keys and those of every gate type."""

from __future__ import annotations

from typing import cast

from guardrails_mw.gate import GateTypes
from guardrails_mw.policy import Policy

__all__ = ["policy_schema"]

Schema = dict[str, object]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def policy_schema(types: GateTypes | None = None) -> Schema:
    """The schema (Draft 2020-12) of a policy with these gate types; the installed ones if left out.

    It says what a file may hold. Whether names fit together (a stage names a gate that exists) only loading
    the policy can tell.

    >>> schema = policy_schema()
    >>> schema["$schema"].rpartition("/")[0], schema["additionalProperties"]
    ('https://json-schema.org/draft/2020-12', False)
    """
    types = types or GateTypes.installed()
    schema: Schema = {"$schema": _DIALECT, **Policy.model_json_schema(by_alias=True)}
    definitions = cast("dict[str, Schema]", schema["$defs"])
    gates: list[Schema] = []
    for name in types.names:
        gates.append({"$ref": f"#/$defs/gate.{name}"})
        definitions.update(_gate(types, name))
    properties = cast("dict[str, Schema]", schema["properties"])
    properties["gates"] = {
        "title": "Gates",
        "description": "The gates by name; `type` says which gate, the rest are its own keys.",
        "type": "object",
        "additionalProperties": {"type": "object", "required": ["type"], "oneOf": gates},
    }
    _allow_lists(properties["stages"])
    return schema


def _gate(types: GateTypes, name: str) -> dict[str, Schema]:
    """The definitions of one gate type, all under names that start with it."""
    config = types.get(name).config_type
    schema: Schema = config.model_json_schema(by_alias=True, ref_template=f"#/$defs/gate.{name}.{{model}}")
    inner = cast("dict[str, Schema]", schema.pop("$defs", {}))
    properties = cast("dict[str, Schema]", schema["properties"])
    properties["type"] = {"const": name, "description": "Which gate this is."}
    required = cast("list[str]", schema.get("required", []))
    schema["required"] = ["type", *(key for key in required if key != "type")]
    return {f"gate.{name}": schema, **{f"gate.{name}.{key}": value for key, value in inner.items()}}


def _allow_lists(stages: Schema) -> None:
    """A stage may be written as the list of its gates alone."""
    short = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    stages["additionalProperties"] = {"anyOf": [short, stages["additionalProperties"]]}
