"""The conversations of the demo as typed objects: what is said, what the model answers, what has to come of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

__all__ = ["Conversation", "Expect", "Reply", "load"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reply(_Record):
    """One answer of the scripted model: text, a tool call, or both."""

    say: str = ""
    """``{last}`` stands for the message that the model read last: it repeats whatever reached it."""
    call: str = ""
    args: dict[str, JsonValue] = {}
    times: int = 1
    """Give this answer so many times; ``{n}`` in arguments counts."""


class Expect(_Record):
    """What has to come of a conversation."""

    end: Literal["answered", "refused"]
    """Whether the last answer is the model's own or a refusal."""
    reasons: list[str] = []
    """Every ``gate:reason`` that spoke up, no more and no less."""
    ran: list[str] = []
    """The tools that ran, in order."""
    not_ran: list[str] = []
    """Tools that must never run, whatever the model is."""
    in_output: list[str] = []
    """Texts that the user has to read."""
    not_in_output: list[str] = []
    """Texts that must never reach the user."""
    not_seen: list[str] = []
    """Texts that must never reach the model."""


class Conversation(_Record):
    """One line of the file."""

    id: str
    title: str
    app: Literal["support", "form"] = "support"
    """The agent with tools, or the model that fills in a form."""
    actor: dict[str, JsonValue] = {}
    turns: list[str | list[dict[str, JsonValue]]]
    script: list[Reply] = []
    people: list[Literal["approve", "approve-elsewhere", "reject", "nobody"]] = []
    """What people do, question by question; ``elsewhere`` is another process, ``nobody`` lets the time run out."""
    expect: Expect

    @property
    def replies(self) -> list[Reply]:
        """The script with repeated answers written out."""
        return [_numbered(reply, n) for reply in self.script for n in range(1, reply.times + 1)]


def _numbered(reply: Reply, n: int) -> Reply:
    args = {key: value.replace("{n}", str(n)) if isinstance(value, str) else value for key, value in reply.args.items()}
    return reply.model_copy(update={"args": args, "times": 1})


def load(path: Path, values: Mapping[str, str]) -> list[Conversation]:
    """Read a file with one conversation per line; `values` fill in ``{name}``.

    Raises:
        ValueError: a line is not a conversation; names file and line.
        OSError: the file cannot be read.
    """
    found: list[Conversation] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        for name, value in values.items():
            line = line.replace(f"{{{name}}}", value)  # noqa: PLW2901 - the same line, filled in
        try:
            found.append(Conversation.model_validate_json(line))
        except ValidationError as error:
            problem = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3])
            raise ValueError(f"{path}:{number}: {problem}") from None
    return found
