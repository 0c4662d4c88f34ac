"""A model that knows the policy cannot write an argument so that a rule does not see what the tool will get."""

from __future__ import annotations

import math

import pytest

from guardrails_mw.condition import Condition
from guardrails_mw.event import Content, Event, Stage, ToolCall


def matches(source: str, **args: object) -> bool:
    return Condition(source).matches(Event(Stage.TOOL_CALL, Content(args), call=ToolCall("pay", args)))


@pytest.mark.parametrize(
    ("source", "args"),
    [
        ("args.account == 1", {"account": "1"}),
        ("args.force == True", {"force": "yes"}),
        ("args.account in [1, 2]", {"account": "2"}),
        ("args.to == 'bob'", {"to": ["bob"]}),
        ("args.amount > 100", {"amount": math.nan}),
        ("args.amount > 100 or args.amount < 0", {"amount": math.nan}),
        ("args.account not in ['1', '2']", {"account": 1}),
    ],
)
def test_a_value_of_another_kind_matches(source: str, args: dict[str, object]) -> None:
    """Tools convert what models write ("1" to 1, "yes" to True), so a comparison across kinds counts as a match."""
    assert matches(source, **args)


@pytest.mark.parametrize(
    ("source", "args", "expected"),
    [
        ("args.amount > 100", {"amount": 99.5}, False),
        ("args.force == True", {"force": False}, False),
        ("args.account in [1, 2]", {"account": 3}, False),
        ("args.note == None", {"note": "x"}, False),
        ("args.to == 'bob'", {"to": "amy"}, False),
        ("'rm' in args.cmd", {"cmd": "ls"}, False),
        ("args.tags == []", {"tags": []}, True),
    ],
)
def test_values_of_one_kind_compare_as_written(source: str, args: dict[str, object], expected: bool) -> None:
    """What can be compared still is: strictness does not swallow ordinary calls."""
    assert matches(source, **args) is expected
