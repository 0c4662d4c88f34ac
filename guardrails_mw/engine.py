"""The engine: asks the gates, adds up what they say, records it, and says what is enforced.

There is one asynchronous core, `Engine.deciding`; synchronous callers drive the same coroutine. Deadlines,
failures, combination and elapsed-time checks live here, once.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from guardrails_mw.asking import PASS_THROUGH, Asker, Step
from guardrails_mw.backlog import Backlog
from guardrails_mw.blocks import together
from guardrails_mw.errors import StoreError
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.forks import Numbers
from guardrails_mw.gate import Gate, HoldingGate
from guardrails_mw.judges import Judges
from guardrails_mw.recorder import Recorder
from guardrails_mw.redaction import apply
from guardrails_mw.seam import ANYWHERE, Power, Seam
from guardrails_mw.stream import Flowing, Pace, Shown, Stream, flowing
from guardrails_mw.vault import Vault, scope_of
from guardrails_mw.verdict import ALLOWED, Action, Check, Decision, Operator, Outcome, Remedy, Verdict, combine
from guardrails_mw.wait import drive, drive_async

__all__ = ["Engine", "Settings", "Step"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """The policy as far as the engine needs it."""

    policy: str
    shadow: bool = False
    unchecked: Action = Action.BLOCK
    on_unenforceable: Action = Action.BLOCK
    on_record_failure: Action = Action.BLOCK
    pace: Pace = field(default_factory=Pace)


class Engine:
    """Decides events by a plan of gates.

    Args:
        plan: the steps of every stage, in order.
        settings: the policy as far as the engine needs it.
        recorder: keeps decisions; None records nothing.
        observers: told of every decision after it was recorded; must not raise, and are ignored if they do.
        vault: makes the tokens that edits ask for; without it such edits show their gate's label.
        backlog: where requests are seen that wait for a gate to come back; without it none waits.
    """

    def __init__(
        self,
        plan: Mapping[Stage, Sequence[Step]],
        settings: Settings,
        recorder: Recorder | None = None,
        observers: Sequence[Callable[[Decision], None]] = (),
        *,
        vault: Vault | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self._plan = {stage: tuple(steps) for stage, steps in plan.items()}
        self._settings, self._recorder, self._vault = settings, recorder, vault
        holding = [step.gate for step in self.steps() if isinstance(step.gate, HoldingGate)]
        self._observing = [gate for gate in holding if gate.observes]
        self.observers = list(observers)
        self._asker = Asker(backlog)
        self.prefix, self._numbers = secrets.token_hex(4), Numbers()  # what ids of decisions are made of
        self._judges = Judges(self._asker, self.steps(Stage.MODEL), settings.shadow, self.prefix)

    def serves(self, stage: Stage) -> bool:
        """Whether any gate looks at this stage."""
        return bool(self._plan.get(stage))

    def decide(self, event: Event, seam: Seam = ANYWHERE) -> Decision:
        """Decide an event in this thread."""
        return drive(self.deciding(event, seam))

    async def adecide(self, event: Event, seam: Seam = ANYWHERE) -> Decision:
        """Decide an event without stalling the running loop."""
        return await drive_async(self.deciding(event, seam))

    def judge(self, event: Event) -> Decision:
        """Decide an event that does not happen: nothing is recorded, kept or told, gates that remember are left out."""
        return drive(self.deciding(event, dry=True))

    def open(self, event: Event) -> Stream:
        """Decide a text that arrives in pieces; `event.content` is replaced by what was fed."""
        return Stream(self, event)

    def flow(self, stage: Stage) -> Flowing | None:
        """How texts of a stage flow while they arrive; None where a gate has to see the whole first."""
        if self._settings.shadow:  # nothing is kept back, whatever the gates would say
            return Flowing((), (), 0)
        return flowing((step.gate for step in self._plan.get(stage, ())), self._settings.pace)

    def settle(self, decision: Decision, outcome: Outcome) -> None:
        """Tell the gates that hold something for a decision how its effect ended. Never raises a gate's error."""
        if decision.verdict.max_tokens is not None and not decision.shadow:
            outcome = replace(outcome, limit=decision.verdict.max_tokens)
        held: Collection[str] = decision.held
        if outcome.status == "released":
            held = set(held) - {check.gate for check in decision.checks if check.verdict.again}
        self._settle(decision.event, held, outcome)

    async def settling(self, decision: Decision, outcome: Outcome) -> None:
        """`settle` as part of a larger flow: in a worker where the store may wait for a disk or a network."""
        if decision.held:
            await self._aside(lambda: self.settle(decision, outcome))

    async def granting(self, decision: Decision, by: str) -> Decision:
        """Tell gates that hold that a person has approved what they asked for; they may then hold it.

        What they say now takes the place of their question: another limit may be in the way.

        Raises:
            StoreError: what the store says.
        """
        asked = {check.gate: check.verdict.reason for check in decision.checks if check.verdict.action is Action.ASK}
        held, answers = list(decision.held), dict[str, Check]()
        for step in self.steps(decision.stage):
            gate = step.gate
            if gate.name in asked and isinstance(gate, HoldingGate):
                await self._aside(lambda gate=gate: gate.grant(decision.event, asked[gate.name], by))  # type: ignore[misc]
                check = answers[gate.name] = await self._asker.asked(step, decision.event)
                if not check.error and check.verdict.action < Action.ASK:
                    held.append(gate.name)
        return replace(decision, held=tuple(held), checks=tuple(answers.get(c.gate, c) for c in decision.checks))

    def start(self) -> None:
        """Start the processes of isolated gates, and wait until they have loaded their gates."""
        for process in [step.process for step in self.steps() if step.process]:
            process.start()

    def reasks(self, decision: Decision) -> int:
        """How often the model may be asked again after this block; 0 where its remedy is another."""
        if decision.verdict.remedy is not Remedy.REASK:
            return 0
        return next((s.gate.max_reasks for s in self._plan.get(decision.stage, ()) if s.gate.name == decision.gate), 0)

    def fresh_id(self) -> str:
        """An id that nothing else has."""
        return f"{self.prefix}-{self._numbers.next()}"

    def steps(self, stage: Stage | None = None) -> Sequence[Step]:
        """The steps of a stage in order, or every step once."""
        if stage is not None:
            return self._plan.get(stage, ())
        return list({id(step.gate): step for steps in self._plan.values() for step in steps}.values())

    def close(self) -> None:
        """Stop workers, processes and gates."""
        for close in self.closers():
            close()

    def closers(self, *, holding: bool = True) -> list[Callable[[], None]]:
        """What stops them and has no hold on the engine; without `holding`, gates that may yet have to settle stay."""
        steps = [step for step in self.steps() if holding or not isinstance(step.gate, HoldingGate)]
        processes = [step.process.close for step in steps if step.process]
        return [*processes, *(step.gate.close for step in steps), self._asker.close]

    async def deciding(
        self,
        event: Event,
        seam: Seam = ANYWHERE,
        *,
        edits_only: bool = False,
        shown: Shown | None = None,
        dry: bool = False,
    ) -> Decision:
        """Decide an event, as part of a larger flow, for a seam that will carry the decision out.

        With `edits_only` gates that may edit are asked what they would, no more: the event is decided later. One that
        fails may block all the same, because nobody knows what it would have replaced.
        `shown` is what of it left already, because it arrived as a stream. With `dry` it does not happen.
        """
        began = time.perf_counter()
        if not event.key:
            event = replace(event, key=f"once:{self.fresh_id()}")
        checks: list[Check] = []
        try:
            if not edits_only and (opaque := self._opaque(event)) is not None:
                checks.append(opaque)
            steps = self.editing(event.stage) if edits_only else self.steps(event.stage)
            asking = self._asker if dry else self._judges
            await self._asked(event, [step for step in steps if not (dry and step.gate.remembers)], checks, asking)
            if edits_only:
                checks = [check if check.error else _editing_only(check) for check in checks]
                checks = [check for check in checks if check.error or check.verdict.edits]
            if self._vault is not None and not dry and seam.can(event.stage, Power.EDIT):
                checks = await self._tokenised(self._vault, event, checks)
            decision = self._conclude(event, checks, began, seam)
            if decision.blocked and event.stage in (Stage.MODEL, Stage.TOOL_CALL):
                # a gate that refused holds nothing for this; what it holds under the key is for a call that ran before
                held = [c.gate for c in checks if c.error or (c.verdict.action < Action.ASK and not c.verdict.again)]
                await self._aside(lambda: self._settle(event, held, Outcome("released")))
            if shown is not None and (shown.characters or shown.checks):
                decision = self._after(decision, shown, began, seam)
            # where nobody was asked, nothing was decided
            return await self.recording(decision) if decision.checks and not dry else decision
        except PASS_THROUGH:
            self._settle(event, [check.gate for check in checks], Outcome("unknown"))
            raise

    async def glancing(self, event: Event, seam: Seam, gates: Collection[Gate]) -> Decision:
        """What some gates say of a piece of an event that still arrives; recorded nowhere."""
        began, checks = time.perf_counter(), list[Check]()
        steps = [step for step in self.steps(event.stage) if step.gate in gates]
        await self._asked(event, steps, checks, self._judges)
        if self._vault is not None and seam.can(event.stage, Power.EDIT):
            checks = await self._tokenised(self._vault, event, checks)
        return self._conclude(event, checks, began, seam)

    async def opening(self, event: Event, seam: Seam) -> Decision | None:
        """Keep that a text begins to be shown; what that failing means, if it is a block."""
        recorder, began = self._recorder, time.perf_counter()
        try:
            if recorder is not None:
                await self._aside(lambda: recorder.opened(event))
        except PASS_THROUGH:
            raise
        except Exception as error:  # noqa: BLE001 - as for any record
            decision = await self._unrecorded(self._conclude(event, [], began, seam), error)
            return decision if decision.blocked else None
        return None

    async def _asked(self, event: Event, steps: Sequence[Step], checks: list[Check], asking: Asker | Judges) -> None:
        """Ask gates one after another, until one blocks; `checks` grows by what they say."""
        joined = together(event)
        for step in steps:
            if not checks or checks[-1].verdict.action is not Action.BLOCK:
                checks.append(await asking.asked(step, event, joined))

    def _after(self, decision: Decision, shown: Shown, began: float, seam: Seam) -> Decision:
        """The decision on something of which the beginning was shown: it cannot be more lenient than that was."""
        checks = list(decision.checks)
        if decision.verdict.action is not Action.BLOCK:
            checks += shown.checks
            if not shown.fits(decision.content):  # a gate whose bounds are not what it says they are
                checks.append(Check("stream", Verdict.block("error.stream"), 0.0, "stream"))
        if len(checks) > len(decision.checks):
            decision = self._conclude(decision.event, checks, began, seam)
        return replace(decision, shown=shown.characters)

    def editing(self, stage: Stage) -> list[Step]:
        """The steps that may edit and can be asked twice. In shadow mode nothing is edited ahead."""
        steps = () if self._settings.shadow else self._plan.get(stage, ())
        return [s for s in steps if "edit" in s.gate.may(stage) and not isinstance(s.gate, HoldingGate)]

    async def stating(self, event: Event, check: Check, seam: Seam = ANYWHERE, shown: int = 0) -> Decision:
        """Record a decision that needs no gate, because the caller's code made it, after `shown` characters."""
        return await self.recording(replace(self._conclude(event, [check], time.perf_counter(), seam), shown=shown))

    def restores(self, event: Event) -> bool:
        """Whether there may be real values behind tokens in this event's content."""
        return self._vault is not None and bool(scope_of(event.where, event.actor)) and not self._settings.shadow

    async def restoring(self, event: Event) -> Content:
        """The event's content with real values in place of its thread's tokens, for who may see them.

        Recorded before anything is given back: how many values, and how many look-alikes stayed. Where that
        or the vault fails, tokens stay.
        """
        vault, scope = self._vault, scope_of(event.where, event.actor)
        if vault is None or not self.restores(event):
            return event.content

        def restored() -> Content:
            found = vault.restore(scope, event.content)
            if self._recorder is not None and (found.restored or found.unresolved):
                self._recorder.restored(event, found)
            return found.content

        try:
            return await self._aside(restored, waits=vault.blocking)
        except StoreError:
            return event.content

    async def streaming(self, event: Event, seam: Seam) -> Decision | None:
        """The decision on text that a seam shows before it is complete; None where no gate waits for its end."""
        if not self.serves(event.stage):
            return None
        check = Check("seam", Verdict(self._settings.on_unenforceable, "unenforceable.stream"))
        return await self.stating(event, check, seam)

    async def _tokenised(self, vault: Vault, event: Event, checks: list[Check]) -> list[Check]:
        """The checks with tokens made for their edits, where these will be applied; a vault that fails is flagged."""
        asked = any(edit.operator is Operator.TOKEN for check in checks for edit in check.verdict.edits)
        if not asked or self._settings.shadow or any(check.verdict.action is Action.BLOCK for check in checks):
            return checks
        try:
            return await self._aside(lambda: vault.tokenised(event, checks), waits=vault.blocking)
        except StoreError as error:  # the labels of the gates hide the values too, but nothing brings them back
            return [*checks, Check("vault", Verdict.flag(f"error.{error.code}"), 0.0, error.code)]

    def _opaque(self, event: Event) -> Check | None:
        """The verdict on content that no gate can read."""
        if isinstance(event.content.value, str) or not self._plan.get(event.stage):
            return None
        part = next((part for part in event.content.parts if not part.readable), None)
        if part is None or self._settings.unchecked is Action.ALLOW:
            return None
        return Check("unchecked", Verdict(self._settings.unchecked, f"unchecked.{part.kind}"))

    def _conclude(self, event: Event, checks: list[Check], began: float, seam: Seam) -> Decision:
        verdict = combine(checks)
        try:
            would = apply(event.content, verdict.edits)
        except (IndexError, TypeError):
            checks.append(Check("engine", Verdict.block("error.edit"), 0.0, "edit"))
            verdict, would = combine(checks), event.content
        if verdict is not ALLOWED and not seam.carries(event.stage, verdict):
            checks.append(
                Check("seam", Verdict(self._settings.on_unenforceable, "unenforceable"), 0.0, "unenforceable")
            )
            verdict, would = combine(checks), event.content
        action = verdict.action
        if action is Action.ASK and not seam.can(event.stage, Power.ASK):
            action = Action.FLAG  # the policy says so: `on_unenforceable: flag`
        shadow = self._settings.shadow
        held: tuple[str, ...] = ()
        if event.stage in (Stage.MODEL, Stage.TOOL_CALL) and (shadow or verdict.action is not Action.BLOCK):
            held = self._holding(event.stage, checks)
        return Decision(
            id=self.fresh_id(),
            event=event,
            action=Action.ALLOW if shadow else action,
            verdict=verdict,
            checks=tuple(checks),
            content=event.content if shadow else would,
            would=would,
            policy=self._settings.policy,
            seam=seam.name,
            seconds=time.perf_counter() - began,
            shadow=shadow,
            held=held,
        )

    def _holding(self, stage: Stage, checks: Sequence[Check]) -> tuple[str, ...]:
        """The gates that have to be told how it ended; in shadow mode what is refused happens all the same."""
        holding = {s.gate.name for s in self._plan.get(stage, ()) if isinstance(s.gate, HoldingGate)}
        if not holding or self._settings.shadow:
            return tuple(holding)
        return tuple(c.gate for c in checks if c.gate in holding and c.verdict.action < Action.ASK)

    def _settle(self, event: Event, names: Collection[str], outcome: Outcome) -> None:
        for step in self._plan.get(event.stage, ()):
            if step.gate.name in names and isinstance(step.gate, HoldingGate):
                with contextlib.suppress(Exception):  # the hold stays and is charged in full, the strict side
                    step.gate.settle(event, outcome)

    async def recording(self, decision: Decision) -> Decision:
        """Keep a decision before it takes effect, and tell the observers."""
        recorder = self._recorder
        if recorder is not None:
            try:
                await self._aside(lambda: recorder.record(decision))
            except PASS_THROUGH:
                raise
            except Exception as error:  # noqa: BLE001 - a recorder that fails is itself a verdict
                decision = await self._unrecorded(decision, error)
        with contextlib.suppress(Exception):  # what a verdict costs beside its effect cannot undo it
            if decision.verdict.action is not Action.ALLOW and self._observing:
                await self._aside(lambda: self._tell(decision))
        for observer in self.observers:
            with contextlib.suppress(Exception):  # watching must not change what is watched
                observer(decision)
        return decision

    def _tell(self, decision: Decision) -> None:
        for gate in self._observing:
            gate.observe(decision)

    async def _aside(self, call: Callable[[], T], *, waits: bool | None = None) -> T:
        """Call what uses the store: in a worker where it `waits` (as the recorder's does, if left out), else here."""
        waits = self._recorder is not None and self._recorder.blocking if waits is None else waits
        return await self._asker.in_worker(call, None) if waits else call()

    async def _unrecorded(self, decision: Decision, error: Exception) -> Decision:
        code = error.code if isinstance(error, StoreError) else "ledger.failed"
        checks = (*decision.checks, Check("ledger", Verdict(self._settings.on_record_failure, code), 0.0, code))
        verdict, held = combine(checks), decision.held
        if verdict.action is Action.BLOCK and held:
            await self.settling(decision, Outcome("released"))
            held = ()
        action = Action.ALLOW if decision.shadow else verdict.action
        return replace(decision, verdict=verdict, action=action, checks=checks, held=held)


def _editing_only(check: Check) -> Check:
    return replace(check, verdict=Verdict.allow(check.verdict.reason, edits=check.verdict.edits))
