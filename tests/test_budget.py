"""Budgets: never more admitted than fits, and what was used is what is charged."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails_mw.account import Limits, Per, window
from guardrails_mw.budget import Admitted, Budget, Refused, Terms
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, ToolCall, Where
from guardrails_mw.prices import Prices
from guardrails_mw.store import KEPT, Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Outcome, Usage

PRICES = Prices({"m*": {"input": "1", "output": "10"}})
CALL = ModelCall("m", input_tokens=100, max_tokens=50)  # 600 micro-dollars, 150 tokens
TOOL = ToolCall("t")


ALL_UNITS = {"usd_micro": 2000, "tokens": 10_000, "model_calls": 5, "tool_calls": 2, "milliseconds": 60_000}


def event(run: str, key: str, call: ModelCall | ToolCall, tenant: str = "", thread: str = "") -> Event:
    stage = Stage.MODEL if isinstance(call, ModelCall) else Stage.TOOL_CALL
    return Event(stage, Content(None), actor=Actor(tenant=tenant), where=Where(run, thread), call=call, key=key)


class Runs:
    """A budget of runs, asked about calls."""

    def __init__(
        self,
        limits: dict[str, object],
        store: Store | None = None,
        prices: Prices = PRICES,
        name: str = "run",
        prefix: str = "",
        **terms: object,
    ) -> None:
        all_limits = [Limits(name, of="run", **limits)]
        self.budget = Budget(store or MemoryStore(), all_limits, prices, Terms(**terms), prefix)
        self.name = name

    def reserve(self, run: str, key: str, call: ModelCall | ToolCall, now: float) -> Admitted | tuple[object, ...]:
        answer = self.budget.reserve(event(run, key, call), now)
        return (answer.code, answer.cap, answer.used, answer.asked) if isinstance(answer, Refused) else answer

    def settle(self, run: str, key: str, call: ModelCall | ToolCall, outcome: Outcome) -> bool:
        return self.budget.settle(event(run, key, call), outcome, 0.0)

    def used(self, run: str) -> dict[str, int]:
        return self.budget.used(event(run, "k", TOOL), 0.0)[self.name]


def budget(limits: dict[str, object], store: Store | None = None, **options: object) -> Runs:
    return Runs(limits, store, **options)


def done(seconds: float = 0.0, tokens: tuple[int, int] | None = None, model: str = "") -> Outcome:
    return Outcome("done", seconds, Usage(*tokens) if tokens else None, model)


def test_reserve_holds_the_worst_case() -> None:
    """A model call holds its price and tokens with the full answer, one call and a millisecond."""
    b = budget(ALL_UNITS)
    assert b.reserve("r", "k", CALL, 0.0) == Admitted()
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 0, "seconds": 1}
    assert b.reserve("r", "t", TOOL, 0.0) == Admitted()
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 1, "seconds": 2}
    assert b.used("other") == {"usd": 0, "tokens": 0, "model_calls": 0, "tool_calls": 0, "seconds": 0}


@pytest.mark.parametrize(
    ("limits", "call", "refused"),
    [
        ({"usd_micro": 599}, CALL, ("budget.run.usd", 599, 0, 600)),
        ({"tokens": 149}, CALL, ("budget.run.tokens", 149, 0, 150)),
        ({"model_calls": 0}, CALL, ("budget.run.model_calls", 0, 0, 1)),
        ({"tool_calls": 0}, TOOL, ("budget.run.tool_calls", 0, 0, 1)),
        ({"milliseconds": 0}, TOOL, ("budget.run.seconds", 0, 0, 1)),
        ({"usd_micro": 10**9}, ModelCall("unknown", 1, 1), ("budget.unknown_price", 0, 0, 0)),
    ],
)
def test_each_cap_has_its_code(
    limits: dict[str, object], call: ModelCall | ToolCall, refused: tuple[object, ...]
) -> None:
    """The refusal names the cap that refused; nothing is held then."""
    b = budget(limits)
    assert b.reserve("r", "k", call, 0.0) == refused
    assert set(b.used("r").values()) == {0}


def test_what_has_no_cap_is_not_counted() -> None:
    """Without caps everything is admitted, also a model without a price; a tool needs no model's caps."""
    assert budget({}).reserve("r", "k", ModelCall("unknown", 10**9), 0.0) == Admitted()
    assert budget({"tokens": 10}).reserve("r", "k", ModelCall("unknown", 1, 1), 0.0) == Admitted()
    assert budget({"usd_micro": 0, "tokens": 0, "model_calls": 0}).reserve("r", "k", TOOL, 0.0) == Admitted()


