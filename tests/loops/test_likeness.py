"""Which calls are the same call, and which results say the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.loops.call import call_key
from guardrails_mw.loops.gist import gist_of
from guardrails_mw.loops.likeness import Step, result_key, step_of
from guardrails_mw.loops.traits import Trait


def test_call_key() -> None:
    """Order, case and white space do not matter; tool, values, types and the secret do."""
    key = call_key("t", {"a": " X  y\n", "b": [1, {"c": "Z"}]})
    assert key == call_key("t", {"b": [1, {"c": "z "}], "a": "x y"})
    others = [
        call_key("u", {"a": "x y"}),
        call_key("t", {"a": "xy"}),
        call_key("t", {"a": "1"}),
        call_key("t", {"a": 1}),
    ]
    assert len({key, *others}) == 5
    assert key != call_key("t", {"a": " X  y\n", "b": [1, {"c": "Z"}]}, b"secret")
    assert "x y" not in key


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("at 12:00:01", "at 9:59"),
        ("2026-11-21T04:53:51Z done", "2025-01-02 03:04:05.123+01:00 done"),
        ("took 51ms", "took 1.5 seconds"),
        ("due 1790000000", "due 1790000123.5"),
        ("attempt 3/10: no", "attempt 4/10: no"),
        ('{"request_id": "req_1f", "n": 0}', '{"request_id": "req_2e", "n": 0}'),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-0000-4000-8000-0123456789AB"),
        ("No  Results\n", "no results"),
        ({"found": 0, "took": "3 ms"}, {"took": "4 ms", "found": 0}),
        ('{"a": {"x": 1, "y": 2}, "b": [3]}', '{"b": [3], "a": {"y": 2, "x": 1}}'),
        ("distance 0.31224913 to a.md", "distance 0.31225017 to a.md"),
        ("sum is 0.30000000000000004", "sum is 0.30000000000000010"),
        ("frame f677c562 is unchanged", "frame ff614234 is unchanged"),
        ("saved /tmp/shot-e170195c.png", "saved /tmp/shot-2634828a.png"),
    ],
)
def test_results_that_are_the_same(one: object, two: object) -> None:
    """Clocks, dates, durations, ids, the order of keys, errors of arithmetic, case and white space are no news."""
    assert result_key(one) == result_key(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("10%", "20%"),
        ("3 failed", "2 failed"),
        ({"n": 1}, {"n": 2}),
        ("row 1", "row 2"),
        ("x" * 70_000 + "a", "x" * 70_000 + "b"),
        ("5 monkeys", "6 monkeys"),
        ('{"a": 1, "b": 2}', '{"a": 2, "b": 1}'),
        ("mask 0x0000000f", "mask 0x0000001f"),
        ("replica at LSN 0/30018A8", "replica at LSN 0/3003150"),
        ("version 1.2.333333333333333", "version 1.2.333333333333334"),
    ],
)
def test_results_that_differ(one: object, two: object) -> None:
    """Numbers that are no clock, small numbers in structures and the far end of long texts are news."""
    assert result_key(one) != result_key(two)


def test_what_a_service_says_first_is_what_it_says() -> None:
    """Keys in order are for comparing only: that a call failed is read where it was written, in front."""
    for result in ('{"ok": false, "account": "none of yours"}', '{"status": "error", "data": "x", "code": 7}'):
        assert step_of("t", {}, result, ok=True).traits & Trait.FAILED


def test_results_of_any_kind() -> None:
    """What is not JSON cannot be compared; lone surrogates and the empty text can."""
    assert result_key(object()) == ""
    assert result_key(float("nan")) == ""
    assert result_key("\ud800") == result_key("\ud800") != ""
    assert result_key("") != ""
    assert result_key(None) != ""


@pytest.mark.parametrize(
    ("tool", "result", "ok", "expected"),
    [
        ("send_mail", "ok", True, Trait.ACTED | Trait.MAKES),
        ("enroll", '{"status": "success"}', True, Trait.ACTED),
        ("search_files", "no results", True, Trait.READS | Trait.EMPTY),
        ("get_order", "", True, Trait.READS | Trait.BLANK | Trait.EMPTY),
        ("mkdir", "", True, Trait.ACTED | Trait.BLANK),
        ("frobnicate", "", True, Trait.BLANK),
        ("sql", "Error: no such table", True, Trait.FAILED),
        ("sql", "ok", False, Trait.FAILED | Trait.RAISED),
        ("jobStatus", "queued", True, Trait.WAITING | Trait.ACTED),
        ("think", "", True, Trait.TALK | Trait.BLANK),
        ("transfer_to_sales", "now with sales", True, Trait.HANDOVER),
        ("lookup", "Blue, size 4", True, Trait.READS),
    ],
)
def test_traits(tool: str, result: str, ok: bool, expected: int) -> None:
    """What a tool does and what came of it is judged by name and result."""
    assert step_of(tool, {}, result, ok).traits == expected


hostile = st.text(st.characters(codec=None), max_size=300)


@given(hostile | st.dictionaries(st.text(max_size=5), st.text(max_size=20)))
def test_any_result_is_a_step(value: object) -> None:
    """Hostile names and texts make a step of hashes, the same one each time."""
    step = step_of(str(value), {"a": str(value)}, value, True)
    assert step == step_of(str(value), {"a": str(value)}, value, True)
    assert isinstance(step, Step)
    assert len(step.tool) == len(step.call) == len(step.result) == 16


def test_long_results_take_linear_time() -> None:
    """Only the beginning of a long text is normalised; the rest is compared as it is."""
    long = "at 10:00:00 " * 50_000
    text = gist_of(long).text
    assert text.startswith("at # at #")
    assert text.endswith("at 10:00:00 ")
