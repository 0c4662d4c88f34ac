"""Prices of models that a policy does not name."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import make_guard

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, ModelCall, Stage, Where
from guardrails_mw.price_list import GenaiPrices
from guardrails_mw.prices import Prices
from guardrails_mw.verdict import Outcome, Usage

LIST = GenaiPrices()


def test_the_list_is_that_of_the_package() -> None:
    """Costs are those that genai-prices calculates, rounded up; caches are cheaper, unknown models have no price."""
    from genai_prices import Usage as Theirs
    from genai_prices import calc_price

    theirs = calc_price(Theirs(input_tokens=1_000_003, output_tokens=1000), "gpt-4o").total_price * 1_000_000
    cost = LIST.cost("gpt-4o", Usage(1_000_003, 1000))
    assert cost is not None
    assert 0 <= cost - theirs < 1
    assert LIST.cost("gpt-4o", Usage(1_000_003, 1000, cached_tokens=900_000)) < cost
    assert LIST.cost("a-model-that-nobody-made", Usage(1, 1)) is None


def test_tiers_are_respected() -> None:
    """Where a long context costs more per token, twice the tokens cost more than twice as much."""
    short, long = (LIST.cost("gemini-2.5-pro", Usage(tokens, 0)) for tokens in (150_000, 300_000))
    assert short is not None
    assert long is not None
    assert long > 2 * short


def test_own_prices_win() -> None:
    """What the policy names is not looked up; what it does not name is."""
    prices = Prices({"gpt-4o": {"input": "1", "output": "1"}}, LIST)
    assert prices.cost("gpt-4o", Usage(10, 10)) == 20
    assert prices.cost("gpt-4o-mini", Usage(10, 10)) == LIST.cost("gpt-4o-mini", Usage(10, 10))
    left = LIST.cost("gpt-4o-mini", Usage(1000, 500))
    assert left is not None
    most = prices.output_for("gpt-4o-mini", 1000, left, 10_000)
    assert prices.cost("gpt-4o-mini", Usage(1000, most)) <= left < prices.cost("gpt-4o-mini", Usage(1000, most + 2))


def test_a_policy_counts_by_the_list(tmp_path: Path) -> None:
    """A budget in dollars needs no prices of its own; a model that nobody knows is blocked."""
    with make_guard(tmp_path, "budgets: {run: {usd: 1}}\nprice_list: genai-prices") as guard:

        def call(name: str) -> Event:
            where = Where(run="r")
            return Event(Stage.MODEL, Content(None), where=where, call=ModelCall(name, 1000, 100), key=name)

        decision = guard.decide(call("gpt-4o"))
        guard.settle(decision, Outcome("done", 0.1, Usage(1000, 100), "gpt-4o-2024-08-06"))
        assert guard.spend("model")[0].usd_micro == LIST.cost("gpt-4o-2024-08-06", Usage(1000, 100))
        assert guard.decide(call("a-model-that-nobody-made")).verdict.reason == "budget.unknown_price"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for the list without the package is a policy error that says what to install."""
    import sys

    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(PolicyError, match=r"guardrails-mw\[prices\]"):
        GenaiPrices()
