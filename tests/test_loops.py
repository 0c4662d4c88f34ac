"""What is a loop, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import PolicyError
from guardrails_mw.loops import WINDOW, Loop, LoopLimits, Step, call_key, find_loop, result_key

DEFAULT = LoopLimits()


def steps(*pairs: str) -> list[Step]:
    return [Step(*pair.split()) for pair in pairs]


def test_same_call_same_result() -> None:
    """Each further repetition climbs one rung, and the last rung stays."""
    rungs = [find_loop(steps("a 1") * n, "a", DEFAULT) for n in range(7)]
    expected = [None] * 3 + [Loop(3, "nudge"), Loop(4, "ask"), Loop(5, "block"), Loop(6, "block")]
    assert rungs == expected


def test_configured_ladder() -> None:
    """Only the rungs that are named are used, from the configured count on."""
    limits = LoopLimits(repeats=2, then=("ask",))
    assert [find_loop(steps("a 1") * n, "a", limits) for n in (1, 2, 9)] == [None, Loop(2, "ask"), Loop(9, "ask")]


def test_polling_is_no_loop() -> None:
    """A result that changes starts the count anew, also when it comes back to what it was."""
    assert find_loop([Step("a", str(i)) for i in range(30)], "a", DEFAULT) is None
    assert find_loop(steps("a 1", "a 2") * 10, "a", DEFAULT) is None
    assert find_loop(steps("a 1", "a 1", "a 1", "a 2"), "a", DEFAULT) is None


def test_other_calls_between() -> None:
    """Known steps in between do not hide a loop; a new one ends it."""
    assert find_loop(steps("a 1", "b 1") * 4, "a", DEFAULT) == Loop(3, "nudge")
    assert find_loop([*steps("a 1", "b 1") * 4, Step("c", "1")], "a", DEFAULT) is None
    edits = [step for i in range(8) for step in (Step("read", "v"), Step(f"edit{i}", "ok"))]
    assert find_loop(edits, "read", DEFAULT) is None


def test_another_call_is_no_loop() -> None:
    """What the model has not called before cannot be a repetition."""
    assert find_loop(steps("a 1") * 9, "b", DEFAULT) is None


def test_results_that_cannot_be_compared() -> None:
    """An unknown result equals nothing."""
    assert find_loop([Step("a", "")] * 9, "a", DEFAULT) is None
    assert find_loop([*steps("a 1") * 3, Step("b", "")], "a", DEFAULT) is None


pairs = st.lists(st.builds(Step, st.sampled_from("abc"), st.sampled_from(["", "1", "2"])), max_size=60)


@given(pairs, st.sampled_from("abc"))
def test_a_loop_is_what_it_says(history: list[Step], call: str) -> None:
    """Whatever is reported was really called that often in the window with one same result, the last one."""
    loop = find_loop(history, call, DEFAULT)
    if loop is not None:
        mine = [step.result for step in history[-WINDOW:] if step.call == call]
        assert loop.count >= DEFAULT.repeats
        assert mine[-loop.count :] == [mine[-1]] * loop.count
        assert mine[-1]
        assert find_loop([*history, Step(call, "fresh")], call, DEFAULT) is None


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
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-0000-4000-8000-0123456789AB"),
        ("No  Results\n", "no results"),
        ({"found": 0, "took": "3 ms"}, {"took": "4 ms", "found": 0}),
    ],
)
def test_results_that_are_the_same(one: object, two: object) -> None:
    """Clocks, dates, durations, uuids, case and white space are no news."""
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
    ],
)
def test_results_that_differ(one: object, two: object) -> None:
    """Numbers that are no clock, small numbers in structures and the far end of long texts are news."""
    assert result_key(one) != result_key(two)


def test_results_of_any_kind() -> None:
    """What is not JSON cannot be compared; lone surrogates and the empty text can."""
    assert result_key(object()) == ""
    assert result_key(float("nan")) == ""
    assert result_key("\ud800") == result_key("\ud800") != ""
    assert result_key("") != ""
    assert result_key(None) != ""


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"repeats": 1}, "2 to"),
        ({"repeats": 99}, "2 to"),
        ({"then": ("nudge", "blok")}, "did you mean 'block'"),
        ({"then": ()}, "allowed: nudge, ask, block"),
    ],
)
def test_bad_settings(settings: dict[str, object], hint: str) -> None:
    """Limits that could never trip, and unknown rungs, are a PolicyError."""
    with pytest.raises(PolicyError, match=hint):
        LoopLimits(**settings)
