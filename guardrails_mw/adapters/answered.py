"""What a guard's own models have decided inside of something, so that whoever stands around them knows it again.

An answer is known by all that it says, not by a claim that it was decided: what another guard's model answered, what
a model of nobody's did, or what was changed since, is decided as if nobody had.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages import ToolCall as HostToolCall

from guardrails_mw.adapters.forms import plain
from guardrails_mw.adapters.host import digest
from guardrails_mw.generation import Seat

__all__ = ["ANSWERED", "Answered", "begun", "call_decided", "decided", "mark_of"]


@dataclass(frozen=True, slots=True)
class Answered:
    """Filled by the models of one guard while something runs.

    Attributes:
        seat: the guard's.
        calls: marks (`mark_of`) of the calls that they have decided.
        answers: digests of the answers that they gave.
        ids: under which they gave them.
    """

    seat: Seat
    calls: set[str] = field(default_factory=set)
    answers: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def gave(self, message: AIMessage) -> bool:
        """Whether a message says what one of the answers said, neither more nor less."""
        return _digest(message) in self.answers

    def began(self, message: AIMessage) -> bool:
        """Whether a message goes by the name of one of the answers, so that its call was counted."""
        return message.id in self.ids


ANSWERED: ContextVar[Answered | None] = ContextVar("guardrails_mw_answered", default=None)
"""Whoever wants to know that an answer came from a guard's own model."""


def decided(seat: Seat, message: BaseMessage) -> None:
    """Say that a model of this guard gave an answer."""
    if (answered := _listening(seat)) is not None:
        begun(seat, message)
        if digested := _digest(message):
            answered.answers.add(digested)


def begun(seat: Seat, message: BaseMessage) -> None:
    """Say that a model of this guard was called, and began an answer under the message's id."""
    if (answered := _listening(seat)) is not None and message.id:
        answered.ids.add(message.id)


def call_decided(seat: Seat, call: HostToolCall) -> None:
    """Say that a model of this guard decided a call that it proposes."""
    if (answered := _listening(seat)) is not None:
        answered.calls.add(mark_of(call))


def _listening(seat: Seat) -> Answered | None:
    """Whoever wants to know of this guard's answers, if anybody does."""
    answered = ANSWERED.get()
    return answered if answered is not None and answered.seat is seat else None


def mark_of(call: HostToolCall) -> str:
    """By what a proposed call is known again: its id, name and arguments."""
    return digest([call["id"], call["name"], call["args"]])


def _digest(message: BaseMessage) -> str:
    """By what an answer is known again; empty for one that is nested too deeply for that."""
    calls = message.tool_calls if isinstance(message, AIMessage) else []
    try:
        return digest([plain(message), [mark_of(call) for call in calls]])
    except (RecursionError, TypeError, ValueError):
        return ""
