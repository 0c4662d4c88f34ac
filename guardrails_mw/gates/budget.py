"""The gate that counts what runs, people and tenants may use up. It holds no state itself; the store does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar

from guardrails_mw.budget import Budget, Refused
from guardrails_mw.event import Event, ModelCall, Stage
from guardrails_mw.gate import Cost, HoldingGate
from guardrails_mw.ledger import Ledger
from guardrails_mw.spend import spent
from guardrails_mw.verdict import HELD_BEFORE, Action, Decision, Outcome, Remedy, Verdict

__all__ = ["BudgetGate"]

_REMEDIES = {"end": Remedy.END, "block": Remedy.REFUSE, "cheaper": Remedy.CHEAPER}


class BudgetGate(HoldingGate):
    """Lets a model or tool call start only while its worst case fits into what is left.

    Codes: ``budget.<name>.<unit>`` with the units ``usd``, ``tokens``, ``model_calls``, ``tool_calls``,
    ``tool_calls.<tool>``, ``seconds``, ``wall`` and ``risk``; ``budget.unknown_price``. A verdict's facts are the
    cap, what is used, left and asked for, and when the window ends. A call that fits only if its answer is
    shorter carries `max_tokens`. The first call that comes to `warn_at` of a cap is flagged with the same code.

    Args:
        name: the gate's name.
        budget: counts.
        blocking: whether its store may wait for a disk or a network.
        ledger: where every call's cost is kept; nowhere if left out.
        points: risk points that a verdict of an action costs.
        asks: whether a budget asks people for more.
        tools: names of tools that may stand in the ledger.
        clock: seconds since the epoch.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.MODEL, Stage.TOOL_CALL})

    def __init__(
        self,
        name: str,
        budget: Budget,
        *,
        blocking: bool = False,
        ledger: Ledger | None = None,
        points: Mapping[Action, int] | None = None,
        asks: bool = False,
        tools: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name)
        self.cost = Cost.BLOCKING if blocking else Cost.LINEAR
        self._budget, self._ledger, self._clock, self._tools = budget, ledger, clock, frozenset(tools)
        self._points = {action: cost for action, cost in (points or {}).items() if cost}
        self.observes = bool(self._points)
        self._effects = frozenset({"block", "ask"} if asks else {"block"})

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It blocks; it asks where the policy says so."""
        return self._effects

    def check(self, event: Event) -> Verdict:
        """Reserve, or say what is used up. Raises `GateError` for an event without a call or key."""
        answer = self._budget.reserve(event, self._clock())
        if isinstance(answer, Refused):
            return self._refusal(answer)
        if answer.warning or answer.max_tokens:
            action = Action.FLAG if answer.warning else Action.ALLOW
            return Verdict(action, answer.warning, max_tokens=answer.max_tokens, again=answer.again)
        return HELD_BEFORE if answer.again else Verdict.allow()

    def settle(self, event: Event, outcome: Outcome) -> None:
        """Charge what the call used, and keep it; see `Budget.settle`."""
        self._budget.settle(event, outcome, self._clock())
        if self._ledger is None or outcome.status == "released":
            return
        used, usd = None, None
        if isinstance(event.call, ModelCall):
            used, usd = self._budget.used_by(event.call, outcome), self._budget.price(event.call, outcome)
        body, run = spent(event, outcome, used, usd, self._tools), event.where.run or "direct"
        self._ledger.record(run, f"{event.key}|{event.stage}|spend", "spend", body)

    def grant(self, event: Event, code: str, by: str) -> None:
        """Raise the cap that a person was asked about by itself once more."""
        if code.count(".") > 1:
            self._budget.grant(event, code, by, self._clock())

    def observe(self, decision: Decision) -> None:
        """Charge the points that a verdict costs, once per event. Told of every decision by the engine."""
        points = self._points.get(decision.verdict.action, 0)
        if points and decision.gate != self.name:
            key = f"points|{decision.event.key}|{decision.stage}"
            self._budget.charge(decision.event, "risk", points, key, self._clock())

    @staticmethod
    def _refusal(answer: Refused) -> Verdict:
        then = answer.limits.then if answer.limits else "end"
        if then == "ask":
            return Verdict.ask(answer.code, facts=answer.facts)
        return Verdict.block(answer.code, remedy=_REMEDIES[then], facts=answer.facts)
