"""Prices of the models of the world, as the package genai-prices keeps them: tiers, dates, caches, audio."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

from guardrails_mw.errors import PolicyError
from guardrails_mw.verdict import Usage

if TYPE_CHECKING:
    from genai_prices import Usage as TheirUsage

__all__ = ["GenaiPrices"]

_MAX_KNOWN = 1024


class GenaiPrices:
    """The price list of genai-prices, with the data that came with the package; it never asks the network.

    A call takes their package about 0.1 ms, so costs of what was asked before on the same day are remembered.

    Raises:
        PolicyError: the package is not installed.
    """

    def __init__(self) -> None:
        try:
            import genai_prices
        except ImportError:
            raise PolicyError(
                "prices of genai-prices need the extra 'prices': pip install 'guardrails-mw[prices]'",
                field="price_list",
            ) from None
        self._theirs = genai_prices
        self._known: OrderedDict[tuple[str, Usage, int], int | None] = OrderedDict()
        self.cost("gpt-4o", Usage(1, 1))  # loads the list now, and not within a request

    def cost(self, model: str, usage: Usage) -> int | None:
        """Micro-dollars at today's prices, rounded up; None when the list does not know the model."""
        now = datetime.now(UTC)
        asked = (model, usage, now.toordinal())
        if asked in self._known:
            return self._known[asked]
        try:
            found = self._theirs.calc_price(self._usage(usage), model, genai_request_timestamp=now)
            cost = ceil(found.total_price * Decimal(1_000_000))
        except (LookupError, ValueError):
            cost = None
        self._known[asked] = cost
        while len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)
        return cost

    def _usage(self, used: Usage) -> TheirUsage:
        return self._theirs.Usage(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cached_tokens or None,
            cache_write_tokens=used.cache_write_tokens or None,
            input_audio_tokens=used.audio_input_tokens or None,
            output_audio_tokens=used.audio_output_tokens or None,
        )