def test_calls_without_a_limit_hold_the_assumption() -> None:
    """max_tokens 0 holds `output` tokens."""
    b = budget({"tokens": 5000}, output=300)
    b.reserve("r", "k", ModelCall("m", 100), 0.0)
    assert b.used("r") == {"tokens": 400}


def test_done_charges_what_was_used() -> None:
    """Real tokens, their price and the time replace the hold."""
    b = budget(ALL_UNITS)
    b.reserve("r", "k", CALL, 0.0)
    assert b.settle("r", "k", CALL, done(1.2345, (80, 3)))
    assert b.used("r") == {"usd": 110, "tokens": 83, "model_calls": 1, "tool_calls": 0, "seconds": 1235}


def test_done_without_usage_charges_the_hold() -> None:
    """A provider that sends no token counts does not make calls free."""
    b = budget(ALL_UNITS)
    b.reserve("r", "k", CALL, 0.0)
    b.settle("r", "k", CALL, done(2.0))
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 0, "seconds": 2000}


def test_the_model_that_answered_is_charged() -> None:
    """Its own price if it has one, else that of the model asked for."""
    prices = Prices({"m": {"input": "1", "output": "10"}, "n": {"input": "2", "output": "2"}})
    for model, cost in (("n", 20), ("m-2024", 55), ("", 55)):
        b = budget({"usd_micro": 1000}, prices=prices)
        b.reserve("r", "k", CALL, 0.0)
        b.settle("r", "k", CALL, done(0.0, (5, 5), model))
        assert b.used("r") == {"usd": cost}


def test_unknown_charges_the_hold_and_the_time() -> None:
    """A call that may have happened is paid for in full."""
    b = budget(ALL_UNITS)
    b.reserve("r", "k", CALL, 0.0)
    assert b.settle("r", "k", CALL, Outcome("unknown", 3.0, Usage(1, 1)))
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 0, "seconds": 3000}
    b.reserve("r", "k2", TOOL, 0.0)
    b.settle("r", "k2", TOOL, Outcome("unknown"))
    assert b.used("r")["seconds"] == 3001


def test_released_charges_nothing() -> None:
    """A call that never started gives everything back."""
    b = budget(ALL_UNITS)
    b.reserve("r", "k", CALL, 0.0)
    assert b.settle("r", "k", CALL, Outcome("released"))
    assert set(b.used("r").values()) == {0}


def test_a_released_call_counts_when_it_comes_again() -> None:
    """A call that waited for a person holds anew under its old key, each time, and is still counted once."""
    b = budget({"tool_calls": 1})
    for _ in range(3):
        assert b.reserve("r", "k", TOOL, 0.0) == Admitted()
        assert b.used("r") == {"tool_calls": 1}
        assert b.settle("r", "k", TOOL, Outcome("released"))
    assert b.reserve("r", "k", TOOL, 0.0) == Admitted()
    assert b.settle("r", "k", TOOL, done())
    assert b.reserve("r", "k", TOOL, 0.0) == Admitted(again=True)
    assert b.used("r") == {"tool_calls": 1}
    assert b.reserve("r", "other", TOOL, 0.0) == ("budget.run.tool_calls", 1, 1, 1)


def test_a_node_that_runs_again_is_counted_once() -> None:
    """The same key reserves and settles once; a model and a tool call may share it."""
    b = budget(ALL_UNITS)
    assert b.reserve("r", "k", CALL, 0.0) == Admitted()
    for _ in range(2):
        assert b.reserve("r", "k", CALL, 0.0) == Admitted(again=True)
    b.reserve("r", "k", TOOL, 0.0)
    assert b.used("r")["model_calls"] == b.used("r")["tool_calls"] == 1
    assert b.settle("r", "k", CALL, done(0.0, (1, 1))) is True
    assert b.settle("r", "k", CALL, done(9.0, (999, 999))) is False
    assert b.used("r")["tokens"] == 2


