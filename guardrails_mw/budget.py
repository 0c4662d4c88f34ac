"""Budgets: reserve the worst case before a call, settle what it really used.

Everything is counted in whole units: micro-dollars, tokens, calls, milliseconds. One reservation holds all
units of an account or none, in one step of the store, so calls that start together cannot overspend.

What can exceed a cap: a call that uses more than was held for it, because the model has no limit of its own
(`Budget` then holds `assume_output` tokens) or the estimate of its input was low, and the time of a call,
which nobody knows before. The real amount is charged even so, and the next call is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import ModelCall, ToolCall
from guardrails_mw.prices import Prices
from guardrails_mw.store import Claim, Refusal, Store
from guardrails_mw.verdict import Outcome

__all__ = ["Admitted", "Budget", "Limits", "Refused"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps of an account; None is no cap.

    Attributes:
        usd_micro: millionths of a US dollar.
        tokens: input and output together.
        milliseconds: time spent in model and tool calls, not the time between them.
        warn_at: fraction of a cap from which an admitted call carries a warning, such as 0.8.

    Raises:
        PolicyError: a cap that is negative or a fraction outside 0 to 1.
    """

    usd_micro: int | None = None
    tokens: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    milliseconds: int | None = None
    warn_at: float | None = None

    def __post_init__(self) -> None:
        if any(cap < 0 for cap in self.caps.values()):
            raise PolicyError("a cap is 0 or more")
        if self.warn_at is not None and not 0 < self.warn_at <= 1:
            raise PolicyError("warn_at is a fraction above 0 and up to 1, such as 0.8")

    @property
    def caps(self) -> dict[str, int]:
        """The caps that are set, by unit as scopes and reason codes name them."""
        caps = {
            "usd": self.usd_micro,
            "tokens": self.tokens,
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            "seconds": self.milliseconds,
        }
        return {unit: cap for unit, cap in caps.items() if cap is not None}


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that may not start: the reason code, and the cap, use and demand of the unit that refused."""

    code: str
    cap: int = 0
    used: int = 0
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may start. `warnings` are the units that have come to `Limits.warn_at` of their cap."""

    warnings: tuple[str, ...] = ()


