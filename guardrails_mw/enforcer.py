"""What adapters share: deciding once, asking people, and saying no.

An adapter turns what its host gives it into events, has them decided here, and carries the decisions out.
Everything that must be the same in every seam lives in this module.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from datetime import time as clock
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol, cast
from uuid import UUID

from guardrails_mw.approvals import (
    APPROVED,
    EXECUTED,
    PENDING,
    Approval,
    Approvals,
    approval_id,
    call_digest,
)
from guardrails_mw.engine import Engine
from guardrails_mw.errors import StoreError, UnknownApproval
from guardrails_mw.event import Content, Event, Json, Stage
from guardrails_mw.gate import HoldingGate
from guardrails_mw.redaction import Redactor, unread
from guardrails_mw.seam import ANYWHERE, Power, Seam
from guardrails_mw.stream import Shown
from guardrails_mw.verdict import ALLOWED, Action, Check, Decision, Outcome, Verdict, combine

if TYPE_CHECKING:
    from guardrails_mw.generation import Seat

__all__ = ["Enforcer", "Manners", "Pause", "Question"]

_MEMORY = 4096
"""Decisions remembered, so that a message in a long history is decided and counted once."""

_ONCE = frozenset({Stage.INPUT, Stage.OUTPUT, Stage.TOOL_RESULT})


@dataclass(frozen=True, slots=True)
class Question:
    """How a person is asked about one action."""

    tier: str = ""
    ask: str = ""
    within: float = 1800.0


@dataclass(frozen=True, slots=True)
class Manners:
    """How blocks are carried out, from the policy.

    `on_block` and `refusal` hold the policy's own value under None and overrides by stage.
    """

    on_block: Mapping[Stage | None, str]
    refusal: Mapping[Stage | None, str]
    blocked_messages: str = "replace"
    questions: Mapping[str, Question] = field(default_factory=dict)
    question: Question = Question()
    trusted: frozenset[str] = frozenset()
    """Tools that get real values where the model wrote tokens."""

    def raises(self, stage: Stage) -> bool:
        """Whether a block at this stage raises instead of refusing."""
        return self.on_block.get(stage, self.on_block[None]) == "raise"


class Pause(Protocol):
    """Shows a question to the host's caller and does not return until the host is resumed."""

    def __call__(self, payload: dict[str, object], *, earlier: bool = False) -> None:
        """Pause; with `earlier`, only take the answer that a pause of an earlier run of this step got."""


