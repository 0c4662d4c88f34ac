"""Models behind gates: what they may cost is held before they are asked, and charged like any other call of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from guardrails_mw.asking import PASS_THROUGH, Asker, Step
from guardrails_mw.blocks import Together
from guardrails_mw.event import Content, Event, Origin, Stage
from guardrails_mw.forks import Numbers
from guardrails_mw.gate import HoldingGate
from guardrails_mw.verdict import Action, Check, Outcome, Verdict, combine

__all__ = ["Judges"]

_Taken = list[tuple[HoldingGate, Event, int]]
"""What was held: by which gate, for which call, and which of the calls it is."""


class Judges:
    """Asks gates that call a model themselves, within the budgets of whoever they work for.

    A judge that nothing is left for is not asked, and what it should have judged is blocked with the budget's code.

    Args:
        asker: asks.
        holding: the steps that hold something for calls of models.
        shadow: whether nothing is refused.
        prefix: begins the names of calls: one that is made again is charged again.
    """

    def __init__(self, asker: Asker, holding: Sequence[Step], shadow: bool, prefix: str) -> None:
        self._asker, self._shadow, self._prefix, self._numbers = asker, shadow, prefix, Numbers()
        self._holding = [(step, step.gate) for step in holding if isinstance(step.gate, HoldingGate)]

    async def asked(self, step: Step, event: Event, joined: Together | None = None) -> Check:
        """What a gate says of an event, and of the event's blocks `joined`; see `Asker.asked`."""
        if not self._holding or not (calls := self._calls(step, event, joined)):
            return await self._asker.asked(step, event, joined)
        taken, told = _Taken(), list[Check]()
        try:
            for number, call in enumerate(calls):
                for holding, gate in self._holding:
                    leave = await self._asker.asked(holding, call)
                    taken.append((gate, call, number))
                    if leave.verdict.action is Action.FLAG:
                        told.append(leave)
                    if leave.verdict.action > Action.FLAG and not self._shadow:
                        await self._settle(taken, lambda _: Outcome("released"))
                        return Check(step.gate.name, _refusal(leave.verdict), leave.seconds, leave.error)
            check = await self._asker.asked(step, event, joined)
        except PASS_THROUGH:
            await self._settle(taken, lambda _: Outcome("unknown"))
            raise
        await self._settle(taken, lambda number: _outcome(check, number, len(calls)))
        return replace(check, verdict=combine((check, *told))) if told else check

    def _calls(self, step: Step, event: Event, joined: Together | None) -> list[Event]:
        twice = joined is not None and step.gate.joins and not step.gate.remembers
        events = (event, joined.event) if joined is not None and twice else (event,)
        return [
            replace(
                event,
                stage=Stage.MODEL,
                content=Content(None),
                origin=Origin.MODEL,
                call=call,
                key=f"{event.key}|{step.gate.name}|{self._prefix}-{self._numbers.next()}",
            )
            for each in events
            for call in step.gate.calls(each)
        ]

    async def _settle(self, taken: _Taken, outcome: Callable[[int], Outcome]) -> None:
        def settled() -> None:
            for gate, call, number in taken:
                with suppress(Exception):  # the hold stays and is charged in full, the strict side
                    gate.settle(call, outcome(number))

        await self._asker.in_worker(settled, None)


def _refusal(verdict: Verdict) -> Verdict:
    """Nobody is asked for a judge, and no other judge is cheaper: what has nothing left is a block."""
    return Verdict.block(verdict.reason, facts=verdict.facts)


def _outcome(check: Check, number: int, calls: int) -> Outcome:
    """How one of a gate's calls ended."""
    seconds, used = check.seconds / calls, check.verdict.used
    if check.error:
        return Outcome("unknown", seconds)
    if used and number >= len(used):
        return Outcome("released")
    return Outcome("done", seconds, used[number] if used else None)
