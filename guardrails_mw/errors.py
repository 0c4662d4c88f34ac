"""The errors that can reach a user. This module imports nothing of the package.

```
GuardrailsError
├─ PolicyError          the policy file is wrong: names file, line, field and what is allowed
├─ GateError            a gate broke; the engine turns it into the policy's `on_error` verdict
├─ StoreError           the store could not be read or written; treated like a gate error
├─ AlreadyDecided       somebody else answered this approval first, or its time is over
├─ UnknownApproval      no approval with that id is on record
└─ GuardrailBlocked     a block, where a seam raises instead of refusing; holds codes, never content
```
"""

from __future__ import annotations

__all__ = [
    "AlreadyDecided",
    "GateError",
    "GuardrailBlocked",
    "GuardrailsError",
    "PolicyError",
    "StoreError",
    "UnknownApproval",
]


class GuardrailsError(Exception):
    """Base of every error that this package raises on purpose."""


class PolicyError(GuardrailsError):
    """The policy cannot be used as it stands.

    Args:
        problem: what is wrong and what is allowed, in one sentence.
        file: path of the policy file, empty for a policy built in code.
        line: 1-based line in that file, 0 when unknown.
        field: dotted path of the offending key, for example ``gates.pii.profile``.

    >>> str(PolicyError("unknown key", file="p.yaml", line=3, field="gates.pii.x"))
    'p.yaml:3: gates.pii.x: unknown key'
    """

    def __init__(self, problem: str, *, file: str = "", line: int = 0, field: str = "") -> None:
        self.problem, self.file, self.line, self.field = problem, file, line, field
        place = f"{file or '<policy>'}:{line}" if line else file
        super().__init__(": ".join(part for part in (place, field, problem) if part))


class GateError(GuardrailsError):
    """A gate could not answer. ``code`` is a reason code, safe to record and to show."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class StoreError(GuardrailsError):
    """The store could not be read or written. ``code`` is a reason code."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class AlreadyDecided(GuardrailsError):
    """An approval that is no longer pending was answered again.

    Attributes:
        by: who decided it (``clock`` when its time ran out).
        at: when, in seconds since the epoch.
        state: what it was decided to be.
    """

    def __init__(self, by: str, at: float, state: str) -> None:
        self.by, self.at, self.state = by, at, state
        super().__init__(f"already {state} by {by}")


class UnknownApproval(GuardrailsError):
    """No approval with this id exists in the store."""


class GuardrailBlocked(GuardrailsError):
    """A guardrail blocked, at a seam that can only raise or was asked to.

    The message holds codes only: exceptions end up in logs and traces.

    >>> str(GuardrailBlocked("d-1", "input", "injection", "override"))
    'blocked at input by injection: override (decision d-1)'
    """

    def __init__(self, decision_id: str, stage: str, gate: str, reason: str) -> None:
        self.decision_id, self.stage, self.gate, self.reason = decision_id, stage, gate, reason
        super().__init__(f"blocked at {stage} by {gate}: {reason} (decision {decision_id})")
