"""The JSON Schema for editors accepts what loads and refuses what does not."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from guardrails_mw.gate import GateTypes
from guardrails_mw.policy_schema import policy_schema

ROOT = Path(__file__).parent.parent
OWN = GateTypes(
    {
        point.name: point
        for point in entry_points(group=GateTypes.group)
        if point.value.partition(".")[0] == "guardrails_mw"
    }
)
SCHEMA = policy_schema(OWN)
GATED = {"version": 1, "stages": {"input": ["g"]}}


def accepts(policy: object) -> bool:
    return Draft202012Validator(SCHEMA).is_valid(policy)


def test_is_a_schema() -> None:
    """It is valid Draft 2020-12, and every reference in it leads somewhere."""
    Draft202012Validator.check_schema(SCHEMA)
    text = json.dumps(SCHEMA)
    wanted = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert wanted <= set(SCHEMA["$defs"])


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_policies(file: Path) -> None:
    """Every policy that is shipped is valid, as it is written."""
    problems = Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(file.read_text()))
    assert [f"{list(each.path)}: {each.message[:200]}" for each in problems] == []


def test_every_gate_has_its_keys() -> None:
    """Each installed gate type is one alternative, with its own keys and no others."""
    names = {each["$ref"].rpartition(".")[2] for each in SCHEMA["properties"]["gates"]["additionalProperties"]["oneOf"]}
    assert names == set(OWN.names)
    assert accepts({**GATED, "gates": {"g": {"type": "pii", "profile": "strict"}}})
    assert not accepts({**GATED, "gates": {"g": {"type": "secrets", "profile": "strict"}}})
    assert accepts({**GATED, "gates": {"g": {"type": "injection", "tool_result": {"block_at": 0.5}}}})
    assert not accepts({**GATED, "gates": {"g": {"type": "injection", "tool_result": {"block": 0.5}}}})


@pytest.mark.parametrize(
    "policy",
    [
        {"stages": {"input": ["g"]}},
        {"version": 2},
        {"version": 1, "mod": "shadow"},
        {"version": 1, "stages": {"inputs": ["g"]}},
        {"version": 1, "stages": {"input": []}},
        {"version": 1, "gates": {"g": {"type": "injektion"}}},
        {"version": 1, "gates": {"g": {"profile": "agent"}}},
        {"version": 1, "tools": {"t": {"ask": [{"if": "args.n > 1"}]}}},
        {"version": 1, "budgets": {"run": {"tokens": 0}}},
    ],
)
def test_refuses(policy: object) -> None:
    """What the loader refuses for its form, an editor underlines."""
    assert not accepts(policy)


def test_both_forms_of_a_stage() -> None:
    """A stage is a list of gates, or a mapping with one."""
    assert accepts({"version": 1, "stages": {"input": ["g"], "output": {"gates": ["g"], "on_block": "raise"}}})


def test_committed_copy_is_current() -> None:
    """docs/policy.schema.json is what `guardrails-mw schema` prints."""
    assert json.loads((ROOT / "docs" / "policy.schema.json").read_text()) == SCHEMA
