"""Shapes: JSON Schema and pydantic models, on answers, arguments and results."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.event import Content, Event, Origin, Stage, ToolCall
from guardrails_mw.gate import DEADLINE, Cost, Site
from guardrails_mw.gates.json_value import MAX_CHARS, MAX_DEPTH, MAX_NODES, UnfitError, json_text, json_value
from guardrails_mw.gates.schema import JsonSchemaConfig, JsonSchemaGate, PydanticConfig, PydanticGate, SchemaCheck
from guardrails_mw.verdict import Action, Remedy

ANSWER = {
    "type": "object",
    "properties": {
        "status": {"enum": ["open", "closed"]},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
    },
    "required": ["status"],
    "additionalProperties": False,
}
GOOD = {"status": "open", "lines": [{"n": 1}]}
MODELS = """
from datetime import date
from typing import Literal
from pydantic import BaseModel, ConfigDict, field_validator

class Line(BaseModel):
    n: int

class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: Literal["open", "closed"]
    lines: list[Line] = []
    due: date | None = None
    notes: dict[str, int] = {}

    @field_validator("status")
    @classmethod
    def never(cls, value):
        return value

class Quoting(BaseModel):
    name: str
    @field_validator("name")
    @classmethod
    def refuse(cls, value):
        raise ValueError(f"{value} is bad")

answer = Answer
def function(): ...
class NoModel:
    x: object
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A user's module with pydantic models."""
    import sys

    (tmp_path / "my_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_models", None)


def by_schema(schema: object = ANSWER, base: Path = Path(), **keys) -> JsonSchemaGate:
    return JsonSchemaGate.build(JsonSchemaConfig.model_validate({"schema": schema, **keys}), Site("answer", base))


def by_model(name: str = "Answer", **keys) -> PydanticGate:
    return PydanticGate.build(PydanticConfig(model=f"my_models:{name}", **keys), Site("answer", Path()))


def output(value: object, *, blocks: bool = False) -> Event:
    return Event(Stage.OUTPUT, Content(value, blocks), Origin.MODEL)


