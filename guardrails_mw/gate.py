"""What a gate is, what it declares about itself, and how gates are found.

A gate is one class: a name, the stages it can serve, what it costs, and `check(event) -> Verdict`.
Gates of this package and gates of other packages are found the same way: through the entry point group
``guardrails_mw.gates``.
"""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.event import Event, ModelCall, Stage
from guardrails_mw.verdict import Decision, Outcome, Verdict

__all__ = [
    "ALL_STAGES",
    "DEADLINE",
    "EFFECTS",
    "Cost",
    "Gate",
    "GateConfig",
    "GateTypes",
    "HoldingGate",
    "Site",
    "offered",
    "windows",
]

ALL_STAGES = frozenset(Stage)
EFFECTS = frozenset({"block", "edit", "ask"})
WINDOW = 8192
"""Characters that a linear gate looks at in one piece; longer texts are looked at in windows."""

DEADLINE: ContextVar[float] = ContextVar("guardrails_mw_deadline", default=float("inf"))
"""`time.perf_counter()` at which the running gate's time is over. Set by the engine."""


class Cost(StrEnum):
    """How a gate is run.

    ``linear``: inline, time grows linearly with the text. ``blocking``: in a worker thread, abandoned
    on overrun. ``isolated``: in a process of its own, killed on overrun; the only class that also
    bounds code which holds the interpreter lock.
    """

    LINEAR = "linear"
    BLOCKING = "blocking"
    ISOLATED = "isolated"


class GateConfig(BaseModel):
    """The keys that every gate in a policy understands. Gates add their own in a subclass."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    type: str
    """Which gate this is."""
    deadline_ms: float | None = Field(default=None, gt=0)
    """Time the gate may take for one check; the policy's own `deadline_ms` if left out."""
    on_error: Literal["block", "flag", "queue", "unsafe_allow"] | None = None
    """What it means when the gate fails or overruns; the policy's own `on_error` if left out."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a gate is built: what it may need besides its own keys.

    Attributes:
        name: the gate's name in the policy.
        base: folder that relative paths start from.
        secret: key for keyed hashes, kept in the store.
    """

    name: str
    base: Path
    secret: bytes = b""


