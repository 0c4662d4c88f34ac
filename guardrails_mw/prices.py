"""What a model call costs, in whole millionths of a dollar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Protocol

import re2

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.verdict import Usage

__all__ = ["PriceList", "Prices"]

_DIGITS = 12
_MAX = 10**9
_SCALE: int = 10**_DIGITS
_KEYS = ("input", "output")
_MORE = {
    "cached_input": "input",
    "cache_write": "input",
    "audio_input": "input",
    "reasoning": "output",
    "audio_output": "output",
}
"""Prices that may be left out, and what they are then."""


class PriceList(Protocol):
    """Prices that somebody keeps up to date."""

    def cost(self, model: str, usage: Usage) -> int | None:
        """Micro-dollars, rounded up; None when the price is unknown."""


@dataclass(frozen=True, slots=True)
class _Rates:
    """What a model costs, in 10^-12 dollars per million tokens."""

    input: int
    output: int
    cached_input: int
    cache_write: int
    audio_input: int
    reasoning: int
    audio_output: int

    def cost(self, used: Usage) -> int:
        plain_in = used.input_tokens - used.cached_tokens - used.cache_write_tokens - used.audio_input_tokens
        plain_out = used.output_tokens - used.reasoning_tokens - used.audio_output_tokens
        total = self.input * max(0, plain_in) + self.output * max(0, plain_out)
        total += self.cached_input * used.cached_tokens + self.cache_write * used.cache_write_tokens
        total += self.audio_input * used.audio_input_tokens + self.audio_output * used.audio_output_tokens
        return _rounded_up(total + self.reasoning * used.reasoning_tokens)

    @property
    def dearest(self) -> tuple[int, int]:
        """The dearest price of a token that goes in, and of one that comes out."""
        into = max(self.input, self.cached_input, self.cache_write, self.audio_input)
        return into, max(self.output, self.reasoning, self.audio_output)


class Prices:
    """Prices of models by name.

    A name may hold ``*`` (any characters) and ``?`` (one character). The most specific name wins: the
    exact one, then the one with the most literal characters, then the fewest wildcards, then the first
    in the alphabet. Upper and lower case differ.

    Args:
        table: per name ``{input, output}``: US dollars per million tokens, best written as decimal texts. There may
            be ``cached_input``, ``cache_write`` and ``audio_input`` (as input where left out), ``reasoning`` and
            ``audio_output`` (as output where left out).
        others: asked about models that the table does not name.

    Raises:
        PolicyError: not such a table.

    >>> prices = Prices({"m*": {"input": "2.50", "output": "10"}, "m-mini*": {"input": "0.15", "output": "0.6"}})
    >>> prices.cost("m-mini-2024", Usage(1000, 1))  # 150 + 0.6 micro-dollars, rounded up
    151
    >>> prices.cost("other", Usage(1, 1)) is None
    True
    """

    def __init__(
        self,
        table: Mapping[str, Mapping[str, Decimal | str | int | float]],
        others: PriceList | None = None,
    ) -> None:
        self._others = others
        rates = {name: _rates(name, entry) for name, entry in table.items()}
        globs = sorted((name for name in rates if set(name) & set("*?")), key=_specificity)
        patterns = [(name, re2.compile(_pattern(name))) for name in globs]

        @lru_cache(maxsize=256)
        def find(model: str) -> str | None:
            if model in rates:
                return model
            return next((name for name, pattern in patterns if pattern.fullmatch(model)), None)

        self._find, self._rates = find, rates
        self._dearest = {name: each.dearest for name, each in rates.items()}

    def cost(self, model: str, usage: Usage, asked: str = "") -> int | None:
        """Micro-dollars, rounded up, so that no use is free; None when the price is unknown.

        A dollar per million tokens is a micro-dollar per token. The arithmetic is in integers throughout.

        Args:
            model: the name of the model that answered.
            usage: what it used.
            asked: the name it was asked for by, which counts where the table is more specific about it: `gpt-x`
                answers as `gpt-x-2026-01-31`, and that is no other model.
        """
        if model in self._rates:
            return self._rates[model].cost(usage)
        models = [name for name in (model, asked) if name]
        found = [name for name in map(self._find, models) if name is not None]
        if found:
            return self._rates[min(found, key=lambda each: _specificity(each)[:2])].cost(usage)
        costs = (self._others.cost(name, usage) for name in models) if self._others is not None else ()
        return next((cost for cost in costs if cost is not None), None)

    def most(self, model: str, input_tokens: int, output_tokens: int) -> int | None:
        """The most that a call can cost, whatever its tokens turn out to be: written to a cache, audio, reasoning."""
        name = self._find(model)
        if name is not None:
            into, out = self._dearest[name]
            return _rounded_up(into * input_tokens + out * output_tokens)
        if self._others is None:
            return None
        plain = Usage(input_tokens, output_tokens)
        ways = (
            plain,
            replace(plain, cache_write_tokens=input_tokens),
            replace(plain, audio_input_tokens=input_tokens, audio_output_tokens=output_tokens),
        )
        costs = [cost for way in ways if (cost := self._others.cost(model, way)) is not None]
        return max(costs, default=None)

    def output_for(self, model: str, input_tokens: int, left: int, most: int) -> int:
        """The most output tokens, up to `most`, of a call that cannot cost more than `left`; -1 where none are."""
        low, high = -1, most
        while low < high:  # prices may have steps, but more output never costs less
            middle = (low + high + 1) // 2
            cost = self.most(model, input_tokens, middle)
            low, high = (middle, high) if cost is not None and cost <= left else (low, middle - 1)
        return low


def _rounded_up(scaled: int) -> int:
    """Micro-dollars of tokens times their rates."""
    return -(-scaled // _SCALE)


def _specificity(name: str) -> tuple[int, int, str]:
    wildcards = name.count("*") + name.count("?")
    return (wildcards - len(name), wildcards, name)


def _pattern(name: str) -> str:
    return "(?s)" + "".join({"*": ".*", "?": "."}.get(char) or str(re2.escape(char)) for char in name)


def _rates(name: str, entry: Mapping[str, Decimal | str | int | float]) -> _Rates:
    if not isinstance(entry, Mapping):
        raise PolicyError("a price is a mapping {input, output}", field=f"prices.{name}")
    for key in entry:
        if key not in _KEYS and key not in _MORE:
            raise PolicyError(f"unknown key; {nearest(str(key), [*_KEYS, *_MORE])}", field=f"prices.{name}.{key}")
    for key in _KEYS:
        if key not in entry:
            raise PolicyError("missing; write 0 if it is free", field=f"prices.{name}.{key}")
    rates = {key: _scaled(f"prices.{name}.{key}", entry[key]) for key in entry}
    return _Rates(**{**{key: rates[usual] for key, usual in _MORE.items()}, **rates})


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
