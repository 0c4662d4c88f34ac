"""The plan of a policy: which gates are asked at which stage, in what order and on what terms.

The guard runs by it and `explain` shows it, so that what is shown is what happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from guardrails_mw.budget import Budget, Terms
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Stage
from guardrails_mw.gate import Cost, Gate, GateTypes, Site
from guardrails_mw.gates.budget import BudgetGate
from guardrails_mw.gates.loops import LoopsGate
from guardrails_mw.gates.tools import ToolsGate
from guardrails_mw.ledger import Ledger
from guardrails_mw.loops import LoopLimits
from guardrails_mw.loops.likeness import Habits
from guardrails_mw.policy import Policy
from guardrails_mw.price_list import GenaiPrices
from guardrails_mw.prices import Prices
from guardrails_mw.sections import LoopsPolicy, ToolPolicy, limits_of
from guardrails_mw.store import Store
from guardrails_mw.stream import Pace
from guardrails_mw.verdict import Action
from guardrails_mw.workers import IsolatedWorker

__all__ = ["Planned", "build_gates", "habits", "loop_limits", "pace", "plan", "process_of", "unlisted"]


@dataclass(frozen=True, slots=True)
class Planned:
    """A gate at a stage: the seconds it may take for a check, and what its failure means."""

    gate: Gate
    deadline: float
    on_error: Literal["block", "flag", "queue", "unsafe_allow"]


def build_gates(policy: Policy, types: GateTypes, secret: bytes) -> dict[str, Gate]:
    """The gates that a policy names. Raises `PolicyError` for one that cannot be built."""
    gates: dict[str, Gate] = {}
    for name, config in policy.gates.items():
        try:
            gates[name] = types.get(config.type).build(config, Site(name, policy.base, secret))
        except PolicyError as error:
            for gate in gates.values():
                gate.close()
            own = error.field.removeprefix(f"gates.{name}").lstrip(".")
            field = ".".join(part for part in ("gates", name, own) if part)
            raise PolicyError(error.problem, file=error.file, line=error.line, field=field) from None
    return gates


def plan(policy: Policy, gates: dict[str, Gate], store: Store, secret: bytes) -> dict[Stage, tuple[Planned, ...]]:
    """The gates of every stage in order: tool policy and loops first, then those named, the budget last.

    Args:
        policy: what to plan.
        gates: the gates it names, built.
        store: where budgets and loops are counted.
        secret: key of the hashes that loops are recognised by.
    """
    first, last = _before(policy, store, secret), _after(policy, store)
    return {
        stage: tuple(
            _on_terms(policy, gate)
            for gate in (
                *(gate for gate in first if stage in gate.stages),
                *(gates[name] for name in (policy.stages[stage].gates if stage in policy.stages else ())),
                *(gate for gate in last if stage in gate.stages),
            )
        )
        for stage in Stage
    }


def pace(policy: Policy) -> Pace:
    """How classifiers look at streams."""
    return Pace(policy.stream.every_tokens, policy.stream.hold == "window")


def unlisted(policy: Policy) -> Action:
    """What a tool means that the policy does not name, once the policy governs tools at all."""
    return Action[(policy.default_tool or ("block" if policy.tools else "allow")).upper()]


def loop_limits(loops: LoopsPolicy) -> LoopLimits:
    """When a repetition is a loop, as a policy says."""
    return LoopLimits(
        repeats=loops.repeats,
        cycles=loops.cycles,
        errors=loops.errors,
        no_news=loops.no_news,
        steps=loops.steps,
        seconds=loops.seconds,
        then=tuple(loops.then),
    )


def habits(tool: ToolPolicy) -> Habits:
    """What a policy says about how a tool is called."""
    return Habits(tool.polls, tool.effect, tuple(tool.key))


def process_of(gate: Gate) -> IsolatedWorker | None:
    """The process that a gate runs in, not started; None for a gate that runs in this one."""
    if gate.cost is not Cost.ISOLATED:
        return None
    recipe = getattr(gate, "recipe", None)
    if recipe is None:
        raise PolicyError("this gate cannot run in a process of its own", field=f"gates.{gate.name}.cost")
    return IsolatedWorker(recipe().load)


def _on_terms(policy: Policy, gate: Gate) -> Planned:
    config = policy.gates.get(gate.name)
    deadline = (config.deadline_ms if config else None) or policy.deadline_ms
    return Planned(gate, deadline / 1000, (config.on_error if config else None) or policy.on_error)


def _prefix(policy: Policy) -> str:
    return "shadow:" if policy.mode == "shadow" else ""


def _before(policy: Policy, store: Store, secret: bytes) -> list[Gate]:
    found: list[Gate] = []
    if policy.governs_tools:
        tiers: dict[str, Action] = {tier: Action[answer.upper()] for tier, answer in policy.tiers.items()}
        found.append(ToolsGate(policy.tools, unlisted(policy), tiers, policy.base))
    if policy.loops:
        known = {name: habits(tool) for name, tool in policy.tools.items()}
        limits, prefix = loop_limits(policy.loops), _prefix(policy)
        found.append(LoopsGate("loops", store, limits, habits=known, prefix=prefix, secret=secret))
    return found


def _after(policy: Policy, store: Store) -> list[Gate]:
    if not (policy.budgets or policy.prices or policy.price_list):
        return []
    table = {name: {key: str(cost) for key, cost in each if cost is not None} for name, each in policy.prices.items()}
    prices = Prices(table, GenaiPrices() if policy.price_list else None)
    reserve = policy.reserve
    terms = Terms(
        output=reserve.output_tokens,
        least=reserve.least_output_tokens,
        ttl=reserve.lasts,
        unpriced=reserve.unknown_price == "allow",
        points={name: tool.risk for name, tool in policy.tools.items()},
    )
    limits = [limits_of(name, budget) for name, budget in policy.budgets.items()]
    points = {Action.FLAG: policy.risk.flag, Action.ASK: policy.risk.ask, Action.BLOCK: policy.risk.block}
    budget = Budget(store, limits, prices, terms, _prefix(policy))
    asks = any(each.then == "ask" for each in limits)
    return [
        BudgetGate(
            "budget",
            budget,
            blocking=store.blocking,
            ledger=Ledger(store),
            points=points,
            asks=asks,
            tools=policy.tools,
        )
    ]
