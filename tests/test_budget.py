"""Budgets: never more admitted than fits, and what was used is what is charged."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrails_mw.budget import Admitted, Budget, Limits, Refused
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import ModelCall, ToolCall
from guardrails_mw.prices import Prices
from guardrails_mw.store import Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.verdict import Outcome, Usage

PRICES = Prices({"m*": {"input": "1", "output": "10"}})
CALL = ModelCall("m", input_tokens=100, max_tokens=50)  # 600 micro-dollars, 150 tokens
TOOL = ToolCall("t")
ALL = Limits(usd_micro=2000, tokens=10_000, model_calls=5, tool_calls=2, milliseconds=60_000)


def budget(limits: Limits, store: Store | None = None, **options: object) -> Budget:
    return Budget(store or MemoryStore(), limits, PRICES, **options)


def done(seconds: float = 0.0, tokens: tuple[int, int] | None = None, model: str = "") -> Outcome:
    return Outcome("done", seconds, Usage(*tokens) if tokens else None, model)


def test_reserve_holds_the_worst_case() -> None:
    """A model call holds its price and tokens with the full answer, one call and a millisecond."""
    b = budget(ALL)
    assert b.reserve("r", "k", CALL, 0.0) == Admitted()
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 0, "seconds": 1}
    assert b.reserve("r", "t", TOOL, 0.0) == Admitted()
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 1, "seconds": 2}
    assert b.used("other") == {"usd": 0, "tokens": 0, "model_calls": 0, "tool_calls": 0, "seconds": 0}


@pytest.mark.parametrize(
    ("limits", "call", "refused"),
    [
        (Limits(usd_micro=599), CALL, Refused("budget.usd", 599, 0, 600)),
        (Limits(tokens=149), CALL, Refused("budget.tokens", 149, 0, 150)),
        (Limits(model_calls=0), CALL, Refused("budget.model_calls", 0, 0, 1)),
        (Limits(tool_calls=0), TOOL, Refused("budget.tool_calls", 0, 0, 1)),
        (Limits(milliseconds=0), TOOL, Refused("budget.seconds", 0, 0, 1)),
        (Limits(usd_micro=10**9), ModelCall("unknown", 1, 1), Refused("budget.unknown_price")),
    ],
)
def test_each_cap_has_its_code(limits: Limits, call: ModelCall | ToolCall, refused: Refused) -> None:
    """The refusal names the cap that refused; nothing is held then."""
    b = budget(limits)
    assert b.reserve("r", "k", call, 0.0) == refused
    assert set(b.used("r").values()) == {0}


def test_what_has_no_cap_is_not_counted() -> None:
    """Without caps everything is admitted, also a model without a price; a tool needs no model's caps."""
    assert budget(Limits()).reserve("r", "k", ModelCall("unknown", 10**9), 0.0) == Admitted()
    assert budget(Limits(tokens=10)).reserve("r", "k", ModelCall("unknown", 1, 1), 0.0) == Admitted()
    assert budget(Limits(usd_micro=0, tokens=0, model_calls=0)).reserve("r", "k", TOOL, 0.0) == Admitted()


def test_calls_without_a_limit_hold_the_assumption() -> None:
    """max_tokens 0 holds `assume_output` tokens."""
    b = budget(Limits(tokens=5000), assume_output=300)
    b.reserve("r", "k", ModelCall("m", 100), 0.0)
    assert b.used("r") == {"tokens": 400}


def test_done_charges_what_was_used() -> None:
    """Real tokens, their price and the time replace the hold."""
    b = budget(ALL)
    b.reserve("r", "k", CALL, 0.0)
    assert b.settle("r", "k", CALL, done(1.2345, (80, 3)))
    assert b.used("r") == {"usd": 110, "tokens": 83, "model_calls": 1, "tool_calls": 0, "seconds": 1235}


def test_done_without_usage_charges_the_hold() -> None:
    """A provider that sends no token counts does not make calls free."""
    b = budget(ALL)
    b.reserve("r", "k", CALL, 0.0)
    b.settle("r", "k", CALL, done(2.0))
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 0, "seconds": 2000}


def test_the_model_that_answered_is_charged() -> None:
    """Its own price if it has one, else that of the model asked for."""
    prices = Prices({"m": {"input": "1", "output": "10"}, "n": {"input": "2", "output": "2"}})
    for model, cost in (("n", 20), ("m-2024", 55), ("", 55)):
        b = Budget(MemoryStore(), Limits(usd_micro=1000), prices)
        b.reserve("r", "k", CALL, 0.0)
        b.settle("r", "k", CALL, done(0.0, (5, 5), model))
        assert b.used("r") == {"usd": cost}


def test_unknown_charges_the_hold_and_the_time() -> None:
    """A call that may have happened is paid for in full."""
    b = budget(ALL)
    b.reserve("r", "k", CALL, 0.0)
    assert b.settle("r", "k", CALL, Outcome("unknown", 3.0, Usage(1, 1)))
    assert b.used("r") == {"usd": 600, "tokens": 150, "model_calls": 1, "tool_calls": 0, "seconds": 3000}
    b.reserve("r", "k2", TOOL, 0.0)
    b.settle("r", "k2", TOOL, Outcome("unknown"))
    assert b.used("r")["seconds"] == 3001


def test_released_charges_nothing() -> None:
    """A call that never started gives everything back."""
    b = budget(ALL)
    b.reserve("r", "k", CALL, 0.0)
    assert b.settle("r", "k", CALL, Outcome("released"))
    assert set(b.used("r").values()) == {0}


