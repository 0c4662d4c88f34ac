"""What gates say, and what it adds up to.

Actions are ordered and combine by `max`; edits are apart from actions and combine by union on the
original content. Both operations are associative, commutative and idempotent, so the order of gates
never changes what a stage decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from guardrails_mw.event import Content, Event, Stage

__all__ = [
    "ALLOWED",
    "HELD_BEFORE",
    "Action",
    "Check",
    "Decision",
    "Edit",
    "Finding",
    "Operator",
    "Outcome",
    "Remedy",
    "Usage",
    "Verdict",
    "combine",
]


class Action(IntEnum):
    """What may happen next, from the most permissive to the strictest."""

    ALLOW = 0
    FLAG = 1
    ASK = 2
    BLOCK = 3

    @property
    def word(self) -> str:
        """The name as policies and records spell it."""
        return self.name.lower()

    def __str__(self) -> str:
        return self.word


class Operator(IntEnum):
    """How an edit hides a value. Where edits overlap, the higher one wins."""

    TOKEN = 0
    HASH = 1
    MASK = 2
    REMOVE = 3


class Remedy(StrEnum):
    """How a block ends."""

    REFUSE = "refuse"
    REASK = "reask"
    NUDGE = "nudge"
    END = "end"
    CHEAPER = "cheaper"


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Replace ``[start, end)`` of one part of the original content by `text`."""

    start: int
    end: int
    text: str = field(repr=False)
    part: int = 0
    operator: Operator = Operator.MASK


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A span of the original content that a gate recognised. Holds no content itself."""

    type: str
    start: int
    end: int
    score: float = 1.0
    part: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A gate's answer.

    Attributes:
        action: what may happen.
        reason: a code such as ``override`` or ``tool.role``; never content.
        edits: what to replace, under any action.
        findings: what was found where.
        score: detector score, compared with `threshold`.
        remedy: how a block ends, when it is not a plain refusal.
        note: text for the model that goes with a re-ask or nudge. Not recorded.
        facts: figures that go with the reason, such as what is left of a budget; never content.
        max_tokens: what the model's answer has to be limited to, at the stage `model`.
        used: what the gate's own calls of a model used, in the order of `Gate.calls`; None for one of which nobody
            told. Not recorded.
        again: of a gate that holds: nothing was held anew, because the key was used before. Giving this call up gives
            nothing back: the one before may have happened. Not recorded.

    >>> Verdict.block("override", score=1.4, threshold=1.0).action.word
    'block'
    """

    action: Action = Action.ALLOW
    reason: str = ""
    edits: tuple[Edit, ...] = ()
    findings: tuple[Finding, ...] = ()
    score: float | None = None
    threshold: float | None = None
    remedy: Remedy = Remedy.REFUSE
    note: str = field(default="", repr=False)
    facts: tuple[tuple[str, int | float], ...] = ()
    max_tokens: int | None = None
    used: tuple[Usage | None, ...] = ()
    again: bool = False

    @classmethod
    def allow(
        cls,
        reason: str = "",
        *,
        edits: Iterable[Edit] = (),
        findings: Iterable[Finding] = (),
        score: float | None = None,
        threshold: float | None = None,
        facts: tuple[tuple[str, int | float], ...] = (),
    ) -> Verdict:
        """Let it pass, perhaps edited."""
        if not (reason or edits or findings or facts or score is not None):
            return ALLOWED
        return cls(Action.ALLOW, reason, tuple(edits), tuple(findings), score, threshold, facts=facts)

    @classmethod
    def flag(
        cls,
        reason: str,
        *,
        edits: Iterable[Edit] = (),
        findings: Iterable[Finding] = (),
        score: float | None = None,
        threshold: float | None = None,
        facts: tuple[tuple[str, int | float], ...] = (),
    ) -> Verdict:
        """Let it pass, and say on record that it looked wrong."""
        return cls(Action.FLAG, reason, tuple(edits), tuple(findings), score, threshold, facts=facts)

    @classmethod
    def ask(
        cls,
        reason: str,
        *,
        edits: Iterable[Edit] = (),
        findings: Iterable[Finding] = (),
        score: float | None = None,
        threshold: float | None = None,
        facts: tuple[tuple[str, int | float], ...] = (),
    ) -> Verdict:
        """Wait for a person."""
        return cls(Action.ASK, reason, tuple(edits), tuple(findings), score, threshold, facts=facts)

    @classmethod
    def block(
        cls,
        reason: str,
        *,
        edits: Iterable[Edit] = (),
        findings: Iterable[Finding] = (),
        score: float | None = None,
        threshold: float | None = None,
        remedy: Remedy = Remedy.REFUSE,
        note: str = "",
        facts: tuple[tuple[str, int | float], ...] = (),
    ) -> Verdict:
        """Do not let it happen."""
        return cls(Action.BLOCK, reason, tuple(edits), tuple(findings), score, threshold, remedy, note, facts)


