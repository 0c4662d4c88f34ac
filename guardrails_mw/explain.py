"""What a policy means, before anything runs: gates in their order, seams and what they can carry out, tools, gaps.

Plain data, made from the same plan that the guard runs by. No store is opened and no host is imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Stage
from guardrails_mw.gate import Gate, GateTypes
from guardrails_mw.gates.tools import check_names, tool_args
from guardrails_mw.notices import Notice, notices
from guardrails_mw.plan import Planned, build_gates, pace, plan, unlisted
from guardrails_mw.policy import Policy
from guardrails_mw.seam import SEAMS, Power, Seam
from guardrails_mw.sections import ApprovalPolicy, Rule, ToolPolicy, VaultPolicy
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stream import Pace, flowing

__all__ = ["Explanation", "Gap", "Notice", "PlannedGate", "Reach", "StagePlan", "ToolTerms", "explain"]

Plan = Mapping[Stage, Sequence[Planned]]
Timing = Literal["before", "flows", "held", "late", "refused", "never"]

MODES = ("invoke", "batch", "stream")
"""How a host is called. Every mode means the same in its synchronous and its asynchronous form."""

_POWERS = {"block": Power.BLOCK, "edit": Power.EDIT, "ask": Power.ASK}
_EXPLAINING = b"explain"  # stands for the store's key; nothing is hashed here


@dataclass(frozen=True, slots=True)
class PlannedGate:
    """A gate at a stage: how it is run, its deadline in milliseconds, what its failure means and what it may do.

    At `output` a `stream` waits for a ``span``, a classifier's ``stride``, or ``all``.
    """

    name: str
    type: str
    cost: str
    deadline_ms: float
    on_error: str
    may: tuple[str, ...]
    stream: str = ""


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The gates of a stage, in the order in which they are asked."""

    stage: str
    gates: tuple[PlannedGate, ...]


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that a gate may decide and a seam cannot carry out: it becomes `on_unenforceable`."""

    gate: str
    effect: str


@dataclass(frozen=True, slots=True)
class Reach:
    """What a seam can do at a stage in one mode, synchronous and asynchronous alike.

    Attributes:
        powers: of ``block``, ``edit`` and ``ask``; empty where the seam does not reach the stage.
        timing: ``before`` (decided before it goes on), ``flows`` (a stream goes on as far as every gate has
            seen what it must see), ``held`` (a stream is held until it is complete, then decided), ``late``
            (decided after the stream was shown), ``refused`` (the stream itself is unenforceable, before its
            first token) or ``never``.
        unenforceable: what gates of this stage may decide and the seam cannot carry out.
    """

    seam: str
    stage: str
    mode: str
    powers: tuple[str, ...]
    timing: Timing
    unenforceable: tuple[Gap, ...]


@dataclass(frozen=True, slots=True)
class ToolTerms:
    """What one tool may do. `ask` and `block` hold pairs of condition and reason code.

    Attributes:
        listed: whether the policy names it; the rest then follows from `default_tool`.
        otherwise: what a call means that no rule catches.
        asks: who is asked, within how many seconds, and what happens after that; empty when nobody is.
    """

    name: str
    listed: bool
    tier: str
    otherwise: str
    roles: tuple[str, ...] = ()
    ask: tuple[tuple[str, str], ...] = ()
    block: tuple[tuple[str, str], ...] = ()
    asks: tuple[str, float, tuple[str, ...]] | tuple[()] = ()
    checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy means.

    Attributes:
        label: format version and content hash, as records show it.
        unlisted: what a tool means that is not named; empty where the policy says nothing about tools.
        budgets: by name, whose each is, its limits and what follows.
        loops: repeats, and what follows; empty without loops.
        vault: how hidden values are kept, by key; empty where none come back.
        warnings: what is not guarded, and what is weaker than it may look.
    """

    label: str
    mode: str
    on_unenforceable: str
    stages: tuple[StagePlan, ...]
    reach: tuple[Reach, ...]
    seam_notes: dict[str, str]
    tools: tuple[ToolTerms, ...]
    unlisted: str
    budgets: dict[str, str]
    loops: tuple[int, tuple[str, ...]] | tuple[()]
    vault: dict[str, object]
    warnings: tuple[Notice, ...]

    def plain(self) -> dict[str, object]:
        """The same as JSON values."""
        return asdict(self)