def test_overspend_is_charged_and_stops_the_next_call() -> None:
    """A call that used more than it held is charged in full, above the cap; nothing starts after it."""
    b = budget({"tokens": 1000}, output=10)
    call = ModelCall("m", 10)
    assert b.reserve("r", "k1", call, 0.0) == Admitted()
    b.settle("r", "k1", call, done(0.0, (10, 5000)))
    assert b.used("r") == {"tokens": 5010}
    assert b.reserve("r", "k2", call, 0.0) == ("budget.run.tokens", 1000, 5010, 20)


def test_time_stops_the_call_after() -> None:
    """A call may start while any time is left and is charged for all it took."""
    b = budget({"milliseconds": 1000})
    b.reserve("r", "k1", TOOL, 0.0)
    b.settle("r", "k1", TOOL, done(0.999))
    assert b.reserve("r", "k2", TOOL, 0.0) == Admitted()
    b.settle("r", "k2", TOOL, done(5.0))
    assert b.reserve("r", "k3", TOOL, 0.0) == ("budget.run.seconds", 1000, 5999, 1)


def test_nobody_settles() -> None:
    """A hold that is never settled stays charged after its time, and a month later for good."""
    b = budget({"tokens": 200}, ttl=60.0)
    b.reserve("r", "k1", CALL, 0.0)
    for now in (1000.0, KEPT + 60.0):
        assert b.reserve("r", "k2", CALL, now) == ("budget.run.tokens", 200, 150, 150)
    assert b.settle("r", "k1", CALL, done(0.0, (1, 1))) is False
    assert b.used("r") == {"tokens": 150}


def test_a_call_that_outlasts_its_hold_is_charged_what_it_used() -> None:
    """Twenty minutes of a tool count as twenty minutes, and a slow model's worst case is given back."""
    b = budget(ALL_UNITS | {"milliseconds": 600_000}, ttl=900.0)
    assert b.reserve("r", "agent", TOOL, 0.0) == Admitted()
    assert b.reserve("r", "slow", CALL, 0.0) == Admitted()
    assert b.reserve("r", "meanwhile", TOOL, 1100.0) == Admitted()
    assert b.settle("r", "agent", TOOL, done(1200.0)) is True
    assert b.settle("r", "slow", CALL, done(0.0, (80, 3))) is True
    assert b.used("r") == {"usd": 110, "tokens": 83, "model_calls": 1, "tool_calls": 2, "seconds": 1_200_001}
    assert b.settle("r", "agent", TOOL, done(1.0)) is False
    assert b.reserve("r", "next", CALL, 1201.0) == ("budget.run.seconds", 600_000, 1_200_001, 1)


def test_what_never_started_is_given_back_however_late() -> None:
    """A call that waited for a person longer than `ttl`, and was rejected, has cost nothing."""
    b = budget({"tool_calls": 1}, ttl=60.0)
    b.reserve("r", "asked", TOOL, 0.0)
    assert b.reserve("r", "other", TOOL, 86_400.0) == ("budget.run.tool_calls", 1, 1, 1)
    assert b.settle("r", "asked", TOOL, Outcome("released")) is True
    assert b.reserve("r", "other", TOOL, 86_400.0) == Admitted()


def test_warnings() -> None:
    """From the fraction on, the first admitted call of an account names the cap that it has come to; once."""
    b = budget({"tokens": 400, "model_calls": 4, "warn_at": 0.75})
    assert b.reserve("r", "k1", CALL, 0.0) == Admitted()
    assert b.reserve("r", "k2", CALL, 0.0) == Admitted(None, "budget.run.tokens")
    b.settle("r", "k2", CALL, done(0.0, (1, 1)))
    assert b.reserve("r", "k3", ModelCall("m", 140, 1), 0.0) == Admitted(None, "budget.run.model_calls")
    b.settle("r", "k3", CALL, done(0.0, (1, 1)))
    assert b.reserve("r", "k4", CALL, 0.0) == Admitted()