class Budget:
    """Counts the calls of accounts against one set of limits.

    An account is whose budget it is: a run's id, or a tenant with its window, such as ``acme:2026-11``.
    Scopes in the store are ``<prefix><name>:<account>:<unit>``.

    Args:
        store: where it is counted.
        limits: the caps of every account.
        prices: what models cost; needed when there is a cap in dollars.
        name: what kind of account it is; keeps several budgets on one store apart.
        prefix: put before every scope and key; shadow mode counts under its own.
        assume_output: tokens held for the answer of a call that has no limit.
        ttl: seconds after which a hold that nobody settled is charged in full.

    >>> from guardrails_mw.stores.memory import MemoryStore
    >>> budget = Budget(MemoryStore(), Limits(tokens=2000), Prices({}))
    >>> budget.reserve("run-1", "call-1", ModelCall("any", input_tokens=500, max_tokens=1000), now=0.0)
    Admitted(warnings=())
    >>> budget.reserve("run-1", "call-2", ModelCall("any", input_tokens=500, max_tokens=1000), now=0.0)
    Refused(code='budget.tokens', cap=2000, used=1500, asked=1500)
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        prices: Prices,
        *,
        name: str = "run",
        prefix: str = "",
        assume_output: int = 1024,
        ttl: float = 900.0,
    ) -> None:
        self._store, self._limits, self._prices = store, limits, prices
        self._name, self._prefix = name, prefix
        self._assume_output, self._ttl = assume_output, ttl
        self._caps = limits.caps

    def reserve(self, account: str, key: str, call: ModelCall | ToolCall, now: float) -> Admitted | Refused:
        """Hold the worst case of a call, or say why not.

        A key that was reserved before holds nothing anew, so a node that runs again is counted once; after
        it was settled as ``released`` it counts anew. Every physical attempt of a retry needs its own key.

        Raises:
            StoreError: what the store says.
        """
        amounts = self._worst(call)
        if amounts is None:
            return Refused("budget.unknown_price")
        claims = [Claim(self._scope(account, unit), amount, self._caps[unit]) for unit, amount in amounts.items()]
        if not claims:
            return Admitted()
        refusal = self._store.reserve(self._attempt(key, call)[0], claims, now, self._ttl)
        return self._refused(refusal) if refusal else Admitted(self._warnings(account, amounts))

    def settle(self, account: str, key: str, call: ModelCall | ToolCall, outcome: Outcome) -> bool:
        """Charge what a call used; False when nothing is held under this key (any more).

        ``done`` charges the real amounts; what the outcome does not say (no token counts) is charged as
        held. ``released`` charges nothing. ``unknown`` charges all that was held, and the time.
        """
        attempt, count = self._attempt(key, call)
        if outcome.status == "released":
            # first the new number, then the old hold: an end between the two leaves a hold, not a free call
            self._store.swap(self._register(key, call), str(count) if count else None, str(count + 1))
            return self._store.settle(attempt, {})
        return self._store.settle(attempt, self._spent(call, outcome))

    def used(self, account: str) -> dict[str, int]:
        """Charged plus held, per unit that has a cap."""
        return {unit: self._store.used(self._scope(account, unit)) for unit in self._caps}

    def _scope(self, account: str, unit: str) -> str:
        return f"{self._prefix}{self._name}:{account}:{unit}"

    def _register(self, key: str, call: ModelCall | ToolCall) -> str:
        return f"{self._prefix}budget:{self._name}:{_kind(call)}:{key}"

    def _attempt(self, key: str, call: ModelCall | ToolCall) -> tuple[str, int]:
        """The store's key for a call, and how often the call was released before."""
        base = self._register(key, call)
        count = int(self._store.get(base) or 0)
        return f"{base}#{count}", count

    def _worst(self, call: ModelCall | ToolCall) -> dict[str, int] | None:
        """What to hold per capped unit; None when there is a cap in dollars and no price."""
        amounts = {f"{_kind(call)}_calls": 1, "seconds": 1}  # any time left lets a call start
        if isinstance(call, ModelCall):
            output = call.max_tokens or self._assume_output
            amounts["tokens"] = call.input_tokens + output
            cost = self._prices.cost(call.name, call.input_tokens, output)
            if "usd" in self._caps:
                if cost is None:
                    return None
                amounts["usd"] = cost
        return self._capped(amounts)

    def _spent(self, call: ModelCall | ToolCall, outcome: Outcome) -> dict[str, int]:
        amounts = self._worst(call) or {}
        time = max(0, ceil(outcome.seconds * 1000))
        amounts["seconds"] = time if outcome.status == "done" else max(1, time)
        if outcome.status == "done" and outcome.usage is not None and isinstance(call, ModelCall):
            used = outcome.usage
            amounts["tokens"] = used.input_tokens + used.output_tokens
            # the model that answered may have another name than the one asked for
            for model in (outcome.model, call.name):
                cost = self._prices.cost(model, used.input_tokens, used.output_tokens)
                if cost is not None:
                    amounts["usd"] = cost
                    break
        return self._capped(amounts)

    def _capped(self, amounts: Mapping[str, int]) -> dict[str, int]:
        return {unit: amounts[unit] for unit in self._caps if unit in amounts}

    def _refused(self, refusal: Refusal) -> Refused:
        unit = refusal.scope.rpartition(":")[2]
        return Refused(f"budget.{unit}", refusal.cap, refusal.used, refusal.asked)

    def _warnings(self, account: str, amounts: Mapping[str, int]) -> tuple[str, ...]:
        share = self._limits.warn_at
        if share is None:
            return ()
        return tuple(
            unit for unit in amounts if self._store.used(self._scope(account, unit)) >= share * self._caps[unit]
        )


def _kind(call: ModelCall | ToolCall) -> str:
    return "model" if isinstance(call, ModelCall) else "tool"