def test_a_released_call_counts_when_it_comes_again() -> None:
    """A call that waited for a person holds anew under its old key, each time, and is still counted once."""
    b = budget(Limits(tool_calls=1))
    for _ in range(3):
        assert b.reserve("r", "k", TOOL, 0.0) == Admitted()
        assert b.used("r") == {"tool_calls": 1}
        assert b.settle("r", "k", TOOL, Outcome("released"))
    assert b.reserve("r", "k", TOOL, 0.0) == Admitted()
    assert b.settle("r", "k", TOOL, done())
    assert b.reserve("r", "k", TOOL, 0.0) == Admitted()
    assert b.used("r") == {"tool_calls": 1}
    assert b.reserve("r", "other", TOOL, 0.0) == Refused("budget.tool_calls", 1, 1, 1)


def test_a_node_that_runs_again_is_counted_once() -> None:
    """The same key reserves and settles once; a model and a tool call may share it."""
    b = budget(ALL)
    for _ in range(3):
        assert b.reserve("r", "k", CALL, 0.0) == Admitted()
    b.reserve("r", "k", TOOL, 0.0)
    assert b.used("r")["model_calls"] == b.used("r")["tool_calls"] == 1
    assert b.settle("r", "k", CALL, done(0.0, (1, 1))) is True
    assert b.settle("r", "k", CALL, done(9.0, (999, 999))) is False
    assert b.used("r")["tokens"] == 2


def test_overspend_is_charged_and_stops_the_next_call() -> None:
    """A call that used more than it held is charged in full, above the cap; nothing starts after it."""
    b = budget(Limits(tokens=1000), assume_output=10)
    call = ModelCall("m", 10)
    assert b.reserve("r", "k1", call, 0.0) == Admitted()
    b.settle("r", "k1", call, done(0.0, (10, 5000)))
    assert b.used("r") == {"tokens": 5010}
    assert b.reserve("r", "k2", call, 0.0) == Refused("budget.tokens", 1000, 5010, 20)


def test_time_stops_the_call_after() -> None:
    """A call may start while any time is left and is charged for all it took."""
    b = budget(Limits(milliseconds=1000))
    b.reserve("r", "k1", TOOL, 0.0)
    b.settle("r", "k1", TOOL, done(0.999))
    assert b.reserve("r", "k2", TOOL, 0.0) == Admitted()
    b.settle("r", "k2", TOOL, done(5.0))
    assert b.reserve("r", "k3", TOOL, 0.0) == Refused("budget.seconds", 1000, 5999, 1)


def test_nobody_settles() -> None:
    """A hold that is never settled stays charged after its time."""
    b = budget(Limits(tokens=200), ttl=60.0)
    b.reserve("r", "k1", CALL, 0.0)
    assert b.reserve("r", "k2", CALL, 1000.0) == Refused("budget.tokens", 200, 150, 150)
    assert b.settle("r", "k1", CALL, done(0.0, (1, 1))) is False
    assert b.used("r") == {"tokens": 150}


def test_warnings() -> None:
    """From the fraction on, admitted calls name the units that have come so far."""
    b = budget(Limits(tokens=400, model_calls=4, warn_at=0.75))
    assert b.reserve("r", "k1", CALL, 0.0) == Admitted()
    assert b.reserve("r", "k2", CALL, 0.0) == Admitted(("tokens",))
    b.settle("r", "k2", CALL, done(0.0, (1, 1)))
    assert b.reserve("r", "k3", ModelCall("m", 1, 1), 0.0) == Admitted(("model_calls",))


def test_budgets_are_apart() -> None:
    """Accounts, names and prefixes do not touch each other, with the same keys on the same store."""
    store = MemoryStore()
    limits = Limits(model_calls=1)
    run = budget(limits, store)
    others = [budget(limits, store, name="tenant"), budget(limits, store, prefix="shadow:")]
    assert run.reserve("a", "k", CALL, 0.0) == Admitted()
    for other in others:
        assert other.reserve("a", "k", CALL, 0.0) == Admitted()
        assert other.used("a") == {"model_calls": 1}
    assert run.reserve("b", "k2", CALL, 0.0) == Admitted()
    assert run.reserve("a", "k3", CALL, 0.0) == Refused("budget.model_calls", 1, 1, 1)


def test_bad_limits() -> None:
    """Negative caps and fractions that are none are a PolicyError."""
    for bad in ({"tokens": -1}, {"warn_at": 0.0}, {"warn_at": 80.0}):
        with pytest.raises(PolicyError):
            Limits(**bad)


calls = st.builds(ModelCall, st.just("m"), st.integers(0, 60), st.integers(1, 40)) | st.just(TOOL)
events = st.lists(
    st.tuples(st.sampled_from(["reserve", "done", "released", "unknown"]), st.integers(0, 7), st.integers(0, 100)),
    max_size=40,
)


@settings(deadline=None)
@given(st.lists(calls, min_size=8, max_size=8), events)
def test_never_over_a_cap(work: list[ModelCall | ToolCall], events: list[tuple[str, int, int]]) -> None:
    """In any order of reserving, settling, releasing and losing, calls that keep to their limit exceed no cap."""
    limits = Limits(usd_micro=1500, tokens=200, model_calls=3, tool_calls=2)
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
        assert all(0 <= used[unit] <= cap for unit, cap in limits.caps.items())
        assert used["tokens"] >= charged


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_calls_that_start_together(kind: str, tmp_path: Path) -> None:
    """64 threads with 2 cents each and a dollar to spend: 50 calls start."""
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "s.db")
    prices = Prices({"m": {"input": "20", "output": "0"}})
    b = Budget(store, Limits(usd_micro=1_000_000, tokens=10**9, model_calls=1000, milliseconds=10**6), prices)
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