class Enforcer:
    """Decides events for adapters and carries out what is not special to a host.

    Args:
        engine: asks the gates.
        approvals: questions to people.
        redactor: removes from what reviewers see what must not leave.
        manners: how blocks are carried out.
        seat: what it has in common with the guard's other enforcers, and is known by.
    """

    def __init__(self, engine: Engine, approvals: Approvals, redactor: Redactor, manners: Manners, seat: Seat) -> None:
        self.engine, self.approvals, self.manners, self.seat = engine, approvals, manners, seat
        self._redactor = redactor
        self._memory: OrderedDict[tuple[str, ...], Decision] = OrderedDict()
        self._lock = threading.Lock()

    async def deciding(self, event: Event, seam: Seam = ANYWHERE, *, shown: Shown | None = None) -> Decision:
        """Decide an event, once per message and content, as part of a larger flow; `shown` is what left already.

        What was let through is not asked again, also not by another seam; what an edit or a block left in
        place of a message leads back to the decision that put it there.
        """
        if event.stage not in _ONCE or not event.key:
            return await self.engine.deciding(event, seam, shown=shown)
        mark = self._mark(event, event.content)
        known = self._recall(mark) or self._recall((*mark, seam.name))
        if known is not None:
            return known
        decision = await self.engine.deciding(event, seam, shown=shown)
        if not any(check.error for check in decision.checks):
            clean = decision.action <= Action.FLAG and not decision.edited
            self._remember(mark if clean else (*mark, seam.name), decision)
        return decision

    def passed(self, decision: Decision) -> Content:
        """What goes on in place of the content: edited, or the placeholder of a blocked message."""
        event = decision.event
        if not decision.blocked:
            content, again = decision.content, replace(decision, event=replace(event, content=decision.content))
        elif self.manners.blocked_messages == "keep":
            return event.content
        else:
            content, again = Content(f"[blocked: {decision.verdict.reason}]"), decision
        if event.key and event.stage in _ONCE:
            self._remember(self._mark(event, content), again)
        return content

    def vouch(self, event: Event, decision: Decision) -> None:
        """Our own words in place of something blocked: they need no decision when they come by again."""
        content = event.content
        own = replace(decision, event=event, action=Action.ALLOW, verdict=ALLOWED, content=content, would=content)
        self._remember(self._mark(event, content), own)

    @staticmethod
    def _mark(event: Event, content: Content) -> tuple[str, ...]:
        actor = event.actor
        return (event.stage, event.key, actor.id, actor.tenant, *actor.roles, _fingerprint(content.value))

    def _recall(self, mark: tuple[str, ...]) -> Decision | None:
        with self._lock:
            known = self._memory.get(mark)
            if known is not None:
                self._memory.move_to_end(mark)
            return known

    def _remember(self, mark: tuple[str, ...], decision: Decision) -> None:
        with self._lock:
            self._memory[mark] = decision
            while len(self._memory) > _MEMORY:
                self._memory.popitem(last=False)

    async def answering(
        self,
        decision: Decision,
        seam: Seam,
        pause: Pause,
        *,
        resuming: bool = True,
        expected: str = "",
        rollback: str = "",
    ) -> Decision:
        """Bring a decision together with what people said about its event.

        Looks at the register whatever the fresh verdict is: an answer stands even if the policy would no
        longer ask. What a resume brings along is ignored. Hosts hand those values out in order, so each
        that one of our pauses got is taken again here: the next one belongs to whoever asks next, perhaps
        the tool itself. The result allows or blocks, never asks. Only a host that is `resuming` can have a
        question on record that was asked before.
        """
        if decision.shadow or decision.blocked or not seam.can(decision.stage, Power.ASK):
            return decision
        if not resuming and decision.action is not Action.ASK:
            return decision
        id_ = approval_id(decision.event, _action(decision.event))
        try:
            approval = self.approvals.find(id_)
            if approval is None:
                if decision.action is not Action.ASK:
                    return decision
                question = self._question(id_, decision)
                approval = self.approvals.open(replace(question, expected=expected, rollback=rollback))
            for _ in range(self.approvals.pauses(id_)):
                pause(approval.payload(), earlier=True)
            if self._uncovered(approval, decision):
                due = time.time() + self._ask_for(decision.event).within
                approval = self.approvals.reopen(id_, decision.asks, due, decision.event.actor)
            while approval.state == PENDING:
                self.approvals.paused(id_)
                pause(approval.payload())
                approval = self.approvals.get(id_)
        except StoreError as error:
            return await self.blocked(decision, "approval", error.code)
        return await self._ruled(approval, decision, seam)

    async def _ruled(self, approval: Approval, decision: Decision, seam: Seam) -> Decision:
        """The decision as the answer leaves it."""
        if approval.state == EXECUTED:
            return await self._spent(decision)
        if approval.state != APPROVED:
            reason = f"approval.{approval.state}"
            note = f"blocked: {reason}. {approval.feedback}" if approval.feedback else ""
            return await self.blocked(decision, "approval", reason, note)
        action, given = _action(decision.event), approval.new_args
        if approval.digest != call_digest(action, decision.would.value):
            return await self.blocked(decision, "approval", "approval.other_call")
        if given is not None and approval.digest != call_digest(action, given):
            return await self._with_new_args(approval, decision, seam)
        return replace(decision, action=Action.ALLOW, approval=approval.id)

    async def _with_new_args(self, approval: Approval, decision: Decision, seam: Seam) -> Decision:
        """A call that the reviewer changed is a new event: every gate sees it.

        What was asked was not approved. Where nothing else can be put in its place, as under a callback, in a message
        or at a step of a graph, it is blocked.
        """
        event, call = decision.event, decision.event.tool
        if call is None or event.stage is not Stage.TOOL_CALL or not seam.can(event.stage, Power.EDIT):
            return await self.blocked(decision, "seam", "unenforceable")
        event = replace(event, call=replace(call, args=cast("Mapping[str, Json]", approval.new_args)))
        fresh = await self.engine.deciding(replace(event, content=Content(approval.new_args)), seam)
        if fresh.blocked:
            # gates behind the one that blocked were not asked again
            await self.engine.settling(decision, Outcome("released"))
            return fresh
        if set(fresh.asks) - set(approval.reasons):
            return await self.blocked(fresh, "approval", "approval.new_reason")
        return replace(fresh, action=Action.ALLOW, approval=approval.id)

    async def granted(self, decision: Decision) -> Decision:
        """Tell gates what was approved. Another limit may be in the way: then the result blocks, or asks for more."""
        if decision.blocked or not decision.approval:
            return decision
        before = decision
        try:
            decision = await self.engine.granting(decision, decision.approval)
        except StoreError as error:
            return await self.blocked(decision, "approval", error.code)
        anew = [check for check, old in zip(decision.checks, before.checks, strict=True) if check is not old]
        now = combine(anew)
        if now.action is Action.BLOCK:
            await self.engine.settling(decision, Outcome("released"))
            return await self.engine.recording(replace(decision, action=Action.BLOCK, verdict=now, held=()))
        if now.action is Action.ASK and set(decision.asks) <= set(before.asks):  # more than an approval allows
            return await self.blocked(decision, anew[0].gate, now.reason)
        return replace(decision, action=Action.ASK, verdict=now) if now.action is Action.ASK else decision

    async def begin(self, decision: Decision) -> Decision:
        """Claim the right to carry out an approved call; a second claim on the same answer is blocked."""
        if decision.blocked or not decision.approval:
            return decision
        decision = await self.granted(decision)
        if decision.action is Action.ASK:
            return await self.blocked(decision, decision.gate, decision.verdict.reason)
        if decision.blocked:
            return decision
        try:
            won = self.approvals.claim(decision.approval)
        except StoreError as error:
            return await self.blocked(decision, "approval", error.code)
        return decision if won else await self._spent(decision)

    async def _spent(self, decision: Decision) -> Decision:
        """Somebody carries it out already, perhaps at this moment: what is held for it is theirs."""
        return await self.blocked(replace(decision, held=()), "approval", "approval.spent")

    def unclaim(self, decision: Decision) -> None:
        """Give a claim back: what was approved has paused itself before it had an effect, and will run again.

        Where the store cannot, the answer stays spent: the pause goes on, and what follows is blocked.
        """
        if decision.approval:
            with suppress(StoreError, UnknownApproval):
                self.approvals.unclaim(decision.approval)

    async def blocked(self, decision: Decision, gate: str, reason: str, note: str = "") -> Decision:
        """The same decision, turned into a block and recorded as one; what its gates hold is released."""
        checks = (*decision.checks, Check(gate, Verdict.block(reason, note=note)))
        await self.engine.settling(decision, Outcome("released"))
        mine = replace(combine(checks), action=Action.BLOCK, reason=reason)
        block = replace(decision, action=Action.BLOCK, verdict=mine, checks=checks, held=())
        return await self.engine.recording(block)

    async def revealed(self, decision: Decision) -> Content:
        """What a tool gets to run with: the decided arguments, with real values where the policy trusts it."""
        tool = decision.event.tool
        if tool is None or tool.name not in self.manners.trusted:
            return decision.content
        return await self.engine.restoring(replace(decision.event, content=decision.content))

    def refusal(self, decision: Decision, partial: str = "") -> str:
        """What the user sees instead of a blocked content; `partial` is what the model had said before."""
        return self.refusal_of(decision.stage, decision.verdict.reason, partial)

    def refusal_of(self, stage: Stage, reason: str, partial: str = "") -> str:
        """What the user sees instead of something that was blocked at a stage for a reason."""
        texts = self.manners.refusal
        return texts.get(stage, texts[None]).replace("{reason}", reason).replace("{partial}", partial).strip()

    def mark(self, decision: Decision) -> dict[str, str]:
        """What a refusal or a rejected tool message carries about the block."""
        return {
            "action": "block",
            "decision": decision.id,
            "stage": decision.stage.value,
            "gate": decision.gate,
            "reason": decision.verdict.reason,
        }

    def _question(self, id_: str, decision: Decision) -> Approval:
        event, question, now = decision.event, self._ask_for(decision.event), time.time()
        return Approval(
            id=id_,
            action=_action(event),
            args=self._redactor.value(json.loads(json.dumps(decision.would.value, default=_written))),
            reasons=decision.asks,
            digest=call_digest(_action(event), decision.would.value),
            opened=now,
            due=now + question.within,
            tier=question.tier,
            ask=question.ask,
            actor=event.actor.id,
            tenant=event.actor.tenant,
            run=event.where.run,
            thread=event.where.thread,
        )

    def _ask_for(self, event: Event) -> Question:
        return self.manners.questions.get(_action(event), self.manners.question)

    def _uncovered(self, approval: Approval, decision: Decision) -> bool:
        """Whether the policy asks for a reason that an answer given earlier does not discharge.

        Who takes up what another began is somebody else: what was asked about that one's budget opens no other's.
        """
        actor = decision.event.actor
        same = (approval.actor, approval.tenant) == (actor.id, actor.tenant)
        asked = {check.gate for check in decision.checks if check.verdict.action is Action.ASK}
        holds = {step.gate.name for step in self.engine.steps(decision.stage) if isinstance(step.gate, HoldingGate)}
        new = set(decision.asks) - set(approval.reasons)
        return approval.state == APPROVED and bool(new or (not same and asked & holds))


def _fingerprint(value: object) -> str:
    """A digest of a content; a text's, made often and fast, is never that of a tree."""
    if isinstance(value, str):
        return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16, person=b"text").hexdigest()
    try:
        return call_digest("", value)
    except RecursionError:  # nested too deeply to be known again; gates find it unreadable
        return secrets.token_hex(16)


def _written(value: object) -> str:
    """A value for which JSON has no form: dates and numbers in words, of all else no more than what it is."""
    known = isinstance(value, date | clock | timedelta | Decimal | UUID)
    return str(value) if known else unread(value)


def _action(event: Event) -> str:
    return event.tool.name if event.tool else event.stage.value
