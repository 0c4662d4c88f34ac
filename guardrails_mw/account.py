"""Accounts: whose budget a call counts against, and in which window of time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from math import floor
from typing import Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, Where

__all__ = ["KINDS", "Limits", "Per", "Then", "task_of", "window"]

Per = Literal["minute", "hour", "day", "month"]
Then = Literal["end", "block", "ask", "cheaper"]
KINDS = ("run", "thread", "task", "agent", "actor", "tenant", "global")
"""Whose a budget can be."""
# Names that stand in a scope as they are; to find that out is far quicker than to quote them
_PART = re.compile(r"[\w.~-]*", re.ASCII)
_PATH = re.compile(r"[\w.~/-]*", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """Caps of every account of one kind; None is no cap.

    Attributes:
        name: the budget's name; keeps it apart from others on the same store.
        of: whose it is. ``run``: one invocation with its resumes. ``thread``: a conversation. ``task``: a step of a
            run's outermost graph, with all that works below it. ``agent``: an agent by name. ``actor`` and ``tenant``:
            who asks; all without one share an account. ``global``: everybody.
        per: the window after which an account is full again; never if left out.
        zone: IANA time zone of the window, such as ``Europe/Berlin``.
        usd_micro: millionths of a US dollar.
        tokens: input and output together.
        tools: calls per tool.
        milliseconds: time spent in model and tool calls, not the time between them.
        wall: seconds from an account's first call, waiting included.
        risk: points that tools and verdicts cost.
        warn_at: fraction of a cap from which an admitted call carries a warning, such as 0.8.
        then: what exhaustion means: the end of the run, a block of this call alone, a question to a person, or a
            cheaper model.

    Raises:
        PolicyError: a cap that is negative, a fraction outside 0 to 1, or an unknown time zone.
    """

    name: str
    of: str = ""
    per: Per | None = None
    zone: str = "UTC"
    usd_micro: int | None = None
    tokens: int | None = None
    model_calls: int | None = None
    tool_calls: int | None = None
    tools: Mapping[str, int] = field(default_factory=dict)
    milliseconds: int | None = None
    wall: float | None = None
    risk: int | None = None
    warn_at: float | None = None
    then: Then = "end"
    caps: Mapping[str, int] = field(init=False, default_factory=dict)
    """The caps that are set, by unit as scopes and reason codes name them."""

    def __post_init__(self) -> None:
        caps = {
            "usd": self.usd_micro,
            "tokens": self.tokens,
            "model_calls": self.model_calls,
            "tool_calls": self.tool_calls,
            **{f"tool_calls.{quote(tool, safe='')}": cap for tool, cap in self.tools.items()},
            "seconds": self.milliseconds,
            "risk": self.risk,
        }
        object.__setattr__(self, "caps", {unit: cap for unit, cap in caps.items() if cap is not None})
        object.__setattr__(self, "of", self.of or self.name)
        if any(cap < 0 for cap in self.caps.values()):
            raise PolicyError("a cap is 0 or more")
        if self.warn_at is not None and not 0 < self.warn_at <= 1:
            raise PolicyError("warn_at is a fraction above 0 and up to 1, such as 0.8")
        if self.of not in KINDS:
            raise PolicyError(f"whose budget is it? allowed: {', '.join(KINDS)}")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise PolicyError("unknown time zone; write it as in Europe/Berlin", field="zone") from None

    def account(self, event: Event, now: float) -> str:
        """Which account an event counts against: who, and the window that `now` (epoch seconds) is in.

        >>> from guardrails_mw.event import Actor, Content, Stage
        >>> event = Event(Stage.INPUT, Content(""), actor=Actor("u:1", tenant="acme"))
        >>> Limits("daily", of="actor", per="day").account(event, 0.0)
        'acme/u%3A1:1970-01-01'
        """
        who = _who(self.of, event)
        return f"{who}:{window(self.per, self.zone, now)[0]}" if self.per else who

    def resets(self, now: float) -> float:
        """The epoch second at which the window of `now` ends; 0 where there is none."""
        return window(self.per, self.zone, now)[1] if self.per else 0.0


def _who(of: str, event: Event) -> str:
    where, actor = event.where, event.actor
    if of == "actor":
        return f"{_part(actor.tenant)}/{_part(actor.id)}"
    if of == "tenant":
        return _part(actor.tenant)
    if of == "agent":
        return _part(where.agent)
    if of == "global":
        return "all"
    run = where.thread if of == "thread" and where.thread else where.run or "direct"
    run = run if _PATH.fullmatch(run) else quote(run, safe="/")
    return f"{run}/{_part(task_of(where))}" if of == "task" else run


def _part(name: str) -> str:
    return name if _PART.fullmatch(name) else quote(name, safe="")


def task_of(where: Where) -> str:
    """The step of the run's outermost graph that something happens in, with all that works below it.

    >>> task_of(Where(task="research:1f2e|tools:9a8b")), task_of(Where(task="research:1f2e"))
    ('research:1f2e', 'research:1f2e')
    """
    return (where.caller or where.task).partition("|")[0]


def window(per: Per, zone: str, now: float) -> tuple[str, float]:
    """The name of the window that an epoch second is in, and the second at which it ends.

    Hours and minutes of a day that has 25 hours are told apart by their offset from UTC.

    >>> window("month", "Europe/Berlin", 1_793_487_600.0)  # midnight of the first of November in Berlin
    ('2026-11', 1796079600.0)
    >>> window("hour", "Asia/Kolkata", 0.0)
    ('1970-01-01T05+0530', 1800.0)
    """
    return _window(per, zone, floor(now / 60))


@lru_cache(maxsize=64)  # windows begin on whole minutes, and calls come many to a minute
def _window(per: Per, zone: str, minute: int) -> tuple[str, float]:
    begins = minute * 60.0
    local = datetime.fromtimestamp(begins, ZoneInfo(zone))
    if per == "minute":
        return local.strftime("%Y-%m-%dT%H:%M%z"), begins + 60.0
    if per == "hour":
        return local.strftime("%Y-%m-%dT%H%z"), begins + (60 - local.minute) * 60.0
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if per == "day":
        return local.strftime("%Y-%m-%d"), (midnight + timedelta(days=1)).timestamp()
    following = midnight.replace(day=1) + timedelta(days=32)
    return local.strftime("%Y-%m"), following.replace(day=1).timestamp()