class _Unopened(MemoryStore):
    """Stands for the policy's store, so that gates that count have the cost class they will have with it."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        kind = policy.store.partition(":")[0]
        self._waits = kind not in ("memory", "sqlite") or (policy.record.durability == "power" and kind != "memory")

    @property
    def blocking(self) -> bool:
        """Whether the policy's store would wait for a disk or a network."""
        return self._waits


def explain(
    policy: Policy, tools: Sequence[object] | None = None, seam: str | None = None, types: GateTypes | None = None
) -> Explanation:
    r"""Say what a policy means.

    Args:
        policy: what to explain.
        tools: all tools there are, to show also those that the policy does not name.
        seam: the name of the one seam to look at; all of them if left out.
        types: gate types to choose from; the installed ones if left out.

    Raises:
        PolicyError: a gate cannot be built, a tool's name or argument does not exist, or there is no such seam.

    >>> from guardrails_mw.document import Document
    >>> source = "version: 1\ngates: {signs: {type: injection}}\nstages: {input: [signs]}"
    >>> told = explain(Policy.load(Document(source)), seam="callbacks")
    >>> told.stages[0].gates[0].name, [notice.code for notice in told.warnings][:2]
    ('signs', ['stage.output', 'stage.tool_call'])
    """
    given = tool_args(tools) if tools is not None else None
    if given is not None:
        check_names(policy.tools, given, complete=True)
    seams = _seams(seam)
    gates = build_gates(policy, types or GateTypes.installed(), _EXPLAINING)
    planned = plan(policy, gates, _Unopened(policy), _EXPLAINING)
    return Explanation(
        label=policy.label,
        mode=policy.mode,
        on_unenforceable=policy.on_unenforceable,
        stages=tuple(
            StagePlan(stage.value, tuple(_gate(policy, stage, each) for each in items))
            for stage, items in planned.items()
        ),
        reach=tuple(_reach(seams, planned, pace(policy))),
        seam_notes={each.name: each.note for each in seams},
        tools=tuple(_tools(policy, given or ())),
        unlisted=unlisted(policy).word if policy.governs_tools else "",
        budgets=_budgets(policy),
        loops=(policy.loops.repeats, tuple(policy.loops.then)) if policy.loops else (),
        vault=_vault(policy),
        warnings=tuple(_warnings(policy, planned, seams if seam else ())),
    )


def _seams(name: str | None) -> tuple[Seam, ...]:
    if name is None:
        return SEAMS
    found = tuple(each for each in SEAMS if each.name == name)
    if not found:
        raise PolicyError(f"there is no seam {name!r}; {nearest(name, [each.name for each in SEAMS])}")
    return found


def _gate(policy: Policy, stage: Stage, planned: Planned) -> PlannedGate:
    gate = planned.gate
    config = policy.gates.get(gate.name)
    deadline = round(planned.deadline * 1000, 3)
    kind = config.type if config else gate.name
    stream = pace(policy).holding(gate).value if stage is Stage.OUTPUT else ""
    may = tuple(sorted(gate.may(stage)))
    return PlannedGate(gate.name, kind, gate.cost.value, deadline, planned.on_error, may, stream)


def _reach(seams: Sequence[Seam], plan: Plan, pace: Pace) -> Iterator[Reach]:
    for seam in seams:
        for stage in Stage:
            powers = tuple(word for word, power in _POWERS.items() if seam.can(stage, power))
            gaps = tuple(
                Gap(planned.gate.name, effect)
                for planned in plan[stage]
                for effect in sorted(planned.gate.may(stage))
                if stage in seam.powers and effect not in powers
            )
            for mode in MODES:
                timing = _timing(seam, stage, mode, [planned.gate for planned in plan[stage]], pace)
                if timing == "refused":
                    gaps = tuple(Gap(planned.gate.name, "stream") for planned in plan[stage])
                yield Reach(seam.name, stage.value, mode, powers, timing, gaps)


def _timing(seam: Seam, stage: Stage, mode: str, gates: Sequence[Gate], pace: Pace) -> Timing:
    if stage not in seam.powers:
        return "never"
    if mode != "stream" or stage is not Stage.OUTPUT or not gates:
        return "before"
    if stage in seam.unstreamable:
        return "refused"
    if stage in seam.late:
        return "late"
    return "held" if flowing(gates, pace) is None else "flows"


