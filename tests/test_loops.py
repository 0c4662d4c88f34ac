"""What is a loop, and what only looks like one."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Json
from guardrails_mw.likeness import Habits, Step, step_of
from guardrails_mw.loops import KINDS, WINDOW, Loop, LoopLimits, find_loop, first_loop

LIMITS = LoopLimits()


def made(*rows: tuple[str, Mapping[str, Json], object] | tuple[str, Mapping[str, Json], object, bool]) -> list[Step]:
    return [step_of(row[0], row[1], row[2], row[3] if len(row) == 4 else True) for row in rows]


def found(steps: list[Step], limits: LoopLimits = LIMITS) -> tuple[int, str] | None:
    loop = first_loop(steps, limits)
    return (loop[0], loop[1].kind) if loop else None


names = st.text(alphabet="abcdefghxyz", min_size=1, max_size=8)
answers = st.text(alphabet="klmnopqr ", min_size=3, max_size=20)
calls = st.lists(st.tuples(names, answers), min_size=1, max_size=6, unique_by=lambda pair: pair[0])


@given(calls, st.integers(0, 5))
def test_every_period_is_found(period: list[tuple[str, str]], before: int) -> None:
    """Whatever the tools and results, steps that come in the same order are a loop by the stated number of rounds."""
    fresh = [Step(f"tool{n}", f"call{n}", f"result{n}") for n in range(before)]
    turn = [Step(tool, f"call {tool}", answer) for tool, answer in period]
    rounds = LIMITS.repeats if len(turn) == 1 else LIMITS.cycles
    verdict = found(fresh + turn * rounds)
    assert verdict is not None
    assert before < verdict[0] <= before + rounds * len(turn)


@given(st.lists(st.tuples(names, names), min_size=1, max_size=80))
def test_always_new_results_are_no_loop(rows: list[tuple[str, str]]) -> None:
    """A result that was never seen is progress, whoever calls what how often."""
    assert found([Step(tool, arg, f"result {n}") for n, (tool, arg) in enumerate(rows)]) is None


@given(st.integers(1, 90), st.sampled_from(["send_mail", "createTicket", "crm.update_contact", "delete_row"]))
def test_a_batch_is_no_loop(size: int, tool: str) -> None:
    """New calls of a tool that does something are progress, though each gives the same receipt."""
    assert found(made(*((tool, {"id": n}, "ok") for n in range(size)))) is None


steps = st.lists(
    st.builds(Step, st.sampled_from("st"), st.sampled_from("abc"), st.sampled_from(["", "1", "2"])), max_size=60
)


@given(steps)
def test_only_the_window_counts(history: list[Step]) -> None:
    """The answer depends on the last steps alone, names a kind, and what it counts is in the window."""
    loop = find_loop(history)
    assert loop == find_loop(history[-WINDOW:])
    if loop is not None:
        assert loop.kind in KINDS
        assert 2 <= loop.count <= loop.since <= WINDOW
        assert history[-1].result
        assert find_loop([*history, Step("s", "new", "never seen")]) is None


def test_repeat() -> None:
    """One call with one result, five times; what waits for something may be called seven times."""
    assert found(made(("look", {"q": 1}, "same")) * 9) == (5, "repeat")
    assert found(made(("job", {"q": 1}, "still running")) * 9) == (7, "repeat")
    assert found(made(("look", {}, "same")) * 4 + made(("look", {}, "other")) * 4) is None
    assert found([Step("t", "c", "")] * 40) is None


def test_clocks_do_not_hide_a_repeat() -> None:
    """A result in which only a time, a duration, an id of the request or a counter changes is the same result."""
    for said in ("none at 10:00:{:02}", "none, took {}ms", "none (request id: a{}f)", "none, attempt {} of 99"):
        assert found(made(*(("look", {}, said.format(n)) for n in range(9)))) == (5, "repeat"), said


def test_ping_pong() -> None:
    """Agents that hand over to each other are seen whatever reason they give; with work in between they are not."""
    over = [(f"transfer_to_{'ab'[n % 2]}", {"why": f"reason {n}"}, f"now {'ab'[n % 2]}") for n in range(12)]
    assert found(made(*over)) == (6, "ping_pong")
    work = [row for n, each in enumerate(over) for row in (each, ("page", {"n": n}, f"text {n}"))]
    assert found(made(*work)) is None


def test_same_error() -> None:
    """One tool, one error, other arguments each time: six of them, unless something new came in between."""
    failing: list[tuple[str, Mapping[str, Json], object, bool]] = [
        ("sql", {"q": n}, "syntax error", False) for n in range(12)
    ]
    assert found(made(*failing)) == (6, "same_error")
    between = [row for n, each in enumerate(failing) for row in (each, ("read", {"n": n}, f"text {n}", True))]
    assert found(made(*between)) is None


def test_one_call_that_keeps_failing_through_everything() -> None:
    """A test that fails alike after each of eight edits is a loop; one that fails differently is not."""
    same = [row for n in range(10) for row in (("edit", {"p": n}, "ok", True), ("test", {}, "1 failed", False))]
    better = [row for n in range(10) for row in (("edit", {"p": n}, "ok", True), ("test", {}, f"{n} failed", False))]
    assert found(made(*same)) == (16, "same_error")
    assert found(made(*better)) is None


def test_no_news() -> None:
    """Searches that are rephrased and find nothing, and known steps in any order, are a loop after eight of them."""
    for nothing in ("no results", "[]", '{"results": [], "total": 0}', "I couldn't find anything.", ""):
        assert found(made(*(("search", {"q": f"words {n}"}, nothing) for n in range(12)))) == (9, "no_news"), nothing
    order = random.Random(1)
    shuffled = [Step(tool, tool, "same") for tool in order.choices("abc", k=30)]
    verdict = found(shuffled)
    assert verdict is not None
    assert verdict[0] <= 16


def test_a_failure_that_repeats_the_call_is_no_news() -> None:
    """What a failure says of the call's own words does not make it another failure."""
    files = ["main", "app", "run", "core", "util", "base", "init", "conf", "view", "model"]
    missing = [("read_file", {"path": f"src/{name}.py"}, f"File not found: src/{name}.py") for name in files]
    assert found(made(*missing)) == (9, "no_news")
    there = [("read_file", {"path": f"src/{name}.py"}, f"text of src/{name}.py") for name in files]
    assert found(made(*there)) is None


