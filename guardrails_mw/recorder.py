"""Writes decisions into the ledger: everything that led to them, and content only after redaction."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Protocol

from guardrails_mw.approvals import Approval
from guardrails_mw.event import Event, ModelCall, ToolCall
from guardrails_mw.ledger import Ledger
from guardrails_mw.redaction import Redactor, unread
from guardrails_mw.vault import Restored
from guardrails_mw.verdict import Check, Decision

__all__ = ["GUARD", "LedgerRecorder", "Recorder"]

GUARD = "guard"
"""The run under which is kept what happens to the guard itself."""

_MAX_CONTENT = 20_000
"""Characters of a content that are kept."""


class Recorder(Protocol):
    """Writes decisions down before they take effect. Raises `StoreError` when it cannot."""

    blocking: bool

    def record(self, decision: Decision) -> None:
        """Keep a decision; the same decision on the same event is kept once."""

    def opened(self, event: Event) -> None:
        """Keep that a text is about to be shown while it still arrives."""

    def restored(self, event: Event, found: Restored) -> None:
        """Keep that values were given back for an event, and how many; never the values."""


class LedgerRecorder:
    """Keeps decisions and what became of approvals.

    Args:
        ledger: where to.
        redactor: what to remove first.
        secret: key of the content digests, by which equal contents are found without being kept.
        content: whether contents are kept at all.
        blocking: whether the ledger's store may wait for a disk or a network.
    """

    def __init__(self, ledger: Ledger, redactor: Redactor, secret: bytes, content: bool, blocking: bool) -> None:
        self._ledger, self._redactor, self._secret = ledger, redactor, secret
        self._content, self.blocking = content, blocking
        self._names = lru_cache(1024)(redactor.text)  # the same few tools, again and again

    def record(self, decision: Decision) -> None:
        """Keep a decision; the same decision on the same event is kept once. Raises `StoreError`."""
        event = decision.event
        digest = self._digest(event.content.value)
        verdict = decision.verdict
        said = f"{verdict.action:d}|{verdict.reason}|{decision.policy}|{decision.seam}"
        key = f"{self._key(event)}|{event.stage}|{digest[:16]}|{said}"
        self._ledger.record(event.where.run or "direct", key, "decision", self._body(decision, digest))

    def approval(self, approval: Approval) -> None:
        """Keep a change of an approval. Raises `StoreError`."""
        body = {
            "approval": approval.id,
            "state": approval.state,
            "action": self._name(approval.action),
            "reasons": list(approval.reasons),
            "by": approval.by,
            "due": approval.due,
            "edited": approval.new_args is not None,
        }
        key = f"{approval.id}|{approval.state}|{approval.at}|{approval.due}|{'+'.join(approval.reasons)}"
        self._ledger.record(approval.run or "direct", key, "approval", body)

    def opened(self, event: Event) -> None:
        """Keep that a text is about to be shown while it still arrives; its decision follows. Raises `StoreError`."""
        body = {
            "stage": event.stage.value,
            "thread": event.where.thread,
            "agent": event.where.agent,
            "actor": event.actor.id,
        }
        key = f"{self._key(event)}|{event.stage}|opened" if event.key else ""
        self._ledger.record(event.where.run or "direct", key, "stream", body)

    def restored(self, event: Event, found: Restored) -> None:
        """Keep that hidden values were given back, for what and how many. Raises `StoreError`."""
        body: dict[str, object] = {
            "stage": event.stage.value,
            "restored": found.restored,
            "unresolved": found.unresolved,
            "thread": event.where.thread,
            "actor": event.actor.id,
            "digest": self._digest(event.content.value),
        }
        if event.tool is not None:
            body["tool"], body["call_id"] = self._name(event.tool.name), self._name(event.tool.id)
        key = f"{self._key(event)}|{event.stage}|{body['digest']}|restored"
        self._ledger.record(event.where.run or event.where.thread or "direct", key, "restored", body)

    def reloaded(self, body: Mapping[str, object]) -> None:
        """Keep that the policy was changed, or could not be. Raises `StoreError`."""
        self._ledger.record(GUARD, "", "policy", body)

    def _body(self, decision: Decision, digest: str) -> dict[str, object]:
        event, verdict = decision.event, decision.verdict
        body: dict[str, object] = {
            "decision": decision.id,
            "stage": event.stage.value,
            "action": decision.action.word,
            "verdict": verdict.action.word,
            "gate": decision.gate,
            "reason": verdict.reason,
            "shadow": decision.shadow,
            "seam": decision.seam,
            "policy": decision.policy,
            "edits": len(verdict.edits),
            "checks": [_check(check) for check in decision.checks],
            "thread": event.where.thread,
            "agent": event.where.agent,
            "actor": event.actor.id,
            "digest": digest,
            "ms": round(decision.seconds * 1000, 3),
        }
        if verdict.facts:
            body["facts"] = dict(verdict.facts)
        if decision.shown:
            body["shown"] = decision.shown
        if isinstance(event.call, ToolCall):
            body["tool"] = self._name(event.call.name)
            body["call_id"] = self._name(event.call.id)
        elif isinstance(event.call, ModelCall):
            body["model"] = event.call.name
        if self._content and event.content.parts:
            known = {check.gate: check.verdict for check in decision.checks if not check.error}
            body["content"] = _cut(self._redactor.content(event, known).value)
        return body

    def _name(self, name: str) -> str:
        """A tool's name or a call's id as it may be kept: a model chose it, and may have put anything there."""
        return self._names(name)

    def _key(self, event: Event) -> str:
        """What identifies an event, as it may be kept: ids of messages and calls are part of it."""
        return self._digest(event.key)[:32] if event.key else ""

    def _digest(self, value: object) -> str:
        raw = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
        return hmac.digest(self._secret, raw.encode("utf-8", "surrogatepass"), "sha256").hex()


def _check(check: Check) -> dict[str, object]:
    verdict = check.verdict
    entry: dict[str, object] = {
        "gate": check.gate,
        "action": verdict.action.word,
        "reason": verdict.reason,
        "ms": round(check.seconds * 1000, 3),
    }
    if verdict.score is not None:
        entry["score"], entry["threshold"] = verdict.score, verdict.threshold
    if check.error:
        entry["error"] = check.error
    if verdict.findings:
        entry["findings"] = [[f.type, f.start, f.end, round(f.score, 3), f.part] for f in verdict.findings]
    return entry


def _cut(value: object) -> str:
    """A content as the ledger keeps it: text, cut with a note of what is missing."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=unread)
    return text if len(text) <= _MAX_CONTENT else f"{text[:_MAX_CONTENT]}… [{len(text) - _MAX_CONTENT} more characters]"
