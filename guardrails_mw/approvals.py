"""Questions to people: opened once, answered once, carried out once.

An approval lives in the store's register, not in the host: what a resume brings along is ignored. It is
bound to the call by a digest of tool and arguments, and it discharges exactly the reasons it was opened
for. Every change is a compare-and-set, so that of two people (or a person and the clock) one wins.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from guardrails_mw.errors import AlreadyDecided, UnknownApproval
from guardrails_mw.event import Actor, Event
from guardrails_mw.store import Store

__all__ = [
    "APPROVED",
    "CLOCK",
    "EXECUTED",
    "EXPIRED",
    "PENDING",
    "QUESTION",
    "REJECTED",
    "Approval",
    "Approvals",
    "approval_id",
    "call_digest",
]

_PREFIX = "approval:"
_PAUSES = "pauses:"
PENDING, APPROVED, REJECTED, EXPIRED, EXECUTED = "pending", "approved", "rejected", "expired", "executed"
CLOCK = "clock"
QUESTION = "guardrails.approval"
"""The type of the value that a host shows while it waits for a person."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A question to a person about one call or step.

    Attributes:
        action: what would be done: a tool's name, or the name of a step.
        args: the arguments as the reviewer may see them, already redacted.
        reasons: the reason codes that the answer discharges.
        digest: binds the answer to the exact call.
        due: epoch seconds at which the question closes.
        state: ``pending``, ``approved``, ``rejected``, ``expired`` or ``executed``.
        new_args: arguments that the reviewer put in place of the proposed ones.
    """

    id: str
    action: str
    args: object
    reasons: tuple[str, ...]
    digest: str
    opened: float
    due: float
    tier: str = ""
    ask: str = ""
    actor: str = ""
    tenant: str = ""
    run: str = ""
    thread: str = ""
    expected: str = ""
    rollback: str = ""
    state: str = PENDING
    by: str = ""
    at: float = 0.0
    feedback: str = ""
    new_args: dict[str, object] | None = None

    def payload(self) -> dict[str, object]:
        """What the host shows while it waits: the value of the interrupt."""
        return {
            "type": QUESTION,
            "id": self.id,
            "action": self.action,
            "args": self.args,
            "reason": ", ".join(self.reasons),
            "tier": self.tier,
            "ask": self.ask,
            "due": self.due,
            "expected": self.expected,
            "rollback": self.rollback,
        }


def call_digest(action: str, args: object) -> str:
    """A digest of a call: equal for equal tool and arguments, whatever the order of keys."""
    canonical = json.dumps([action, args], sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def approval_id(event: Event, action: str) -> str:
    """The id under which an event is asked about, the same when its node runs again or it is tried again."""
    return "ap-" + call_digest(f"{event.first or event.key}|{event.stage}|{action}", event.content.value)[:12]


class Approvals:
    """The register of approvals.

    Args:
        store: where they last.
        clock: epoch seconds; a test may bring its own.
        on_change: told of every change after it was stored.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[Approval], None] | None = None,
    ) -> None:
        self._store, self._clock, self._on_change = store, clock, on_change

    def open(self, approval: Approval) -> Approval:
        """Ask; returns what is on record when the question was asked before."""
        if self._store.swap(_PREFIX + approval.id, None, _dump(approval), approval.due):
            self._changed(approval)
            return approval
        return self.get(approval.id)

    def find(self, id: str) -> Approval | None:
        """The approval, or None; one whose time is over is expired on the way."""
        raw = self._store.get(_PREFIX + id)
        if raw is None:
            return None
        approval = _load(raw)
        if approval.state == PENDING and self._clock() >= approval.due:
            return self._change(approval, state=EXPIRED, by=CLOCK)
        return approval

    def get(self, id: str) -> Approval:
        """The approval. Raises `UnknownApproval`."""
        found = self.find(id)
        if found is None:
            raise UnknownApproval(id)
        return found

    def list(self, state: str | None = PENDING) -> Sequence[Approval]:
        """Approvals in a state (None: all), oldest first."""
        found = (self.find(key.removeprefix(_PREFIX)) for key in self._store.keys(_PREFIX))
        return [item for item in found if item is not None and state in (None, item.state)]

    def approve(
        self,
        id: str,
        *,
        by: str,
        args: dict[str, object] | None = None,
        feedback: str = "",
    ) -> Approval:
        """Let it happen, perhaps with other arguments. Raises `AlreadyDecided`, `UnknownApproval`."""
        return self._decide(id, APPROVED, by, feedback, args)

    def reject(self, id: str, *, by: str, feedback: str = "") -> Approval:
        """Do not let it happen. Raises `AlreadyDecided`, `UnknownApproval`."""
        return self._decide(id, REJECTED, by, feedback, None)

    def claim(self, id: str) -> bool:
        """Take the right to carry it out; True for exactly one caller."""
        found = self.get(id)
        return found.state == APPROVED and self._swap(found, replace(found, state=EXECUTED))

    def unclaim(self, id: str) -> None:
        """Give the right back: it was not carried out after all."""
        found = self.get(id)
        if found.state == EXECUTED:
            self._swap(found, replace(found, state=APPROVED))

    def reopen(self, id: str, reasons: Sequence[str], due: float, actor: Actor) -> Approval:
        """Ask again, because reasons came up that the answer did not cover, or for another actor."""
        found = self.get(id)
        asks = {"reasons": tuple(sorted({*found.reasons, *reasons})), "actor": actor.id, "tenant": actor.tenant}
        new = replace(found, state=PENDING, due=due, by="", at=0.0, new_args=None, **asks)  # type: ignore[arg-type]
        return new if self._swap(found, new) else self.get(id)

    def pauses(self, id: str) -> int:
        """How often a host was paused for it."""
        return int(self._store.get(_PAUSES + id) or 0)

    def paused(self, id: str) -> None:
        """Count one more pause of a host. Of two at the same moment one may be counted."""
        before = self._store.get(_PAUSES + id)
        self._store.swap(_PAUSES + id, before, str(int(before or 0) + 1))

    def sweep(self) -> Sequence[Approval]:
        """Expire what is overdue; returns those."""
        keys = self._store.due(_PREFIX, self._clock())
        swept = (self.find(key.removeprefix(_PREFIX)) for key in keys)
        return [item for item in swept if item is not None and item.state == EXPIRED]

    def _decide(self, id: str, state: str, by: str, feedback: str, args: dict[str, object] | None) -> Approval:
        if not by:
            raise ValueError("an answer needs a name: by=")
        found = self.get(id)
        if found.state != PENDING:
            raise AlreadyDecided(found.by, found.at, found.state)
        decided = self._change(found, state=state, by=by, feedback=feedback, new_args=args)
        if (decided.state, decided.by) != (state, by):
            raise AlreadyDecided(decided.by, decided.at, decided.state)
        return decided

    def _change(self, old: Approval, **fields: object) -> Approval:
        """Change it if nobody else has, else return what they made of it."""
        new = replace(old, at=self._clock(), **fields)  # type: ignore[arg-type]
        return new if self._swap(old, new) else self.get(old.id)

    def _swap(self, old: Approval, new: Approval) -> bool:
        due = new.due if new.state == PENDING else None
        won = self._store.swap(_PREFIX + old.id, _dump(old), _dump(new), due)
        if won:
            self._changed(new)
        return won

    def _changed(self, approval: Approval) -> None:
        if self._on_change is not None:
            self._on_change(approval)


def _dump(approval: Approval) -> str:
    return json.dumps(asdict(approval), sort_keys=True, default=str)


def _load(raw: str) -> Approval:
    data = json.loads(raw)
    return Approval(**{**data, "reasons": tuple(data["reasons"])})