FITTING = [
    output(json.dumps(GOOD)),
    output(f" ```json\n{json.dumps(GOOD, indent=1)}\n```\n"),
    output(f"```\n{json.dumps(GOOD)}```"),
    output(GOOD),
    output([{"type": "text", "text": '{"status": '}, {"type": "text", "text": '"open"}'}], blocks=True),
    Event(Stage.TOOL_RESULT, Content(json.dumps(GOOD)), Origin.TOOL),
    Event(Stage.TOOL_RESULT, Content({"status": "closed"}), Origin.TOOL),
    Event(Stage.TOOL_CALL, Content(GOOD), Origin.MODEL, call=ToolCall("t", GOOD)),
    Event(Stage.TOOL_CALL, Content(""), Origin.MODEL, call=ToolCall("t", GOOD)),
]
UNFITTING = [
    (output('{"status": "shut"}'), "schema.invalid"),
    (output({}), "schema.invalid"),
    (output("[]"), "schema.invalid"),
    (Event(Stage.TOOL_CALL, Content({}), Origin.MODEL, call=ToolCall("t", GOOD)), "schema.invalid"),
    (Event(Stage.TOOL_CALL, Content({}), Origin.MODEL, call=ToolCall("t", valid=False)), "schema.not_json"),
    (Event(Stage.TOOL_RESULT, Content("done"), Origin.TOOL), "schema.not_json"),
    (output(""), "schema.not_json"),
    (output(f"Sure! {json.dumps(GOOD)}"), "schema.not_json"),
    (output(json.dumps(GOOD) * 2), "schema.not_json"),
    (output('{"status": "open", "status": "shut"}'), "schema.not_json"),
    (output('{"status": NaN}'), "schema.not_json"),
    (output({"status": math.inf}), "schema.not_json"),
    (output({"status": object()}), "schema.not_json"),
    (output({1: "open"}), "schema.not_json"),
    (output("9" * 5000), "schema.not_json"),
    (output([{"type": "image", "base64": "AAAA"}], blocks=True), "schema.not_json"),
    (output("[" * 100_000), "schema.too_deep"),
    (output("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)), "schema.too_deep"),
    (output('"' + "a" * MAX_CHARS + '"'), "schema.too_large"),
    (output([0] * MAX_NODES), "schema.too_large"),
]


@pytest.mark.parametrize("event", FITTING)
def test_what_fits_is_allowed(event, models):
    """Text, fenced text, blocks, arguments and structured values that fit pass both gates."""
    assert by_schema().check(event).action is Action.ALLOW
    assert by_model().check(event).action is Action.ALLOW


@pytest.mark.parametrize(("event", "reason"), UNFITTING)
def test_what_does_not_fit_is_blocked(event, reason, models):
    """Both gates block the same things for the same reason."""
    for gate in (by_schema(), by_model()):
        verdict = gate.check(event)
        assert (verdict.action, verdict.reason) == (Action.BLOCK, reason)
        assert (verdict.remedy, verdict.note) == (Remedy.REFUSE, "")


def test_edited_arguments_are_what_is_checked():
    """An edit to a tool call's arguments is held against the schema, not the model's own arguments."""
    event = Event(Stage.TOOL_CALL, Content({"status": "[EMAIL]"}), call=ToolCall("t", GOOD))
    assert by_schema().check(event).reason == "schema.invalid"


@pytest.mark.parametrize(("event", "reason"), UNFITTING)
def test_flag_lets_it_pass_on_record(event, reason):
    """`on_fail: flag` flags whatever would be blocked."""
    verdict = by_schema(on_fail="flag").check(event)
    assert (verdict.action, verdict.reason) == (Action.FLAG, reason)


SECRET = "hunter2-4111111111111111"
TELLTALE = {"status": SECRET, "lines": [{"n": SECRET}], SECRET: {SECRET: 1}, "notes": {SECRET: SECRET}}


def test_a_reask_says_what_to_repair_and_repeats_nothing(models):
    """The note names places and expectations, and no value and no key that the model invented."""
    for gate in (by_schema(on_fail="reask", max_reasks=2), by_model(on_fail="reask", max_reasks=2)):
        verdict = gate.check(output(json.dumps(TELLTALE)))
        assert (verdict.action, verdict.remedy, gate.max_reasks) == (Action.BLOCK, Remedy.REASK, 2)
        assert "at $.lines[0].n: " in verdict.note
        assert "integer" in verdict.note
        assert "at $.status: " in verdict.note
        assert "'closed'" in verdict.note.replace('"', "'")
        assert SECRET not in repr(verdict)


def test_a_reask_of_a_text_says_that_json_is_wanted():
    """The note for a text that is no JSON says so."""
    verdict = by_schema(on_fail="reask").check(output(SECRET))
    assert verdict.reason == "schema.not_json"
    assert "valid JSON" in verdict.note
    assert SECRET not in verdict.note


def test_nothing_is_asked_again_unless_the_policy_says_so():
    """Without `on_fail: reask` there are no re-asks to count."""
    assert (by_schema().max_reasks, by_schema(on_fail="reask").max_reasks) == (0, 1)
    assert by_schema().cost is Cost.BLOCKING


def test_messages_of_a_users_validator_are_not_repeated(models):
    """A pydantic validator that quotes the value in its message does not leak it."""
    verdict = by_model("Quoting", on_fail="reask").check(output({"name": SECRET}))
    assert "at $.name: not accepted" in verdict.note
    assert SECRET not in verdict.note


def test_a_model_reads_json_not_python(models):
    """A date arrives as JSON text, also inside a structured value."""
    assert by_model().check(output({"status": "open", "due": "2026-01-31"})).action is Action.ALLOW


EVERY_KEYWORD = {
    "type": ["object", "null"],
    "properties": {
        "a": {"minimum": 3, "multipleOf": 2},
        "b": {"maxLength": 2, "pattern": "^x"},
        "c": {"const": "k"},
        "d": {"anyOf": [{"type": "null"}, {"const": 1}]},
        "e": {"not": {}},
        "f": False,
        "g": {"uniqueItems": True, "minItems": 9, "contains": {"const": 5}},
        "h": {"additionalProperties": {"type": "null"}},
    },
    "required": ["z"],
    "maxProperties": 2,
    "propertyNames": {"maxLength": 1},
}


def test_every_message_is_free_of_content():
    """Whatever keyword fails, the messages hold only what the schema's author wrote."""
    value = {"a": 1, "b": SECRET, "c": SECRET, "d": SECRET, "e": SECRET, "f": SECRET, "g": [SECRET, SECRET],
             "h": {SECRET: SECRET}, SECRET: SECRET}  # fmt: skip
    seen = set()
    for key, item in value.items():
        said = SchemaCheck(EVERY_KEYWORD).problems({key: item})
        assert said
        assert SECRET not in "".join(said)
        seen.update(message.split(": ")[1].split(" ")[0] for message in said)
    assert {"'minimum'", "'multipleOf'", "'maxLength'", "'pattern'", "'const'", "'anyOf'", "'not'", "nothing",
            "'uniqueItems'", "'minItems'", "'contains'", "'type'", "'required'"} <= seen  # fmt: skip
    assert len(SchemaCheck({"items": False}).problems([1] * 100)) <= 10


def test_the_form_of_a_message():
    """A message is place, keyword and expectation."""
    check = SchemaCheck(ANSWER)
    assert check.problems({"lines": [{"n": "x"}], "x": 1, "status": 3}) == [
        'at $.status: \'enum\' expected ["open", "closed"]',
        "at $.lines[0].n: 'type' expected integer",
        "at $: 'additionalProperties' expected no other keys",
    ]
    assert check.problems({}) == ["at $: 'required' expected status"]


BROKEN = [
    ({"type": "intger"}, "broken schema"),
    ({"properties": []}, "broken schema"),
    ({"pattern": "(?=a)b"}, "not RE2"),
    ({"properties": {"a": {"pattern": r"(a)\1"}}}, "not RE2"),
    ({"patternProperties": {"(": {}}}, "not RE2"),
    ({"$ref": "https://example.com/other.json"}, "leaves the schema"),
    ({"items": {"$ref": "other.json#/a"}}, "leaves the schema"),
    ({"$ref": "#/$defs/missing"}, "nothing stands at '#/$defs/missing'"),
    ({"$ref": "#anchor"}, "nothing stands at"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "only Draft 2020-12"),
    ({"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}, "at the top only"),
    ({"items": {"$id": "https://example.com/x"}}, "at the top only"),
    ({"patternProperties": {"^a": {}}, "unevaluatedProperties": False}, "cannot stand in one schema"),
]


@pytest.mark.parametrize(("schema", "said"), BROKEN)
def test_a_broken_schema_is_a_policy_error_that_names_the_file(tmp_path, schema, said):
    """What cannot be used, or not safely, is found at load, inline and in a file."""
    (tmp_path / "broken.json").write_text(json.dumps(schema))
    with pytest.raises(PolicyError) as error:
        by_schema("broken.json", tmp_path)
    assert said in str(error.value)
    assert error.value.file == str(tmp_path / "broken.json")
    with pytest.raises(PolicyError, match="schema"):
        by_schema(schema)


@pytest.mark.parametrize(("text", "line"), [('{\n "a": 1,\n}', 3), ("[]", 0), ("[" * 100_000, 0), ("\xff", 0)])
def test_a_schema_file_that_is_no_json_object(tmp_path, text, line):
    """The error names the file, and the line where there is one."""
    (tmp_path / "s.json").write_text(text, encoding="latin-1")
    with pytest.raises(PolicyError) as error:
        by_schema("s.json", tmp_path)
    assert (error.value.file, error.value.line) == (str(tmp_path / "s.json"), line)


def test_a_missing_schema_file_is_named(tmp_path):
    """A path is taken from the policy's folder."""
    with pytest.raises(PolicyError, match=r"none\.json.*FileNotFoundError"):
        by_schema("none.json", tmp_path)


def test_a_deep_schema_is_refused():
    """A schema nested beyond reason is an error, not a crash."""
    schema: dict = {}
    for _ in range(3000):
        schema = {"items": schema}
    with pytest.raises(PolicyError, match="nested too deeply"):
        SchemaCheck(schema)


def test_references_inside_the_schema_work():
    """Definitions, recursion, anchors, and a root that names its draft and itself."""
    check = SchemaCheck({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "https://example.com/tree.json",
        "properties": {"kids": {"items": {"$ref": "#"}}, "name": {"$ref": "#/$defs/name"}, "tag": {"$ref": "#tag"}},
        "$defs": {"name": {"pattern": "^[a-z]+$"}, "tag": {"$anchor": "tag", "type": "integer"}},
    })  # fmt: skip
    assert check.problems({"kids": [{"name": "ok", "tag": 1, "kids": []}]}) == []
    assert check.problems({"kids": [{"name": "NO", "tag": "x"}]}) == [
        "at $.kids[0].name: 'pattern' expected \"^[a-z]+$\"",
        "at $.kids[0].tag: 'type' expected integer",
    ]


def test_a_reference_to_itself_does_not_hang():
    """A schema that can never be satisfied ends as a problem."""
    assert SchemaCheck({"$ref": "#"}).problems(1) == ["at $: nested too deeply"]


def test_a_number_beyond_floats_is_a_problem():
    """Arithmetic that overflows is no crash."""
    assert SchemaCheck({"multipleOf": 0.5}).problems(10**400) == ["at $: a number is too large"]


HOSTILE = [
    ({"pattern": "^(a+)+$"}, "a" * 50_000 + "!"),
    ({"patternProperties": {"^(a+)+$": {"type": "null"}}}, {"a" * 50_000 + "!": 1}),
    ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"a" * 50_000 + "!": 1}),
    ({"properties": {"x": {"$ref": "#/$defs/p"}}, "$defs": {"p": {"propertyNames": {"pattern": "^(a|a)*$"}}}},
     {"x": {"a" * 50_000 + "!": 1}}),
    ({"uniqueItems": True}, [{"n": n} for n in range(30_000)]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "value"), HOSTILE)
def test_no_value_makes_a_check_slow(schema, value):
    """Values for which backtracking or comparing pair by pair would take hours are done at once."""
    started = time.perf_counter()
    SchemaCheck(schema).problems(value)
    assert time.perf_counter() - started < 20


BRANCHING = {
    "oneOf": [
        {"properties": {"a": {"$ref": "#"}}, "required": ["b"]},
        {"properties": {"a": {"$ref": "#"}}, "required": ["c"]},
    ]
}  # both branches follow "a", so the work doubles with every level


def nested(depth: int) -> dict:
    value: dict = {"c": 1}
    for _ in range(depth):
        value = {"a": value, "c": 1}
    return value


def test_branching_recursion_is_bounded(monkeypatch):
    """A schema for expression trees checks shallow values; a deep one is refused, not followed for ever."""
    from guardrails_mw.gates import json_keywords

    monkeypatch.setattr(json_keywords, "MAX_REFERENCES", 5000)
    assert SchemaCheck(BRANCHING).problems(nested(5)) == []
    assert SchemaCheck(BRANCHING).problems(nested(60)) == ["at $: nested too deeply to be checked"]


def test_branching_recursion_ends_at_the_deadline():
    """The gate's own deadline is looked at while references are followed."""
    token = DEADLINE.set(time.perf_counter() + 0.05)
    try:
        with pytest.raises(GateError, match="deadline"):
            by_schema(BRANCHING).check(output(nested(60)))
    finally:
        DEADLINE.reset(token)


@pytest.mark.parametrize(("schema", "good", "bad"), [
    ({"pattern": "b"}, "abc", "xyz"),
    ({"pattern": "^a$"}, "a", "a\n"),
    ({"pattern": "^a$"}, 7, ""),
    ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": 1, "s": "x"}, {"n_a": "1"}),
    ({"patternProperties": {"^n_": {}}, "additionalProperties": False}, {"n_a": 1}, {"m": 1}),
    ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}}, {"a": 1, "b": None}, {"b": 1}),
    ({"additionalProperties": False}, [], {"a": 1}),
    ({"properties": {"a": {}}, "unevaluatedProperties": False}, {"a": 1}, {"b": 1}),
    ({"uniqueItems": True}, [1, True, "1", [1], {"a": 1}], [1, 1.0]),
    ({"uniqueItems": True}, [{"a": 1}, {"a": True}], [{"a": [1]}, {"a": [1.0]}]),
    ({"uniqueItems": False}, [1, 1], None),
])  # fmt: skip
def test_the_keywords_done_anew_mean_what_the_draft_says(schema, good, bad):
    """The linear keywords accept and refuse as JSON Schema does."""
    assert SchemaCheck(schema).problems(good) == []
    if bad is not None:
        assert SchemaCheck(schema).problems(bad)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5]) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "ab"]), inner, max_size=3),
    max_leaves=10,
)