def _tools(policy: Policy, given: Sequence[str] | dict[str, list[str]]) -> Iterator[ToolTerms]:
    for name, tool in policy.tools.items():
        yield _terms(policy, name, tool)
    if policy.governs_tools:
        for name in given:
            if name not in policy.tools:
                yield ToolTerms(name, listed=False, tier="", otherwise=unlisted(policy).word)


def _terms(policy: Policy, name: str, tool: ToolPolicy) -> ToolTerms:
    otherwise = "allow" if tool.ask else policy.tiers.get(tool.tier, "allow")
    approval: ApprovalPolicy = tool.approval or policy.approval
    may_ask = bool(tool.ask) or otherwise == "ask" or (policy.loops is not None and "ask" in policy.loops.then)
    checks = [key for key in ("args_schema", "result_schema") if getattr(tool, key) is not None]
    checks += [f"empty result: {tool.on_empty}"] if tool.on_empty != "allow" else []
    checks += [f"polls: {'without end' if tool.polls is True else tool.polls}"] if tool.polls else []
    checks += ["sees: raw"] if tool.sees == "raw" else []
    return ToolTerms(
        name=name,
        listed=True,
        tier=tool.tier,
        otherwise=otherwise,
        roles=tuple(tool.roles),
        ask=_rules(tool.ask),
        block=_rules(tool.block),
        asks=(approval.ask, approval.within, tuple(approval.on_timeout)) if may_ask else (),
        checks=tuple(checks),
    )


def _rules(rules: Sequence[Rule]) -> tuple[tuple[str, str], ...]:
    return tuple((rule.condition.source, rule.because) for rule in rules)


def _budgets(policy: Policy) -> dict[str, str]:
    """Whose each budget is, and its limits, in the words of the policy."""
    told: dict[str, str] = {}
    for name, budget in policy.budgets.items():
        set_ = budget.model_dump(exclude_defaults=True, exclude={"of", "per", "zone", "then", "tools"}) | budget.tools
        limits = ", ".join(f"{unit} {limit:g}" for unit, limit in set_.items())
        window = f" per {budget.per} ({budget.zone})" if budget.per else ""
        told[name] = f"{budget.of or name}{window}: {limits}, then {budget.then}"
    return told


def _vault(policy: Policy) -> dict[str, object]:
    """Who writes tokens, and how long and under which key values are kept."""
    if not policy.keeps_values:
        return {}
    terms = policy.vault or VaultPolicy()
    gates = [name for name, gate in policy.gates.items() if getattr(gate, "style", "") == "token"]
    return {"gates": gates, "lifetime": terms.lifetime, "key": "policy" if terms.key else "store"}


def _warnings(policy: Policy, plan: Plan, seams: Sequence[Seam]) -> Iterator[Notice]:
    """What is not guarded, then what is weaker than it may look, then what the chosen seam cannot do."""
    yield from notices(policy, plan)
    for seam in seams:
        yield from _unreached(policy, plan, seam)


def _unreached(policy: Policy, plan: Plan, seam: Seam) -> Iterator[Notice]:
    """What becomes of this policy in one seam."""
    for stage in Stage:
        names = ", ".join(each.gate.name for each in plan[stage])
        if names and stage not in seam.powers:
            yield Notice("seam.not_reached", f"{seam.name} does not reach {stage}: {names} are not asked there")
    become = f"becomes {policy.on_unenforceable} (unenforceable)"
    found = {
        (reach.stage, gap.effect): [each.gate for each in reach.unenforceable if each.effect == gap.effect]
        for reach in _reach((seam,), plan, pace(policy))
        for gap in reach.unenforceable
    }
    for (where, effect), gates in found.items():
        names = ", ".join(gates)
        text = f"{seam.name} cannot {effect} at {where}: what {names} would {effect} {become}"
        if effect == "stream":
            text = f"{seam.name} cannot call back what was streamed: with {names} at {where}, a stream {become}"
        yield Notice("seam.unenforceable", text)
    if seam.late and any(plan[stage] for stage in seam.late):
        yield Notice(
            "seam.late", f"{seam.name} decides output after its tokens were streamed; guard the model to hold them"
        )
