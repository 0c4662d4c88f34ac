"""What a model call costs, in whole millionths of a dollar."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache

import re2

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError

__all__ = ["Prices"]

_DIGITS = 12
_MAX = 10**9
_SCALE: int = 10**_DIGITS
_KEYS = ["input", "output"]


class Prices:
    """Prices of models by name.

    A name may hold ``*`` (any characters) and ``?`` (one character). The most specific name wins: the
    exact one, then the one with the most literal characters, then the fewest wildcards, then the first
    in the alphabet. Upper and lower case differ.

    Args:
        table: per name ``{input, output}``: US dollars per million tokens, best written as decimal texts.

    Raises:
        PolicyError: not such a table.

    >>> prices = Prices({"m*": {"input": "2.50", "output": "10"}, "m-mini*": {"input": "0.15", "output": "0.6"}})
    >>> prices.cost("m-mini-2024", input_tokens=1000, output_tokens=1)  # 150 + 0.6 micro-dollars, rounded up
    151
    >>> prices.cost("other", 1, 1) is None
    True
    """

    def __init__(self, table: Mapping[str, Mapping[str, Decimal | str | int | float]]) -> None:
        rates = {name: _rates(name, entry) for name, entry in table.items()}
        globs = sorted((name for name in rates if set(name) & set("*?")), key=_specificity)
        patterns = [(re2.compile(_pattern(name)), rates[name]) for name in globs]

        @lru_cache(maxsize=256)
        def find(model: str) -> tuple[int, int] | None:
            exact = rates.get(model)
            return exact or next((rate for pattern, rate in patterns if pattern.fullmatch(model)), None)

        self._find = find

    def knows(self, model: str) -> bool:
        """Whether there is a price for this model."""
        return self._find(model) is not None

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> int | None:
        """Micro-dollars, rounded up, so that no use is free; None when the price is unknown.

        A dollar per million tokens is a micro-dollar per token. The arithmetic is in integers throughout.
        """
        rate = self._find(model)
        if rate is None:
            return None
        return -(-(rate[0] * input_tokens + rate[1] * output_tokens) // _SCALE)


def _specificity(name: str) -> tuple[int, int, str]:
    wildcards = name.count("*") + name.count("?")
    return (wildcards - len(name), wildcards, name)


def _pattern(name: str) -> str:
    return "(?s)" + "".join({"*": ".*", "?": "."}.get(char) or str(re2.escape(char)) for char in name)


def _rates(name: str, entry: Mapping[str, Decimal | str | int | float]) -> tuple[int, int]:
    """Both prices in 10^-12 dollars per million tokens."""
    if not isinstance(entry, Mapping):
        raise PolicyError("a price is a mapping {input, output}", field=f"prices.{name}")
    for key in entry:
        if key not in _KEYS:
            raise PolicyError(f"unknown key; {nearest(str(key), _KEYS)}", field=f"prices.{name}.{key}")
    for key in _KEYS:
        if key not in entry:
            raise PolicyError("missing; write 0 if it is free", field=f"prices.{name}.{key}")
    return _scaled(f"prices.{name}.input", entry["input"]), _scaled(f"prices.{name}.output", entry["output"])


def _scaled(field: str, value: object) -> int:
    problem = f"not a price: US dollars per million tokens, 0 to {_MAX}, at most {_DIGITS} decimals, such as '0.15'"
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int | float):
        raise PolicyError(problem, field=field)
    try:
        amount = Decimal(str(value))  # of a float this is what was written, not its binary neighbour
    except InvalidOperation:
        raise PolicyError(problem, field=field) from None
    if not amount.is_finite() or not 0 <= amount <= _MAX or len(amount.as_tuple().digits) > 28:
        raise PolicyError(problem, field=field)
    scaled = amount.scaleb(_DIGITS)
    if scaled != scaled.to_integral_value() or bool(scaled) != bool(amount):
        raise PolicyError(problem, field=field)
    return int(scaled)
