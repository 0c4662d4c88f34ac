"""What LangChain has begun and not yet ended: its runs, as callbacks hear of them, and their top-level runs.

LangChain may never say that a run has ended, so everything here forgets its oldest when it has too many.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from guardrails_mw.adapters.host import Calling, Here
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import ToolCall
from guardrails_mw.latch import Block
from guardrails_mw.verdict import Decision

__all__ = ["Open", "Top", "Underway"]

K = TypeVar("K")
V = TypeVar("V")

_MAX = 10_000


@dataclass(slots=True)
class Top:
    """A top-level run: what is known of it when its parts are decided.

    Attributes:
        thread: the thread that its caller named.
        resuming: whether it takes up again what was left off.
        here: where it stands; what its parts begin belongs to it.
    """

    root: UUID
    thread: str = ""
    resuming: bool | None = None
    here: Here | None = None


@dataclass(slots=True)
class Open:
    """A host run that is under way.

    Attributes:
        structured: whether the model was asked for an answer in a schema, which it gives as a call.
        turn: calls of this run that had the same id before: models number anew, and some number none.
        name: tells a model call from all others: callers may give several runs one id.
    """

    top: Top
    enforcer: Enforcer | None = None
    decision: Decision | None = None
    call: ToolCall | None = None
    here: Here | None = None
    guarded: bool = False
    streaming: bool = False
    structured: bool = False
    calling: Calling | None = None
    turn: int = 0
    began: float = field(default_factory=time.perf_counter)
    name: str = ""

    @property
    def root(self) -> UUID:
        """The id of the top-level run."""
        return self.top.root

    @property
    def asked(self) -> int:
        """Tokens that went into the model, as estimated before it was called."""
        return getattr(self.decision.event.call, "input_tokens", 0) if self.decision else 0


class Underway:
    """The runs of one handler, from any thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[UUID, Open] = OrderedDict()
        self._ended: OrderedDict[UUID, Block] = OrderedDict()
        self._turns: OrderedDict[tuple[UUID, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def begun(self, run_id: UUID, parent: UUID | None) -> Open:
        """A run begins, in another one or at the top."""
        with self._lock:
            above = self._open.get(parent) if parent else None
            entry = Open(above.top if above else Top(parent or run_id))
            _keep(self._open, run_id, entry)
        return entry

    def get(self, run_id: UUID) -> Open | None:
        """A run that has begun and not ended."""
        with self._lock:
            return self._open.get(run_id)

    def over(self, run_id: UUID) -> Open | None:
        """A run has ended."""
        with self._lock:
            entry = self._open.pop(run_id, None)
        if entry is not None and entry.calling is not None:
            entry.calling.over(str(run_id))
        return entry

    def turn(self, root: UUID, key: str) -> int:
        """How often a top-level run has seen a call's key. A resume is another run and begins at 0 again."""
        with self._lock:
            turn = self._turns.pop((root, key), 0)
            _keep(self._turns, (root, key), turn + 1)
        return turn

    def end(self, root: UUID, block: Block) -> None:
        """A block was raised in a top-level run, which ends it whatever goes on in spite of that."""
        with self._lock:
            _keep(self._ended, root, block)

    def ended(self, root: UUID) -> Block | None:
        """The block that has ended a top-level run, if one has."""
        with self._lock:
            return self._ended.get(root)

    def forget(self, root: UUID) -> Block | None:
        """A top-level run is over; the block that had ended it, if one had."""
        with self._lock:
            return self._ended.pop(root, None)


def _keep(where: OrderedDict[K, V], key: K, value: V) -> None:
    where[key] = value
    while len(where) > _MAX:
        where.popitem(last=False)