def test_a_warning_comes_once_from_all_processes() -> None:
    """Another budget on the same store does not warn of what was warned of."""
    store = MemoryStore()
    one, two = (budget({"model_calls": 2, "warn_at": 0.5}, store) for _ in range(2))
    assert one.reserve("r", "k1", CALL, 0.0) == Admitted(None, "budget.run.model_calls")
    assert two.reserve("r", "k2", CALL, 0.0) == Admitted()


def test_budgets_are_apart() -> None:
    """Accounts and prefixes do not touch each other, with the same keys on the same store."""
    store = MemoryStore()
    limits = {"model_calls": 1}
    run = budget(limits, store)
    shadow = budget(limits, store, prefix="shadow:")
    assert run.reserve("a", "k", CALL, 0.0) == Admitted()
    assert shadow.reserve("a", "k", CALL, 0.0) == Admitted()
    assert shadow.used("a") == {"model_calls": 1}
    assert run.reserve("b", "k2", CALL, 0.0) == Admitted()
    assert run.reserve("a", "k3", CALL, 0.0) == ("budget.run.model_calls", 1, 1, 1)


def test_bad_limits() -> None:
    """Negative caps and fractions that are none are a PolicyError."""
    for bad in ({"tokens": -1}, {"warn_at": 0.0}, {"warn_at": 80.0}, {"of": "nobody"}, {"zone": "Mars/Olympus"}):
        with pytest.raises(PolicyError):
            Limits("run", **bad)


calls = st.builds(ModelCall, st.just("m"), st.integers(0, 60), st.integers(1, 40)) | st.just(TOOL)
events = st.lists(
    st.tuples(st.sampled_from(["reserve", "done", "released", "unknown"]), st.integers(0, 7), st.integers(0, 100)),
    max_size=40,
)


@settings(deadline=None)
@given(st.lists(calls, min_size=8, max_size=8), events)
def test_never_over_a_cap(work: list[ModelCall | ToolCall], events: list[tuple[str, int, int]]) -> None:
    """In any order of reserving, settling, releasing and losing, calls that keep to their limit exceed no cap."""
    limits = {"usd_micro": 1500, "tokens": 200, "model_calls": 3, "tool_calls": 2}
    b = budget(limits, ttl=30.0)
    charged = 0
    for now, (what, index, share) in enumerate(events):
        call, key = work[index], str(index)
        if what == "reserve":
            b.reserve("r", key, call, float(now))
        else:
            usage = Usage(call.input_tokens, call.max_tokens * share // 100) if isinstance(call, ModelCall) else None
            settled = b.settle("r", key, call, Outcome(what, 0.0, usage))
            if settled and what == "done" and usage is not None:
                charged += usage.input_tokens + usage.output_tokens
        used = b.used("r")
        assert all(0 <= used[unit] <= cap for unit, cap in Limits("run", **limits).caps.items())
        assert used["tokens"] >= charged


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_calls_that_start_together(kind: str, tmp_path: Path) -> None:
    """64 threads with 2 cents each and a dollar to spend: 50 calls start."""
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "s.db")
    prices = Prices({"m": {"input": "20", "output": "0"}})
    b = budget(
        {"usd_micro": 1_000_000, "tokens": 10**9, "model_calls": 1000, "milliseconds": 10**6}, store, prices=prices
    )
    barrier, answers = threading.Barrier(64), []

    def work(index: int) -> None:
        barrier.wait()
        answers.append(b.reserve("r", str(index), ModelCall("m", 1000, 1), 0.0))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.count(Admitted()) == 50
    assert b.used("r")["usd"] == 1_000_000
    store.close()


# accounts, windows, and several budgets at once


def test_all_budgets_or_none() -> None:
    """A call counts against run, tenant and everybody at once; where one refuses, none of them holds anything."""
    store = MemoryStore()
    limits = [Limits("run", model_calls=2), Limits("tenant", model_calls=3), Limits("all", of="global", model_calls=4)]
    b = Budget(store, limits, PRICES)

    def used(run: str, tenant: str) -> list[int]:
        return [units["model_calls"] for units in b.used(event(run, "", CALL, tenant), 0.0).values()]

    def asked(run: str, key: str, tenant: str) -> str:
        answer = b.reserve(event(run, key, CALL, tenant), 0.0)
        return answer.code if isinstance(answer, Refused) else ""

    assert [asked("a", "1", "x"), asked("a", "2", "x")] == ["", ""]
    assert asked("a", "3", "x") == "budget.run.model_calls"
    assert used("a", "x") == [2, 2, 2]
    assert [asked("b", "4", "x"), asked("b", "5", "x")] == ["", "budget.tenant.model_calls"]
    assert used("b", "x") == [1, 3, 3]
    assert [asked("c", "6", "y"), asked("c", "7", "y")] == ["", "budget.all.model_calls"]
    assert used("c", "y") == [1, 1, 4]


