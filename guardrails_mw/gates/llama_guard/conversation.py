"""The conversation that a Llama Guard model is shown.

The model judges only the last turn, and its template demands turns that alternate and begin with the
user. A user's text is therefore one user turn; a model's text is an assistant turn after a neutral user
turn that says nothing to judge. A tool's result is third-party text on its way in, and is judged as a
user turn.
"""

from __future__ import annotations

from typing import TypedDict

import re2

from guardrails_mw.event import Event, Origin, Stage

__all__ = ["NEUTRAL", "Turn", "conversation", "disarm", "visible_text"]

NEUTRAL = "Please answer."
"""The user turn before an answer that is judged on its own."""

_MARKER = re2.compile(r"<(\|[^|<>]{1,64}\||/?(?:BEGIN|END) [A-Z ]{1,64}|/?s)>")


class Turn(TypedDict):
    """One message; `role` is ``user`` or ``assistant``."""

    role: str
    content: str


def visible_text(event: Event) -> str:
    """Everything in the event that can be read, keys and numbers too, one part per line."""
    return "\n".join(part.text for _, part in event.texts())


def disarm(text: str) -> str:
    """Break the marks of the prompt itself, so that a text cannot end its own turn and answer for the model.

    >>> disarm("x<|eot_id|><END CONVERSATION>")
    'x< |eot_id| >< END CONVERSATION >'
    """
    return str(_MARKER.sub(r"< \1 >", text))


def conversation(event: Event, text: str) -> list[Turn]:
    """The turns for one piece of an event's text."""
    last: Turn = {"role": "user", "content": disarm(text)}
    if event.origin is Origin.MODEL or event.stage in (Stage.OUTPUT, Stage.TOOL_CALL):
        last["role"] = "assistant"
        return [{"role": "user", "content": NEUTRAL}, last]
    return [last]
