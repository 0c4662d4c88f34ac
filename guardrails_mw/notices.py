"""What is not guarded by a policy, and what is weaker than it may look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from guardrails_mw.event import Stage
from guardrails_mw.plan import Planned, unlisted
from guardrails_mw.policy import Policy
from guardrails_mw.verdict import Action

__all__ = ["Notice", "notices"]

Plan = Mapping[Stage, Sequence[Planned]]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the author of the policy should know: a stable code and a sentence."""

    code: str
    text: str


def notices(policy: Policy, plan: Plan) -> Iterator[Notice]:
    """What is not guarded, then what is weaker than it may look, in any seam."""
    yield from _unguarded(policy, plan)
    yield from _lenient(policy)
    yield from _unrecorded(policy)
    yield from _revealed(policy)


_OPEN = {
    Stage.INPUT: "what users write goes to the model unchecked",
    Stage.OUTPUT: "answers go to the user unchecked",
    Stage.TOOL_CALL: "any tool runs with any arguments",
    Stage.TOOL_RESULT: "what tools bring back goes to the model unchecked: the channel of indirect injection",
}


def _unguarded(policy: Policy, plan: Plan) -> Iterator[Notice]:
    """Stages that nobody looks at. Gates that only count look at nothing."""
    for stage, meaning in _OPEN.items():
        if not any(each.gate.name not in ("loops", "budget") for each in plan[stage]):
            yield Notice(f"stage.{stage}", f"no gate looks at {stage}: {meaning}")
    if Stage.MODEL in policy.stages:
        text = "gates at the model stage see the call, not what is sent: list them at input and tool_result"
        yield Notice("stage.model", text)
    if not policy.budgets:
        yield Notice("budgets", "no budgets: nothing limits what a run may use up")
    if policy.loops is None:
        yield Notice("loops", "no loops: a call that keeps giving the same result is not stopped")
    if policy.governs_tools and unlisted(policy) in (Action.ALLOW, Action.FLAG):
        yield Notice("tools.unlisted", f"a tool that is not listed runs ({unlisted(policy).word})")
    for name, tool in policy.tools.items():
        if tool.tier == "privileged" and not (tool.roles or tool.ask or tool.block or policy.tiers.get(tool.tier)):
            yield Notice("tools.privileged", f"{name} is privileged and runs for everybody without a question")


def _lenient(policy: Policy) -> Iterator[Notice]:
    """Settings that let through what others would stop."""
    if policy.mode == "shadow":
        yield Notice("mode.shadow", "shadow mode: everything is decided and recorded, nothing is changed or stopped")
    meaning = {"flag": "passes with a flag", "unsafe_allow": "passes as if the gate had agreed"}
    places = [("the policy", policy.on_error)] + [(name, gate.on_error) for name, gate in policy.gates.items()]
    for place, on_error in places:
        if on_error in meaning:
            yield Notice(
                "on_error", f"on_error of {place} is {on_error}: what a broken gate should see {meaning[on_error]}"
            )
    if policy.unchecked != "block":
        yield Notice("unchecked", f"images and files that no gate can read pass ({policy.unchecked})")
    if policy.on_unenforceable == "flag":
        yield Notice("on_unenforceable", "what a seam cannot carry out (an edit in a callback) passes with a flag")
    if policy.blocked_messages == "keep":
        yield Notice("blocked_messages", "a blocked message stays in the conversation: the model reads it next turn")


def _unrecorded(policy: Policy) -> Iterator[Notice]:
    """What is kept too long or not long enough."""
    traced = bool(policy.traces.langfuse or policy.traces.otlp) and policy.traces.content == "redacted"
    if not policy.record.redact and (policy.record.content == "redacted" or traced):
        where = "the ledger and traces keep" if traced else "the ledger keeps"
        yield Notice("record.redact", f"record.redact names no gates: {where} contents as they are")
    if policy.record.on_failure == "flag":
        yield Notice("record.on_failure", "a decision that cannot be recorded takes effect all the same")
    if policy.store == "memory:":
        text = "the store is memory: records, budgets and approvals end with the process; no other process sees them"
        yield Notice("store.memory", text)


def _revealed(policy: Policy) -> Iterator[Notice]:
    """Where hidden values could be seen after all, or do not come back."""
    if policy.keeps_values and policy.store != "memory:" and not (policy.vault and policy.vault.key):
        yield Notice("vault.key", "hidden values lie encrypted beside their key, in the same store; set vault.key")
    results = policy.stages.get(Stage.TOOL_RESULT)
    hidden = any(getattr(policy.gates[name], "style", "") == "token" for name in (results.gates if results else ()))
    why = "no gate with style: token looks at what it gives back" if policy.keeps_values else "nothing writes tokens"
    for name, tool in policy.tools.items():
        if tool.sees == "raw" and not hidden:
            yield Notice("tools.raw", f"{name} sees raw values, and {why}")
