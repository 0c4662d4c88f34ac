"""Prices: exact, rounded up, and only for models that have one."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import PolicyError
from guardrails_mw.prices import Prices
from guardrails_mw.verdict import Usage

FREE = {"input": "0", "output": "0"}


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**7), st.integers(0, 10**7))
def test_cost_is_exact_and_rounded_up(price_in: int, price_out: int, tokens_in: int, tokens_out: int) -> None:
    """The cost is the exact product, rounded up to the next micro-dollar."""
    prices = Prices({"m": {"input": f"{price_in}e-4", "output": f"{price_out}e-4"}})
    cost = prices.cost("m", Usage(tokens_in, tokens_out))
    exact = Fraction(price_in * tokens_in + price_out * tokens_out, 10**4)
    assert cost is not None
    assert 0 <= cost - exact < 1


def test_cost_of_a_known_price() -> None:
    """2.50 and 10 dollars per million: a million of each is 12.50 dollars; one token of 0.15 is not free."""
    prices = Prices({"m": {"input": "2.50", "output": 10}, "mini": {"input": 0.15, "output": 0.6}})
    assert prices.cost("m", Usage(10**6, 10**6)) == 12_500_000
    assert prices.cost("mini", Usage(1, 0)) == 1
    assert prices.cost("mini", Usage(20, 0)) == 3  # 20 x 0.15 is 3 and not 3.0000000000000004, which would be 4
    assert prices.cost("mini", Usage(0, 0)) == 0
    assert Prices({"d": {"input": Decimal("0.15"), "output": Decimal(0)}}).cost("d", Usage(20, 9)) == 3


def test_most_specific_name_wins() -> None:
    """Exact before glob, more literal characters before fewer, whatever the order in the file."""
    names = ["*", "gpt-*", "gpt-4o*", "gpt-4o", "gpt-4o-mini*", "gpt-4?"]
    table = {name: {"input": str(index + 1), "output": "0"} for index, name in enumerate(names)}
    expected = {
        "claude": "*", "gpt-5": "gpt-*", "gpt-4o": "gpt-4o", "gpt-4o-2024": "gpt-4o*",
        "gpt-4o-mini-x": "gpt-4o-mini*", "gpt-4x": "gpt-4?", "GPT-4o": "*",
    }  # fmt: skip
    for order in (names, names[::-1]):
        prices = Prices({name: table[name] for name in order})
        for model, name in expected.items():
            assert prices.cost(model, Usage(1, 0)) == names.index(name) + 1


def test_equally_specific_names_are_decided_by_alphabet() -> None:
    """Two globs that are as specific as each other give the same answer in every order."""
    one, two = {"a*": {"input": "1", "output": "0"}}, {"*a": {"input": "2", "output": "0"}}
    assert Prices({**one, **two}).cost("aa", Usage(1, 0)) == Prices({**two, **one}).cost("aa", Usage(1, 0)) == 2


def test_names_are_not_patterns() -> None:
    """Only * and ? are special; dots, brackets and slashes are themselves."""
    prices = Prices({"a.b[1]/c+": FREE, "x.*": FREE})
    assert prices.cost("a.b[1]/c+", Usage(1, 1)) == 0
    assert prices.cost("x.\ny", Usage(1, 1)) == 0
    assert prices.cost("axb1/c", Usage(1, 1)) is None
    assert prices.cost("xx1", Usage(1, 1)) is None
    assert prices.cost("", Usage(1, 1)) is None


@pytest.mark.parametrize(
    ("entry", "hint"),
    [
        ({"input": "1", "output": "-1"}, r"prices\.m\.output: not a price"),
        ({"input": "NaN", "output": "1"}, "not a price"),
        ({"input": "Infinity", "output": "1"}, "not a price"),
        ({"input": "1e-999999999", "output": "1"}, "not a price"),
        ({"input": "1e999999", "output": "1"}, "not a price"),
        ({"input": "0.0000000000001", "output": "1"}, "at most 12 decimals"),
        ({"input": "cheap", "output": "1"}, "not a price"),
        ({"input": True, "output": "1"}, "not a price"),
        ({"input": None, "output": "1"}, "not a price"),
        ({"input": "1"}, r"prices\.m\.output: missing"),
        ({"input": "1", "outptu": "1"}, "did you mean 'output'"),
        ("1", "a mapping"),
    ],
)
def test_bad_prices(entry: dict[str, str], hint: str) -> None:
    """What is not a price is a PolicyError that names the field."""
    with pytest.raises(PolicyError, match=hint):
        Prices({"m": entry})
