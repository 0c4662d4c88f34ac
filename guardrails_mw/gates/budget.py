"""The gate that counts what runs use. It holds no state itself; the store does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from guardrails_mw.budget import Budget, Limits, Refused
from guardrails_mw.errors import GateError
from guardrails_mw.event import Event, ModelCall, Stage, ToolCall
from guardrails_mw.gate import Cost, HoldingGate
from guardrails_mw.prices import Prices
from guardrails_mw.store import Store
from guardrails_mw.verdict import Outcome, Remedy, Verdict

__all__ = ["BudgetGate"]


def _run(event: Event) -> str:
    return event.where.run


class BudgetGate(HoldingGate):
    """Lets a model or tool call start only while its worst case fits into what is left.

    Codes: ``budget.usd``, ``budget.tokens``, ``budget.model_calls``, ``budget.tool_calls``,
    ``budget.seconds``, ``budget.unknown_price``, and the flag ``budget.warn``. An event needs a key.

    Args:
        name: the gate's name; also keeps its counters apart from those of other budgets.
        store: where it counts.
        limits: the caps.
        prices: what models cost.
        account: whose budget an event counts against; its run if left out.
        prefix: put before every scope and key; shadow mode counts under its own.
        assume_output: tokens held for the answer of a call without a limit.
        ttl: seconds after which a hold that nobody settled is charged in full.
        clock: seconds since the epoch.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.MODEL, Stage.TOOL_CALL})

    def __init__(
        self,
        name: str,
        store: Store,
        limits: Limits,
        prices: Prices,
        *,
        account: Callable[[Event], str] = _run,
        prefix: str = "",
        assume_output: int = 1024,
        ttl: float = 900.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name)
        self.cost = Cost.BLOCKING if store.blocking else Cost.LINEAR
        self._account, self._clock = account, clock
        self._budget = Budget(store, limits, prices, name=name, prefix=prefix, assume_output=assume_output, ttl=ttl)

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It only blocks."""
        return frozenset({"block"})

    def check(self, event: Event) -> Verdict:
        """Reserve, or say what is used up. Raises `GateError` for an event without a call or key."""
        answer = self._budget.reserve(self._account(event), event.key, _counted(event), self._clock())
        if isinstance(answer, Refused):
            return Verdict.block(answer.code, remedy=Remedy.END)
        return Verdict.flag("budget.warn") if answer.warnings else Verdict.allow()

    def settle(self, event: Event, outcome: Outcome) -> None:
        """Charge what the call used; see `Budget.settle`."""
        self._budget.settle(self._account(event), event.key, _counted(event), outcome)


def _counted(event: Event) -> ModelCall | ToolCall:
    if not event.key:
        raise GateError("no_key")
    if event.call is None:
        raise GateError("no_call")
    return event.call