class Gate(ABC):
    """Decides on events.

    Class attributes declare what the gate is; see `Cost` for what `cost` promises. `look_back` and `look_ahead`
    bound, in characters, the context that a finding needs on either side, `max_span` the longest thing it can
    find; None means "the whole text", so a stream is held until its end. What a gate with bounds says of a span
    must depend on nothing else: a stream shows it windows of the text, and adds up what it says of them.

    >>> class NoShouting(Gate):
    ...     stages = frozenset({Stage.INPUT})
    ...     def check(self, event):
    ...         return Verdict.block("shouting") if event.content.text.isupper() else Verdict.allow()
    """

    stages: ClassVar[frozenset[Stage]] = ALL_STAGES
    config_type: ClassVar[type[GateConfig]] = GateConfig
    cost: Cost = Cost.LINEAR
    look_back: int | None = None
    look_ahead: int = 0
    max_span: int | None = None
    classifies: bool = False
    """Whether it judges a text as a whole, so that its verdict on the beginning of one means something too."""

    max_reasks: int = 5
    """How often a seam may ask the model again when this gate sends an answer back."""

    joins: ClassVar[bool] = True
    """Whether it is asked about the text blocks of a message once more as one text, as readers see them."""

    remembers: ClassVar[bool] = False
    """Whether a check changes what later checks say; a scan of texts that never happened leaves such a gate out."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> Gate:  # noqa: ARG003 - subclasses read it
        """Make the gate from its checked keys. Raises `PolicyError` for what only it can see is wrong."""
        return cls(site.name)

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - for gates that know better
        """What its verdicts may do at a stage besides flagging; `explain` says where a seam cannot carry that out."""
        return EFFECTS

    @property
    def bounded(self) -> bool:
        """Whether what it finds depends on a piece of a text only, so that it can look at a stream in windows."""
        return self.look_back is not None and self.max_span is not None

    def settled(self, text: str, limit: int) -> int:
        """How much of a text that goes on is settled, at most `limit` characters.

        What a bounded gate finds before that point stays as it is, whatever follows. A gate that knows more about
        what it looks for than its bounds says so by overriding this, together with `context`.
        """
        return max(0, min(limit, len(text) - (self.max_span or 0) - self.look_ahead))

    def context(self, text: str, position: int) -> int:  # noqa: ARG002 - gates that know better look at the text
        """Where to begin reading, so that what is found from `position` on is what the whole text would give."""
        return max(0, position - (self.look_back or 0) - (self.max_span or 0))

    @abstractmethod
    def check(self, event: Event) -> Verdict | Awaitable[Verdict]:
        """Decide. May be `async`. Raising means "could not decide", never "block"."""

    def calls(self, event: Event) -> Sequence[ModelCall]:  # noqa: ARG002 - most gates call no model
        """The calls of a model that checking this event may make and that somebody charges for, for budgets.

        The first calls of these are what `Verdict.used` tells of; without it all are counted as estimated here.
        """
        return ()

    def warm(self) -> None:  # noqa: B027 - most gates have nothing to load
        """Load what the first check would load, so that its time is not charged to a request."""

    def close(self) -> None:  # noqa: B027 - most gates hold nothing
        """Free what the gate holds."""


class HoldingGate(Gate):
    """A gate that reserves something when it allows, until the outcome is known."""

    remembers: ClassVar[bool] = True
    observes: bool = False

    @abstractmethod
    def settle(self, event: Event, outcome: Outcome) -> None:
        """Charge or free what `check` reserved for this event. Called exactly once per permitted event."""

    def grant(self, event: Event, code: str, by: str) -> None:
        """A person has approved what `check` asked for.

        Args:
            event: the event that was asked about.
            code: the reason code of that question.
            by: id of the approval; told again, it grants nothing more.
        """

    def observe(self, decision: Decision) -> None:
        """Told of every decision that did more than allow, once it is on record, where `observes` is set."""


class GateTypes:
    """The gate types that are installed, by name; a type is imported when it is first asked for.

    >>> "injection" in GateTypes.installed().names
    True
    """

    group = "guardrails_mw.gates"

    def __init__(self, points: Mapping[str, EntryPoint | type[Gate]]) -> None:
        self._points = dict(points)

    @classmethod
    def installed(cls) -> GateTypes:
        """Every gate type that an installed package offers."""
        return cls({point.name: point for point in offered(cls.group)})

    @property
    def names(self) -> list[str]:
        """All known type names, sorted."""
        return sorted(self._points)

    def get(self, name: str) -> type[Gate]:
        """The class of a type. Raises `KeyError` for an unknown name, `PolicyError` for one that cannot be loaded."""
        found = self._points[name]
        if isinstance(found, EntryPoint):
            try:
                found = self._points[name] = found.load()
            except ImportError as error:
                raise PolicyError(f"the gate type {name!r} needs {error.name}, which is not installed") from None
        if not (isinstance(found, type) and issubclass(found, Gate)):
            raise PolicyError(f"the installed gate type {name!r} is not a Gate")
        return found


def offered(group: str) -> tuple[EntryPoint, ...]:
    """What installed packages offer in an entry point group.

    The metadata of every package is read once, and again after one was installed or removed, which changes a folder.

    >>> "injection" in [point.name for point in offered("guardrails_mw.gates")]
    True
    """
    return _offered(group, tuple((folder, _changed(folder)) for folder in sys.path))


@lru_cache(maxsize=8)
def _offered(group: str, searched: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001 - the key
    return tuple(entry_points(group=group))


def _changed(folder: str) -> int:
    """When a folder of packages was changed last, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def windows(text: str, overlap: int, size: int = WINDOW) -> Iterator[tuple[int, str]]:
    """Pieces of a long text that overlap, each with its offset, so that no match up to `overlap` is cut.

    Raises `GateError` (``deadline``) between two windows when the gate's time is over.

    >>> list(windows("abcdef", overlap=1, size=3))
    [(0, 'abc'), (2, 'cde'), (4, 'ef')]
    """
    if len(text) <= size:
        yield 0, text
        return
    deadline = DEADLINE.get()
    start = 0
    while True:
        yield start, text[start : start + size]
        if start + size >= len(text):
            return
        if time.perf_counter() > deadline:
            raise GateError("deadline")
        start += size - overlap
