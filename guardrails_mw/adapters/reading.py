"""A conversation as it was decided before a call of a model, and the call that a guard is looking after meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from langchain_core.messages import BaseMessage, SystemMessage

from guardrails_mw.adapters.host import Here
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.verdict import Decision

__all__ = ["ENTERED", "Entered", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """A conversation as it was decided.

    Attributes:
        messages: as a model and tracers may see them, with placeholders for blocked ones.
        decisions: by index, on those that somebody outside wrote.
        texts: what the messages say, to notice a change.
    """

    messages: list[BaseMessage]
    decisions: dict[int, Decision]
    texts: list[object] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", [message.content for message in self.messages])

    def again(self, messages: Sequence[BaseMessage]) -> Reading | None:
        """The same for messages that are all of these and say what they said, but for system messages; else None.

        Content blocks can be changed in place, so messages made of them are read anew.
        """
        places = {id(message): index for index, message in enumerate(self.messages)}
        decisions: dict[int, Decision] = {}
        for index, message in enumerate(messages):
            place = places.get(id(message))
            if place is None:
                if isinstance(message, SystemMessage):
                    continue
                return None
            if type(message.content) is not str or message.content is not self.texts[place]:
                return None
            if place in self.decisions:
                decisions[index] = self.decisions[place]
        return Reading(list(messages), decisions)


@dataclass(frozen=True, slots=True)
class Entered:
    """A call that a guard has begun to look after: where it stands, and what was read for it."""

    enforcer: Enforcer
    here: Here
    reading: Reading

    @contextmanager
    def standing(self) -> Iterator[None]:
        """While the call is made."""
        token = ENTERED.set(self)
        try:
            yield
        finally:
            ENTERED.reset(token)


ENTERED: ContextVar[Entered | None] = ContextVar("guardrails_mw_entered", default=None)
"""The innermost call of a model that some guard looks after."""
