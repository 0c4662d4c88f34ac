"""Assertions on what a policy decides, and a recording of what a guard decided."""

from __future__ import annotations

from pathlib import Path

from guardrails_mw.event import ANONYMOUS, Actor, Content, Event, Origin, Stage, ToolCall
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.stores import open_store
from guardrails_mw.verdict import Action, Decision

__all__ = ["Recording", "assert_allows", "assert_blocks", "assert_edits"]

_ORIGINS = {Stage.INPUT: Origin.USER, Stage.TOOL_RESULT: Origin.TOOL}


class Recording:
    r"""Keeps every decision of a guard, in order.

    >>> from guardrails_mw.document import Document
    >>> source = "version: 1\ngates: {signs: {type: injection}}\nstages: {input: [signs]}"
    >>> guard = Guard(Policy.load(Document(source)))
    >>> seen = Recording(guard)
    >>> _ = guard.check("hello")
    >>> [decision.action.word for decision in seen.decisions]
    ['allow']
    """

    def __init__(self, guard: Guard) -> None:
        self.decisions: list[Decision] = []
        guard.engine.observers.append(self.decisions.append)

    @property
    def reasons(self) -> list[str]:
        """Gate and reason of every check that had something to say, as ``gate:reason``."""
        return [
            f"{check.gate}:{check.verdict.reason}"
            for decision in self.decisions
            for check in decision.checks
            if check.verdict.action > Action.ALLOW or check.verdict.edits
        ]


def assert_blocks(
    guard: Guard | Policy | str | Path,
    what: str | ToolCall,
    *,
    stage: Stage | str = Stage.INPUT,
    reason: str | None = None,
    actor: Actor = ANONYMOUS,
) -> Decision:
    """Fail unless a text or a tool call is blocked, by this reason if one is given.

    Args:
        guard: a guard, a policy, or the path of a policy file (decided with a store in memory).
        what: a text, or a tool call (then the stage is ``tool_call``).
        stage: where the text stands.
        reason: the expected reason code.
        actor: who asks.
    """
    decision = _decided(guard, what, Stage(stage), actor)
    assert decision.verdict.action is Action.BLOCK, f"not blocked: {_said(decision)}"
    assert reason in (None, decision.verdict.reason), f"blocked, but: {_said(decision)}"
    return decision


def assert_allows(
    guard: Guard | Policy | str | Path,
    what: str | ToolCall,
    *,
    stage: Stage | str = Stage.INPUT,
    actor: Actor = ANONYMOUS,
) -> Decision:
    """Fail if a text or a tool call is blocked or asked about; flags and edits are allowed. See `assert_blocks`."""
    decision = _decided(guard, what, Stage(stage), actor)
    assert decision.verdict.action <= Action.FLAG, f"not allowed: {_said(decision)}"
    return decision


def assert_edits(
    guard: Guard | Policy | str | Path,
    what: str | ToolCall,
    expected: object = None,
    *,
    stage: Stage | str = Stage.INPUT,
    actor: Actor = ANONYMOUS,
) -> Decision:
    r"""Fail unless a text or a tool call passes, edited; into `expected`, if that is given. See `assert_blocks`.

    >>> from guardrails_mw.document import Document
    >>> policy = Policy.load(Document("version: 1\ngates: {keys: {type: secrets}}\nstages: {input: [keys]}"))
    >>> assert_edits(policy, "AKIAQX3BEWL7ZD5TMN2R", "[SECRET:aws_access_key]").edited
    True
    """
    decision = _decided(guard, what, Stage(stage), actor)
    assert decision.verdict.action <= Action.FLAG, f"not edited: {_said(decision)}"
    assert decision.would is not decision.event.content, f"not edited: {_said(decision)}"
    assert expected in (None, decision.would.value), "edited, but into something else"
    return decision


def _decided(given: Guard | Policy | str | Path, what: str | ToolCall, stage: Stage, actor: Actor) -> Decision:
    if isinstance(what, ToolCall):
        event = Event(Stage.TOOL_CALL, Content(what.args), Origin.MODEL, actor, call=what)
    else:
        event = Event(stage, Content(what), _ORIGINS.get(stage, Origin.MODEL), actor)
    if isinstance(given, Guard):
        return given.decide(event)
    policy = given if isinstance(given, Policy) else Policy.read(given)
    with Guard(policy, store=open_store("memory:", policy.base)) as guard:
        return guard.decide(event)


def _said(decision: Decision) -> str:
    return f"{decision.verdict.action.word} {decision.gate} {decision.verdict.reason}".rstrip()
