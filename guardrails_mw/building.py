"""Building a guard's insides from a policy: its gates, the engine that asks them, how blocks are carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from guardrails_mw.approvals import Approvals
from guardrails_mw.backlog import Backlog
from guardrails_mw.enforcer import Enforcer, Manners, Question
from guardrails_mw.engine import Engine, Settings, Step
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Stage
from guardrails_mw.gate import Gate, GateTypes, HoldingGate
from guardrails_mw.generation import Generation, Seat
from guardrails_mw.ledger import Ledger
from guardrails_mw.plan import build_gates, pace, plan, process_of
from guardrails_mw.policy import Policy
from guardrails_mw.recorder import LedgerRecorder
from guardrails_mw.redaction import Redactor
from guardrails_mw.sections import ApprovalPolicy, VaultPolicy
from guardrails_mw.store import Store
from guardrails_mw.vault import Vault
from guardrails_mw.verdict import Action

__all__ = ["Ground", "build"]

_ON_ERROR = {"block": Action.BLOCK, "flag": Action.FLAG, "queue": Action.BLOCK, "unsafe_allow": Action.ALLOW}


@dataclass(frozen=True, slots=True)
class Ground:
    """What every generation of a guard is built on: its store, and what was made of that.

    Attributes:
        types: gate types to choose from.
        secret: key of all keyed hashes.
    """

    types: GateTypes
    store: Store
    secret: bytes
    ledger: Ledger
    approvals: Approvals
    seat: Seat


def build(policy: Policy, ground: Ground) -> Generation:
    """A generation that is not in office yet, and is not warm.

    Raises:
        PolicyError: something in the policy cannot be built.
    """
    gates = build_gates(policy, ground.types, ground.secret)
    try:
        return _built(policy, ground, gates)
    except BaseException:
        for gate in gates.values():
            gate.close()
        raise


def _built(policy: Policy, ground: Ground, gates: dict[str, Gate]) -> Generation:
    redactor = Redactor([gates[name] for name in policy.record.redact])
    content = policy.record.content == "redacted"
    recorder = LedgerRecorder(ground.ledger, redactor, ground.secret, content, ground.store.blocking)
    vault, settings, steps = _vault(policy, ground), _settings(policy), _steps(policy, ground, gates)
    backlog = Backlog(ground.store, policy.queue.most)
    engine = Engine(steps, settings, recorder, vault=vault, backlog=backlog)
    holding = {stage: [step for step in own if isinstance(step.gate, HoldingGate)] for stage, own in steps.items()}
    return Generation(
        policy=policy,
        gates=gates,
        engine=engine,
        enforcer=Enforcer(engine, ground.approvals, redactor, _manners(policy), ground.seat),
        recorder=recorder,
        redactor=redactor,
        vault=vault,
        settling=Engine(holding, settings) if any(holding.values()) else None,
    )


def _steps(policy: Policy, ground: Ground, gates: dict[str, Gate]) -> Mapping[Stage, list[Step]]:
    """The steps of every stage; a gate at several stages is one step, so it has one process."""
    planned = plan(policy, gates, ground.store, ground.secret)
    steps: dict[str, Step] = {}
    for each in (each for stage in planned.values() for each in stage):
        if each.gate.name not in steps:
            terms = (each.deadline, _ON_ERROR[each.on_error], process_of(each.gate))
            patient = each.on_error == "queue" and policy.mode != "shadow"  # shadow mode delays nobody
            steps[each.gate.name] = Step(each.gate, *terms, policy.queue.within if patient else 0.0)
    return {stage: [steps[each.gate.name] for each in own] for stage, own in planned.items()}


def _vault(policy: Policy, ground: Ground) -> Vault | None:
    """The vault of a policy that keeps values. Raises `PolicyError` when its package is missing."""
    if not policy.keeps_values:
        return None
    terms = policy.vault or VaultPolicy()
    key = terms.key.get_secret_value().encode() if terms.key else ground.secret
    try:
        return Vault(ground.store, key, terms.lifetime)
    except ImportError:
        raise PolicyError("tokens need the extra 'vault': pip install 'guardrails-mw[vault]'", field="vault") from None


def _settings(policy: Policy) -> Settings:
    return Settings(
        policy=policy.label,
        shadow=policy.mode == "shadow",
        unchecked=Action[policy.unchecked.upper()],
        on_unenforceable=Action[policy.on_unenforceable.upper()],
        on_record_failure=Action[policy.record.on_failure.upper()],
        pace=pace(policy),
    )


def _manners(policy: Policy) -> Manners:
    on_block: dict[Stage | None, str] = {None: policy.on_block}
    refusal: dict[Stage | None, str] = {None: policy.refusal}
    for stage, own in policy.stages.items():
        on_block[stage] = own.on_block or policy.on_block
        refusal[stage] = own.refusal if own.refusal is not None else policy.refusal
    questions = {name: _question(tool.approval or policy.approval, tool.tier) for name, tool in policy.tools.items()}
    trusted = frozenset(name for name, tool in policy.tools.items() if tool.sees == "raw")
    return Manners(on_block, refusal, policy.blocked_messages, questions, _question(policy.approval, ""), trusted)


def _question(approval: ApprovalPolicy, tier: str) -> Question:
    return Question(tier, approval.ask, approval.within)
