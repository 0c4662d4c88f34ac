"""What is a loop, and what only looks like one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Json
from guardrails_mw.loops import KINDS, WINDOW, Loop, LoopLimits, find_loop, first_loop
from guardrails_mw.loops.likeness import Habits, Step, step_of
from guardrails_mw.loops.traits import Trait

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
    st.tuples(st.sampled_from("st"), st.sampled_from("abc"), st.sampled_from(["", "1", "2"])).map(lambda of: Step(*of)),
    max_size=60,
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


NAMES = [
    *("acorn", "bramble", "cinder", "dapple", "elder", "fennel", "garnet", "heron"),
    *("iris", "jasper", "kestrel", "larch", "merle", "nettle", "osprey", "poplar"),
]


@pytest.mark.parametrize(
    ("tool", "name", "form", "answer"),
    [
        ("lint", "path", "src/{}.py", "no issues found"),
        ("validate", "file", "{}.json", {"errors": []}),
        ("read_file", "path", "pkg/{}/__init__.py", ""),
        ("key_exists", "key", "user:{}", "not found"),
        ("is_registered", "email", "{}@x.org", False),
        ("get_user", "email", "{}@x.org", {"user": None}),
        ("get_order", "id", "A-{}7", "order not found"),
        ("list_bugs", "component", "{}", []),
        ("search_orders", "order_id", "ORD-{}4", {"orders": []}),
        ("geocode", "address", "7 {} Street, Springfield", "no match"),
        ("sql", "q", "select * from t where day = '2026-11-{}7'", "0 rows"),
        ("classify", "text", "I want to buy a {} today", "purchase"),
        ("frobnicate", "what", "{}", "fine"),
        ("bash", "command", "git mv old/{}.py new/{}.py", ""),
        ("delegate_to_worker", "task", "Summarise chapter {}7", "done"),
        ("to_pdf", "file", "{}.docx", "converted"),
    ],
)
def test_another_thing_each_time_is_no_loop(tool: str, name: str, form: str, answer: object) -> None:
    """A batch over names, ids, paths or texts is progress, though each answer is the same and says that nothing is."""
    batch = [
        (tool, {name: form.replace("{}", f"{word}{n}" if n > 15 else word)}, answer) for n, word in enumerate(NAMES * 2)
    ]
    assert found(made(*batch[:24])) is None


@pytest.mark.parametrize(
    ("tool", "name", "answer"),
    [
        ("search_docs", "q", "No results"),
        ("kb", "query", "Keine Treffer."),
        ("buscar", "texto", "Sin resultados"),
        ("web_search", "query", "1. Acme at a glance"),
        ("ask_user", "question", "I don't know"),
    ],
)
def test_one_question_in_other_words_is_a_loop(tool: str, name: str, answer: str) -> None:
    """Whatever the language and the answer: the same answer to a question that is only put otherwise is no news."""
    asked = (
        "vpn reset token|reset vpn token|renew vpn token|vpn token expired|token for vpn lost|new vpn token|"
        "vpn token renewal steps|how to reset vpn token|vpn login token reset|vpn token help"
    )
    verdict = found(made(*((tool, {name: question}, answer) for question in asked.split("|"))))
    assert verdict == (9, "no_news")


@pytest.mark.parametrize(
    "wall", ["Access denied", "Please log in to continue.", "403 Forbidden", "Rate limit exceeded", "Captcha"]
)
def test_a_refusal_is_none_of_what_was_asked_for(wall: str) -> None:
    """Who is turned away from one page after another gets nowhere, though each is another page."""
    assert found(made(*(("open_url", {"url": f"https://a.b/{n}"}, wall) for n in range(12)))) == (9, "no_news")


@pytest.mark.parametrize(
    "form",
    [
        "{} seconds left",
        "building, ETA {}s",
        "time left 00:{:02}",
        "noch {} Sekunden",
        "剩余{}秒",
        "503, retry in {} s",
        "{} min to go",
    ],
)
def test_a_countdown_is_progress(form: str) -> None:
    """A time that falls is progress, though a clock or a duration is none; one that stands still or rises is a loop."""
    falling = [("job", {}, form.format(55 - 4 * n)) for n in range(13)]
    assert found(made(*falling)) is None
    restated = [("job", {}, form.format(n)) for n in (58, 50, 53, 44, 39, 41, 30, 25, 20, 21, 9)]
    assert found(made(*restated)) is None
    for other in (lambda n: 5, lambda n: 3 + 4 * n):
        verdict = found(made(*(("job", {}, form.format(other(n))) for n in range(13))))
        assert verdict is not None
        assert verdict[0] <= 7


def test_a_countdown_between_rests_is_progress() -> None:
    """What is waited for in between does not hide that it goes on."""
    polls = [row for n in range(8) for row in (("job", {}, f"starts in {80 - n} s"), ("sleep", {"s": 10}, "ok"))]
    assert found(made(*polls)) is None


def test_attempts_of_others_are_progress() -> None:
    """A counter that comes nearer to its end is progress where nothing failed; of a failure it is only the next one."""
    assert found(made(*(("node", {}, f"starting, attempt {n} of 14") for n in range(1, 14)))) is None
    assert found(made(*(("node", {}, f"failed, attempt {n} of 14", False) for n in range(1, 14)))) is not None


def test_shares_that_only_move_up_and_down() -> None:
    """A share or a size that moves one way is progress, be it with setbacks; one that jitters is none after ten."""
    order = random.Random(5)
    setbacks = [("job", {}, f"indexing the corpus: {6 * n + order.randrange(12)}%") for n in range(15)]
    assert found(made(*setbacks)) is None
    jitter = [("host", {}, f"state: idle, cpu {order.randrange(2, 9)}%") for _ in range(20)]
    verdict = found(made(*jitter))
    assert verdict is not None
    assert 10 <= verdict[0] <= 16


@given(st.permutations(list(range(0, 96, 4))))
def test_a_figure_in_any_order_is_a_loop(order: list[int]) -> None:
    """Durations that come in no order tell nothing, and hide a repeat for long in hardly any."""
    seen = [step_of("job", {}, f"pending, asked {n} s after start", True) for n in order]
    verdict = first_loop(seen)
    falls = sum(later < earlier for earlier, later in pairwise(order))
    assert verdict is not None or falls > len(order) // 2


def test_receipts_differ_by_number_only() -> None:
    """The same thing made or sent again is a repeat, though each receipt has another number."""
    for tool in ("create_issue", "book_room", "send_mail"):
        assert found(made(*((tool, {"a": "x"}, f"Done: number {n}/AB-{n}") for n in range(9)))) == (5, "repeat")
    assert found(made(*(("press_key", {"key": "down"}, f"row {n}") for n in range(20)))) is None


def test_thoughts_that_are_echoed() -> None:
    """A tool that gives back what it was told to note down brings no news."""
    for tool in ("think", "sequentialthinking", "reflect"):
        thoughts = [
            (tool, {"t": f"perhaps {word}", "n": n}, f"Thought {n}: perhaps {word}") for n, word in enumerate(NAMES)
        ]
        verdict = found(made(*thoughts))
        assert verdict is not None
        assert verdict[1] == "monologue"
    assert found(made(*(("add_note", {"customer": n}, "ok") for n in range(20)))) is None


def test_nothing_found_between_repeats() -> None:
    """Where one thing is done again and again, it is no progress that others are not found in between."""
    tries = [row for n in range(9) for row in (("look", {"at": "x"}, "a wall"), ("ask_helper", {"n": n}, "Nothing."))]
    assert found(made(*tries)) is not None
    rested = [row for n in range(9) for row in (("sleep", {"s": 1}, "ok"), ("get_slots", {"day": n}, "[]"))]
    assert found(made(*rested)) is None


def test_a_judge_that_fails_is_no_judgement() -> None:
    """That a check finds fault with each thing is an answer; that the check cannot be made is an error."""
    fault = "error: a comma is missing"
    assert found(made(*(("validate_row", {"n": n}, fault) for n in range(20)))) is None
    assert found(made(*(("validate_row", {"n": n}, fault, False) for n in range(20)))) == (6, "same_error")


def test_tasks_one_after_the_other() -> None:
    """One agent that is given one task after the other is at work; two that give each other tasks are not."""
    tasks = [("delegate_to_coder", {"task": f"do {word}"}, "accepted") for word in NAMES]
    assert found(made(*tasks)) is None
    two = [(f"delegate_to_{'ab'[n % 2]}", {"task": f"do {word}"}, "accepted") for n, word in enumerate(NAMES)]
    assert found(made(*two)) == (6, "ping_pong")


def test_stopped_calls_go_on_with_the_loop() -> None:
    """A call that was stopped counts as one that brought nothing, whatever it would have asked."""
    asked = made(*(("search", {"q": f"vpn {word}"}, "no results") for word in NAMES[:9]))
    stopped = Step(asked[0].tool, "new", asked[0].result, asked[0].traits | Trait.STOPPED)
    loop = find_loop([*asked, stopped])
    assert loop is not None
    assert loop.kind == "no_news"


def test_figures_are_moved() -> None:
    """What is kept of a figure shows how it changes, and without the secret no more."""
    one, two, other = (
        step_of("job", {}, f"{n} seconds left", True, secret=secret)
        for n, secret in ((12, b"k"), (9, b"k"), (12, b"x"))
    )
    assert one.result == two.result
    assert float(one.figures[1:]) - float(two.figures[1:]) == 3
    assert one.figures != other.figures
    assert abs(float(one.figures[1:])) > 1000


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