@given(plain, st.sampled_from([
    {"uniqueItems": True}, {"additionalProperties": False, "properties": {"a": {}}}, {"pattern": "^a"},
    {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": {"type": "null"}},
]))  # fmt: skip
def test_the_keywords_done_anew_agree_with_jsonschema(value, schema):
    """On any value the verdict is that of the library's own keywords."""
    from jsonschema import Draft202012Validator

    assert bool(SchemaCheck(schema).problems(value)) is not Draft202012Validator(schema).is_valid(value)


@given(st.text(max_size=60) | plain.map(json.dumps))
def test_any_text_is_a_value_or_unfit(text):
    """Parsing hostile text answers or raises one error."""
    try:
        value = json_text(text)
    except UnfitError:
        return
    assert json_value(value) == value


def test_a_lone_surrogate_reaches_no_pattern():
    """Half a character from an escape is replaced, so that RE2 can read the text."""
    assert SchemaCheck({"pattern": "^.$"}).problems(json_text('"\\ud800"')) == []
    assert json_text('"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize(("model", "said"), [
    ("my_models:Anser", "did you mean 'Answer'?"), ("my_models:function", "not a class"),
    ("nowhere:Answer", "the module nowhere cannot be found"), ("Answer", "write package.module:name"),
    ("my_models:NoModel", "pydantic cannot use"),
])  # fmt: skip
def test_a_wrong_model_is_a_policy_error(models, model, said):
    """The error names what could not be found and what is nearest."""
    with pytest.raises(PolicyError) as error:
        PydanticGate.build(PydanticConfig(model=model), Site("answer", Path()))
    assert said in str(error.value)
    assert error.value.field == "model"


@pytest.mark.parametrize("keys", [
    {}, {"schema": 3}, {"schema": "a", "on_fail": "ask"}, {"schema": "a", "max_reasks": 6}, {"schema_": "a"},
    {"schema": "a", "max_reasks": -1},
])  # fmt: skip
def test_wrong_keys_are_refused(keys):
    """Missing, misspelt and impossible keys are errors."""
    with pytest.raises(ValueError):
        JsonSchemaConfig.model_validate(keys)
