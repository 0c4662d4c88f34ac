"""Budgets: reserve the worst case before a call, settle what it really used.

Everything is counted in whole units: micro-dollars, tokens, calls, milliseconds, risk points. One reservation
holds all units of all accounts that a call counts against or none, in one step of the store, so calls that
start together cannot overspend.

What can exceed a cap: a call that uses more than was held for it, because the model has no limit of its own
and its seam cannot set one, or the estimate of its input was low; the time of a call, and the points of a
verdict, which nobody knows before. The real amount is charged even so, and the next call is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from urllib.parse import quote

from guardrails_mw.account import Limits
from guardrails_mw.errors import GateError, StoreError
from guardrails_mw.event import Event, ModelCall, ToolCall
from guardrails_mw.prices import Prices
from guardrails_mw.store import AGAIN, Claim, Refusal, Store
from guardrails_mw.verdict import Outcome, Usage

__all__ = ["Admitted", "Budget", "Refused", "Terms"]

_TRIES = 8
_NO_CAP = 2**62
_SWAPS = 100
_MAX_WARNED = 65_536


@dataclass(frozen=True, slots=True)
class Terms:
    """How calls are reserved.

    Attributes:
        output: tokens held for the answer of a call that names no limit.
        least: a call is shortened to what is affordable, but never below this many tokens.
        ttl: seconds after which a call is taken for lost, and what it held for spent; see `Store.reserve`.
        unpriced: whether a model without a price may be called under a cap in dollars; it then counts as free.
        points: per tool, the risk points of a call.
    """

    output: int = 1024
    least: int = 64
    ttl: float = 900.0
    unpriced: bool = False
    points: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that may not start: why, and of the account that refused its limits, cap, use and demand.

    `unit` is what the account is counted in, `resets` the epoch second at which its window ends (0: never).
    """

    unit: str
    limits: Limits | None = None
    cap: int = 0
    used: int = 0
    asked: int = 0
    resets: float = 0.0

    @property
    def code(self) -> str:
        """The reason code: ``budget.<name>.<unit>``, or ``budget.unknown_price``."""
        return f"budget.{self.limits.name}.{self.unit}" if self.limits else f"budget.{self.unit}"

    @property
    def facts(self) -> tuple[tuple[str, int | float], ...]:
        """The figures for a verdict."""
        figures = {"cap": self.cap, "used": self.used, "left": max(0, self.cap - self.used), "asked": self.asked}
        return (*figures.items(), *((("resets", self.resets),) if self.resets else ())) if self.limits else ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that may start.

    Attributes:
        max_tokens: what the answer has to be limited to; None where the call's own limit stands.
        warning: code of an account that has come to its `Limits.warn_at`; of each once per window, one at a time.
        again: whether its key was used before: nothing is held anew, and nothing of it may be given back.
    """

    max_tokens: int | None = None
    warning: str = ""
    again: bool = False


class Budget:
    """Counts calls against the accounts of several limits at once.

    Scopes in the store are ``<prefix><name>:<account>:<unit>``; keys of holds are events' keys, so a node that
    runs again is counted once. Every physical attempt of a retry needs a key of its own.

    Args:
        store: where it is counted.
        limits: the caps, of every account of their kind.
        prices: what models cost; needed when there is a cap in dollars.
        terms: how calls are reserved.
        prefix: put before every scope and key; shadow mode counts under its own.

    >>> from guardrails_mw.event import Content, Stage, Where
    >>> from guardrails_mw.stores.memory import MemoryStore
    >>> budget = Budget(MemoryStore(), [Limits("run", tokens=2000)], Prices({}))
    >>> def call(key):
    ...     asked = ModelCall("any", input_tokens=500, max_tokens=1000)
    ...     return Event(Stage.MODEL, Content(None), where=Where(run="r"), call=asked, key=key)
    >>> budget.reserve(call("1"), now=0.0)
    Admitted(max_tokens=None, warning='', again=False)
    >>> budget.reserve(call("2"), now=0.0).code
    'budget.run.tokens'
    """

    def __init__(
        self, store: Store, limits: Sequence[Limits], prices: Prices, terms: Terms | None = None, prefix: str = ""
    ) -> None:
        self._store, self._prices, self._terms, self._prefix = store, prices, terms or Terms(), prefix
        self._limits = {each.name: each for each in limits}
        self._priced = any("usd" in each.caps for each in limits)
        self._metered = self._priced or any("tokens" in each.caps for each in limits)
        self._warned: set[str] = set()

    def reserve(self, event: Event, now: float) -> Admitted | Refused:
        """Hold the worst case of a call, or say why not.

        A key that was reserved before holds nothing anew, which the answer says; after it was released it does.

        Raises:
            GateError: the event has no call or no key.
            StoreError: what the store says.
        """
        call, key = _counted(event), self._key(event)
        output = self._output(call)
        limited = output if isinstance(call, ModelCall) and call.limitable and not call.max_tokens else None
        refused, raised, tries = self._late(event, now), dict[str, int](), _TRIES
        while refused is None:
            amounts, tries = self._worst(call, output), tries - 1
            if amounts is None:
                return Refused("unknown_price")
            claims = self._claims(event, amounts, now, raised)
            refusal = self._store.reserve(key, claims, now, self._terms.ttl) if claims else None
            if not isinstance(refusal, Refusal):
                return Admitted(limited if self._metered else None, self._warning(claims), refusal is AGAIN)
            limits = self._limits[self._name(refusal.scope)]
            shorter = self._affordable(call, refusal, output) if tries else None
            if limits.then == "ask" and refusal.scope not in raised and (times := self._raises(refusal.scope)):
                raised[refusal.scope] = times
            elif shorter is not None:
                output = limited = shorter
            else:
                refused = self._refused(refusal, limits, now)
        return refused

    def settle(self, event: Event, outcome: Outcome, now: float) -> bool:
        """Charge what a call used, however long it took; False when nothing is held under its key (any more).

        ``done`` charges the real amounts; what the outcome does not say (no token counts) is charged as
        held. ``released`` charges nothing. ``unknown`` charges all that was held, and the time. A call that was
        settled when it paused, and has been taken up again, is charged the time that it took since.
        """
        if outcome.status == "released":
            return self._store.release(self._key(event))
        held = self._store.settle(self._key(event), spent := self._spent(_counted(event), outcome))
        if not held and outcome.resumed and spent["seconds"]:
            self.charge(event, "seconds", spent["seconds"], f"again|{event.key}|{secrets.token_hex(8)}", now)
        return held

    def charge(self, event: Event, unit: str, amount: int, key: str, now: float) -> None:
        """Count something that has happened already, once per key; caps do not stop it."""
        claims = [replace(claim, cap=_NO_CAP) for claim in self._claims(event, {unit: amount}, now, {})]
        if claims:
            self._store.reserve(f"{self._prefix}{key}", claims, now, self._terms.ttl)
            self._store.settle(f"{self._prefix}{key}", {unit: amount})

    def grant(self, event: Event, code: str, by: str, now: float) -> None:
        """Raise the cap that a reason code names by itself once more, for the account that this event counts against.

        Args:
            event: the event that was refused.
            code: `Refused.code`.
            by: id of the permission; the same one raises once.
            now: epoch seconds.
        """
        _, name, unit = code.split(".", 2)
        register = f"raise:{self._scope(self._limits[name], event, unit, now)}"
        for _ in range(_SWAPS):
            before = self._store.get(register)
            ids = before.split() if before else []
            if by in ids or self._store.swap(register, before, " ".join([*ids, by])):
                return
        raise StoreError("store.busy")

    def used(self, event: Event, now: float) -> dict[str, dict[str, int]]:
        """Charged plus held per limits' name and unit that has a cap, for the accounts of an event."""
        return {
            name: {unit: self._store.used(self._scope(limits, event, unit, now)) for unit in limits.caps}
            for name, limits in self._limits.items()
        }

    def used_by(self, call: ModelCall, outcome: Outcome) -> Usage:
        """The tokens that a call counts with: those it used, or where nobody knows them, what was held for it."""
        return outcome.usage or Usage(call.input_tokens, outcome.limit or self._output(call), estimated=True)

    def price(self, call: ModelCall, outcome: Outcome) -> int | None:
        """Micro-dollars that a call counts with; None if its price is unknown."""
        used = self.used_by(call, outcome)
        if outcome.status == "done" and outcome.usage is not None:
            return self._prices.cost(outcome.model or call.name, used, call.name)
        return self._prices.most(call.name, used.input_tokens, used.output_tokens)

    def _claims(self, event: Event, amounts: Mapping[str, int], now: float, raised: Mapping[str, int]) -> list[Claim]:
        claims: list[Claim] = []
        for limits in self._limits.values():
            account = limits.account(event, now)
            for unit, cap in limits.caps.items():
                if unit in amounts:
                    scope = f"{self._prefix}{limits.name}:{account}:{unit}"
                    claims.append(Claim(scope, amounts[unit], cap * (1 + raised.get(scope, 0))))
        return claims

    def _scope(self, limits: Limits, event: Event, unit: str, now: float) -> str:
        return f"{self._prefix}{limits.name}:{limits.account(event, now)}:{unit}"

    def _name(self, scope: str) -> str:
        return scope.removeprefix(self._prefix).partition(":")[0]

    def _key(self, event: Event) -> str:
        if not event.key:
            raise GateError("no_key")
        return f"{self._prefix}budget:{event.stage}:{event.key}"

    def _late(self, event: Event, now: float) -> Refused | None:
        """The refusal of an account whose time by the wall clock is over; its first call starts the clock."""
        for limits in self._limits.values():
            if limits.wall is None:
                continue
            register = f"{self._prefix}began:{limits.name}:{limits.account(event, now)}"
            began = self._store.get(register)
            if began is None:
                self._store.swap(register, None, repr(now))
                began = self._store.get(register) or repr(now)
            passed = now - float(began)
            cap = limits.wall * (1 + self._raises(self._scope(limits, event, "wall", now), limits))
            if passed > cap:
                return Refused("wall", limits, ceil(cap * 1000), ceil(passed * 1000), 0, limits.resets(now))
        return None

    def _worst(self, call: ModelCall | ToolCall, output: int) -> dict[str, int] | None:
        """What to hold per unit; None when there is a cap in dollars and no price."""
        if isinstance(call, ToolCall):
            points = (self._terms.points or {}).get(call.name, 0)
            return {"tool_calls": 1, f"tool_calls.{quote(call.name, safe='')}": 1, "seconds": 1, "risk": points}
        amounts = {"model_calls": 1, "seconds": 1, "tokens": call.input_tokens + output}  # any time left lets it start
        if self._priced:
            cost = self._prices.most(call.name, call.input_tokens, output)
            if cost is None and not self._terms.unpriced:
                return None
            amounts["usd"] = cost or 0
        return amounts

    def _spent(self, call: ModelCall | ToolCall, outcome: Outcome) -> dict[str, int]:
        used, passed, most = outcome.usage, max(0, ceil(outcome.seconds * 1000)), outcome.limit or self._output(call)
        if used is None or outcome.status != "done" or isinstance(call, ToolCall):
            seconds = passed if outcome.status == "done" else max(1, passed)
            return {**(self._worst(call, most) or {}), "seconds": seconds}
        amounts = {"model_calls": 1, "seconds": passed, "tokens": used.input_tokens + used.output_tokens}
        if self._priced:
            cost = self.price(call, outcome)
            held = self._prices.most(call.name, call.input_tokens, most) if cost is None else cost
            amounts["usd"] = held or 0
        return amounts

    def _affordable(self, call: ModelCall | ToolCall, refusal: Refusal, output: int) -> int | None:
        """Tokens that an answer may have to fit into what is left; None where that is too few to be of use."""
        if isinstance(call, ToolCall) or not call.limitable:
            return None
        left, unit = refusal.cap - refusal.used, refusal.scope.rpartition(":")[2]
        if unit == "tokens":
            fits = left - call.input_tokens
        elif unit == "usd":
            fits = self._prices.output_for(call.name, call.input_tokens, left, output - 1)
        else:
            return None
        return fits if self._terms.least * call.answers <= fits < output else None

    def _output(self, call: ModelCall | ToolCall) -> int:
        """Tokens of the longest answer, or answers, that a call may get as it was asked for."""
        return 0 if isinstance(call, ToolCall) else call.max_tokens or self._terms.output * call.answers

    def _raises(self, scope: str, limits: Limits | None = None) -> int:
        if limits is not None and limits.then != "ask":
            return 0
        return len((self._store.get(f"raise:{scope}") or "").split())

    def _refused(self, refusal: Refusal, limits: Limits, now: float) -> Refused:
        unit = refusal.scope.rpartition(":")[2]
        return Refused(unit, limits, refusal.cap, refusal.used, refusal.asked, limits.resets(now))

    def _warning(self, claims: Sequence[Claim]) -> str:
        """The first account that has come to its warning and was never told of, whichever process sees it first."""
        for claim in claims:
            limits = self._limits[self._name(claim.scope)]
            if limits.warn_at is None or claim.scope in self._warned:
                continue
            if len(self._warned) >= _MAX_WARNED:
                self._warned.clear()  # the store knows them too
            if self._store.used(claim.scope) >= limits.warn_at * claim.cap:
                self._warned.add(claim.scope)
                if self._store.swap(f"warned:{claim.scope}", None, "1"):
                    return f"budget.{limits.name}.{claim.scope.rpartition(':')[2]}"
        return ""


def _counted(event: Event) -> ModelCall | ToolCall:
    if event.call is None:
        raise GateError("no_call")
    return event.call