def test_silence_of_a_tool_that_acts_is_no_failure() -> None:
    """An empty answer is silent success where the tool's name does not say that it looks something up."""
    assert found(made(*(("frobnicate", {"p": n}, "") for n in range(20)))) is None


def test_monologue() -> None:
    """Thoughts that follow thoughts are a loop, be they new words; between deeds they are not."""
    assert found(made(*(("think", {"t": f"perhaps {n}"}, "") for n in range(12)))) == (9, "monologue")
    assert found(made(*(("think", {"t": "again " * n}, "ok") for n in range(1, 12)))) == (5, "repeat")
    deeds = [row for n in range(20) for row in (("think", {"t": n}, ""), ("send", {"to": n}, "ok"))]
    assert found(made(*deeds)) is None


def test_habits() -> None:
    """The policy's word on a tool goes before what its name and its results tell."""
    job = step_of("job", {}, "same", True, habits=Habits(poll=12))
    assert found([job] * 11) is None
    assert found([job] * 12) == (12, "repeat")
    assert found([step_of("job", {}, "same", True, habits=Habits(poll=True))] * 90) is None
    assert found([step_of("pay", {}, "ok", True, habits=Habits(effect=True))] * 5) == (3, "repeat")
    silent = [step_of("look", {"n": n}, "same", True, habits=Habits(effect=True)) for n in range(40)]
    assert found(silent) is None
    one = [step_of("find", {"q": "x", "page": n}, "same", True, habits=Habits(key=("q",))) for n in range(9)]
    assert found(one) == (5, "repeat")


def test_who_goes_on() -> None:
    """A loop says which calls would only go on with it."""
    look, find = Step("look", "look 1", "a"), Step("find", "find 1", "b")
    cycle = find_loop([look, find] * 3)
    assert cycle == Loop("cycle", 3, 6, calls=frozenset({"look 1"}))
    assert cycle.goes_on("look", "look 1")
    assert not cycle.goes_on("find", "find 1")
    errors = find_loop(made(*(("sql", {"q": n}, "syntax error", False) for n in range(6))))
    sql = step_of("sql", {"q": "new"}, "", True)
    assert errors is not None
    assert errors.goes_on(sql.tool, sql.call)
    assert not errors.goes_on("other", "other")


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"repeats": 1}, "2 to"),
        ({"repeats": 99}, "2 to"),
        ({"cycles": 9}, "cycles is 2 to 5"),
        ({"then": ("nudge", "blok")}, "did you mean 'block'"),
        ({"then": ()}, "allowed: nudge, ask, block"),
    ],
)
def test_bad_settings(settings: dict[str, object], hint: str) -> None:
    """Limits that could never trip, and unknown rungs, are a PolicyError."""
    with pytest.raises(PolicyError, match=hint):
        LoopLimits(**settings)