ALLOWED = Verdict()
"""The one verdict of a gate that has nothing to say."""
HELD_BEFORE = Verdict(again=True)
"""The one of a gate that has nothing to say of a call that it knows."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a model call really used.

    Attributes:
        input_tokens: all that went in, cached and audio included.
        output_tokens: all that came out, reasoning and audio included.
        cached_tokens: of the input, what was read from the provider's cache.
        cache_write_tokens: of the input, what was written to it.
        audio_input_tokens: of the input, audio.
        reasoning_tokens: of the output, reasoning.
        audio_output_tokens: of the output, audio.
        estimated: whether the provider said nothing and these are our own figures.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a permitted effect ended, for gates that reserved something.

    `status` is ``done``, ``released`` (it never started) or ``unknown`` (it may have happened: the hold
    is charged, not dropped). `limit` is what the answer was limited to, where a gate asked for that. `resumed`: the
    effect was taken up again after a pause, at which it was settled; what has passed since is time of the same call.
    """

    status: str
    seconds: float = 0.0
    usage: Usage | None = None
    model: str = ""
    limit: int = 0
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One gate's part in a decision. `error` is a reason code when the gate did not answer properly."""

    gate: str
    verdict: Verdict
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The combined verdict on an event, with everything that led to it.

    Attributes:
        action: what is enforced; ``ALLOW`` in shadow mode, whatever the verdict says.
        verdict: what the gates said, combined.
        checks: every gate's own verdict, score and time.
        content: the content as it goes on (edits applied; untouched in shadow mode).
        would: the content that enforcement would have left; equals `content` in enforce mode.
        seam: where the decision is carried out.
        held: names of the gates that hold something until `settle`.
        approval: id of the answered question that permits it, if a person was asked.
        shown: characters that had been shown, as they were edited, when it was made: of a stream.
    """

    id: str
    event: Event
    action: Action
    verdict: Verdict
    checks: tuple[Check, ...]
    content: Content
    would: Content
    policy: str
    seconds: float
    seam: str = "guard"
    shadow: bool = False
    held: tuple[str, ...] = ()
    approval: str = ""
    shown: int = 0

    @property
    def stage(self) -> Stage:
        """The stage decided on."""
        return self.event.stage

    @property
    def gate(self) -> str:
        """The gate that speaks for the verdict; empty where none had anything to say."""
        strongest = _strongest(self.checks)
        return strongest.gate if strongest else ""

    @property
    def blocked(self) -> bool:
        """Whether it must not happen."""
        return self.action is Action.BLOCK

    @property
    def edited(self) -> bool:
        """Whether the content that goes on differs from the original."""
        return self.content is not self.event.content

    @property
    def asks(self) -> tuple[str, ...]:
        """The reason codes that a person must answer, sorted."""
        return tuple(sorted({f"{c.gate}:{c.verdict.reason}" for c in self.checks if c.verdict.action is Action.ASK}))


def combine(checks: Sequence[Check]) -> Verdict:
    """The verdict of a stage: strictest action, union of edits and findings.

    The reason, score and remedy are those of the strictest verdict; among equals the smallest gate name
    speaks, so that the result does not depend on order.
    """
    strongest = _strongest(checks)
    if strongest is None:
        return ALLOWED
    v = strongest.verdict
    edits = sorted({edit for check in checks for edit in check.verdict.edits})
    findings = sorted({finding for check in checks for finding in check.verdict.findings})
    limits = [c.verdict.max_tokens for c in checks if c.verdict.max_tokens is not None]
    return Verdict(
        v.action, v.reason, tuple(edits), tuple(findings), v.score, v.threshold, v.remedy, v.note, v.facts,
        min(limits, default=None),
    )  # fmt: skip


def _strongest(checks: Iterable[Check]) -> Check | None:
    """The strictest verdict; at the same action one with a reason, then the smallest gate name."""
    speaking = [check for check in checks if check.verdict is not ALLOWED and check.verdict is not HELD_BEFORE]
    if not speaking:
        return None
    return min(speaking, key=lambda c: (-c.verdict.action, not c.verdict.reason, c.gate))