def test_a_call_is_charged_to_the_window_it_began_in() -> None:
    """What is held at the end of one day and settled in the next stays in the first; the next day is full again."""
    b = Budget(MemoryStore(), [Limits("daily", of="tenant", per="day", tokens=150)], PRICES)
    late, early = event("r", "1", CALL, "x"), event("r", "2", CALL, "x")
    assert b.reserve(late, 86_399.0) == Admitted()
    refused = b.reserve(early, 86_399.5)
    assert isinstance(refused, Refused)
    assert dict(refused.facts) == {"cap": 150, "used": 150, "left": 0, "asked": 150, "resets": 86_400.0}
    assert b.reserve(early, 86_400.0) == Admitted()
    assert b.settle(late, done(0.0, (1, 2)), 86_400.0)
    assert b.used(early, 86_399.0) == {"daily": {"tokens": 3}}
    assert b.used(early, 86_400.0) == {"daily": {"tokens": 150}}


@pytest.mark.parametrize("per", ["minute", "hour", "day", "month"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns", "Australia/Lord_Howe"])
@given(now=st.floats(0, 4e9))
def test_windows_follow_each_other(per: Per, zone: str, now: float) -> None:
    """A window ends after it began, the next begins right there, and both have names of their own."""
    name, end = window(per, zone, now)
    assert now < end <= now + 32 * 86_400
    assert window(per, zone, end - 0.5)[0] == name
    assert window(per, zone, end)[0] != name


def test_actors_with_odd_names_share_nothing() -> None:
    """Separators in names do not make one account of two, and no account is another budget's."""
    pairs = [Actor("b", tenant="a"), Actor("", tenant="a/b"), Actor("a/b"), Actor("a:b"), Actor("b:c", tenant="a")]
    limits = Limits("actor", tokens=1)
    events = [Event(Stage.MODEL, Content(None), actor=actor, call=CALL, key="k") for actor in pairs]
    assert len({limits.account(each, 0.0) for each in events}) == len(pairs)
    assert not any(":" in limits.account(each, 0.0) for each in events)


def test_calls_to_one_tool() -> None:
    """A tool may have a cap of its own; another tool is not counted by it, whatever it is called."""
    b = budget({"tools": {"send": 1}})
    assert b.reserve("r", "1", ToolCall("send"), 0.0) == Admitted()
    assert b.reserve("r", "2", ToolCall("send"), 0.0) == ("budget.run.tool_calls.send", 1, 1, 1)
    assert b.reserve("r", "3", ToolCall("x:tool_calls.send"), 0.0) == Admitted()


def test_the_wall_clock() -> None:
    """Time since an account's first call runs on between calls; nothing starts after it."""
    b = budget({"wall": 60.0})
    assert b.reserve("r", "1", CALL, 1000.0) == Admitted()
    assert b.reserve("r", "2", CALL, 1060.0) == Admitted()
    assert b.reserve("r", "3", CALL, 1060.5) == ("budget.run.wall", 60_000, 60_500, 0)
    assert b.reserve("other", "4", CALL, 1060.5) == Admitted()


def test_risk_is_counted_in_points() -> None:
    """Tools cost the points that the policy names, verdicts are charged after the fact, once each."""
    b = budget({"risk": 5}, points={"send": 3})
    assert b.reserve("r", "1", ToolCall("send"), 0.0) == Admitted()
    assert b.reserve("r", "2", ToolCall("send"), 0.0) == ("budget.run.risk", 5, 3, 3)
    assert b.reserve("r", "3", ToolCall("read"), 0.0) == Admitted()
    for _ in range(2):
        b.budget.charge(event("r", "4", TOOL), "risk", 4, "flag-1", 0.0)
    assert b.used("r") == {"risk": 7}
    assert b.reserve("r", "5", ToolCall("read"), 0.0) == ("budget.run.risk", 5, 7, 0)


# shorter answers, and more of a budget


def limitable(input_tokens: int, most: int = 0) -> ModelCall:
    return ModelCall("m", input_tokens, most, limitable=True)


def test_an_answer_is_shortened_to_what_is_left() -> None:
    """A call that would not fit is admitted with a shorter answer, by tokens and by price, and holds just that."""
    b = budget({"tokens": 1000}, output=500)
    assert b.reserve("r", "1", limitable(100, 800), 0.0) == Admitted()
    assert b.reserve("r", "2", limitable(20, 800), 0.0) == Admitted(80)
    assert b.used("r") == {"tokens": 1000}
    b = budget({"usd_micro": 2000})
    assert b.reserve("r", "1", limitable(1000, 500), 0.0) == Admitted(100)  # 1,000 for the input, 10 per token out
    assert b.used("r") == {"usd": 2000}


def test_an_answer_is_not_shortened_to_nothing() -> None:
    """Below the least useful length the call is refused, as where the caller cannot limit the answer."""
    b = budget({"tokens": 1000}, least=100)
    assert b.reserve("r", "1", limitable(901, 800), 0.0) == ("budget.run.tokens", 1000, 0, 1701)
    assert b.reserve("r", "2", ModelCall("m", 100, 950), 0.0) == ("budget.run.tokens", 1000, 0, 1050)
    assert b.reserve("r", "3", limitable(900, 800), 0.0) == Admitted(100)


def test_an_answer_without_a_limit_gets_one() -> None:
    """Where money or tokens are capped, a call without a limit is limited to what is held for it."""
    assert budget({"tokens": 10_000}, output=500).reserve("r", "1", limitable(10), 0.0) == Admitted(500)
    assert budget({"model_calls": 1}, output=500).reserve("r", "1", limitable(10), 0.0) == Admitted()


def test_the_tightest_budget_decides_how_short() -> None:
    """With several budgets the answer fits into all of them."""
    limits = [Limits("run", tokens=700), Limits("tenant", usd_micro=4000), Limits("all", of="global", tokens=350)]
    b = Budget(MemoryStore(), limits, PRICES)
    assert b.reserve(event("r", "1", limitable(100, 1000)), 0.0) == Admitted(250)


def test_an_unknown_outcome_of_a_short_answer_charges_what_was_held() -> None:
    """What is charged for a call that got lost is what it could have used."""
    b = budget({"tokens": 1000})
    assert b.reserve("r", "1", limitable(100, 5000), 0.0) == Admitted(900)
    assert b.settle("r", "1", limitable(100, 5000), Outcome("unknown", 0.0, limit=900))
    assert b.used("r") == {"tokens": 1000}


def test_a_person_raises_a_cap_once() -> None:
    """Each permission raises the cap it names by itself once, for that account only."""
    limits = [Limits("run", model_calls=1, then="ask"), Limits("tenant", model_calls=100)]
    b = Budget(MemoryStore(), limits, PRICES)

    def asked(run: str, key: str) -> str:
        answer = b.reserve(event(run, key, CALL), 0.0)
        return answer.code if isinstance(answer, Refused) else ""

    assert [asked("a", "1"), asked("a", "2")] == ["", "budget.run.model_calls"]
    for _ in range(2):
        b.grant(event("a", "2", CALL), "budget.run.model_calls", "approval-1", 0.0)
    assert [asked("a", "2"), asked("a", "3")] == ["", "budget.run.model_calls"]
    b.grant(event("a", "3", CALL), "budget.run.model_calls", "approval-2", 0.0)
    assert asked("a", "3") == ""
    assert [asked("b", "4"), asked("b", "5")] == ["", "budget.run.model_calls"]


def test_a_model_without_a_price_may_be_allowed() -> None:
    """Then it counts as free, and its tokens still count."""
    b = budget({"usd_micro": 1, "tokens": 5000}, unpriced=True)
    assert b.reserve("r", "k", ModelCall("unknown", 10, 10), 0.0) == Admitted()
    assert b.used("r") == {"usd": 0, "tokens": 20}
