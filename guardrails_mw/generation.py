"""A guard's policy can change while it works: generations, one at a time, and what becomes of an old one.

A generation is a policy with everything that was built for it. Whoever begins something takes the enforcer
of the generation that is in its seat and keeps it to the end, so that nothing sees half of one policy and
half of another. That hold is the whole book-keeping: when nobody has a replaced engine any more, its
workers and processes are stopped.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

from guardrails_mw.approvals import Approval
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.engine import Engine
from guardrails_mw.errors import GuardrailsError, PolicyError
from guardrails_mw.gate import Gate
from guardrails_mw.hearing import Hearing
from guardrails_mw.latch import Latch
from guardrails_mw.permits import Permits
from guardrails_mw.policy import Policy
from guardrails_mw.recorder import LedgerRecorder
from guardrails_mw.redaction import Redactor
from guardrails_mw.vault import Vault
from guardrails_mw.verdict import Decision

__all__ = ["Generation", "Held", "Seat"]

_SETTLING = 256
"""Replaced engines whose decisions can still be settled by hand; what older ones held stays charged in full."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A policy at work.

    Attributes:
        policy: what is enforced.
        gates: the gates that it names, built.
        engine: asks them.
        enforcer: what adapters decide by.
        recorder: keeps what was decided.
        redactor: removes what must not leave.
        vault: keeps hidden values, if the policy has any.
        settling: an engine of nothing but the gates that hold, if there are any: decisions may outlive this one.
    """

    policy: Policy
    gates: Mapping[str, Gate]
    engine: Engine
    enforcer: Enforcer
    recorder: LedgerRecorder
    redactor: Redactor
    vault: Vault | None
    settling: Engine | None

    def warm(self) -> None:
        """Load what the first checks would load, and start the processes of isolated gates.

        Raises:
            PolicyError: a gate cannot be made ready.
        """
        for name, gate in self.gates.items():
            with _ready(f"gates.{name}"):
                gate.warm()
        with _ready("gates"):
            self.engine.start()


@contextmanager
def _ready(field: str) -> Iterator[None]:
    """Say in the words of the policy, and without its text, what a gate raises that cannot get ready."""
    try:
        yield
    except GuardrailsError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the gate is not ready
        raise PolicyError(f"the gate cannot be made ready: {type(error).__name__}", field=field) from None


@dataclass(slots=True)
class Held:
    """An enforcer that is held, until it is not: what was begun inside may go on after that, with the context."""

    enforcer: Enforcer | None

    @contextmanager
    def standing(self) -> Iterator[None]:
        """What begins inside is decided by this enforcer, until it is no longer held."""
        token = _HELD.set(self)
        try:
            yield
        finally:
            _HELD.reset(token)

    def over(self) -> None:
        """What is still to begin takes the enforcer that decides then."""
        self.enforcer = None


_HELD: ContextVar[Held | None] = ContextVar("guardrails_mw_held", default=None)


class Seat:
    """Where a guard's generations sit, one after another; what adapters hold, and know a guard by.

    Attributes:
        generation: the one that is in office. Assigning it is the whole of a change.
        tool_seam: names of the tools that tool nodes of this guard run, where their calls are decided.
        latch: the runs that a raised block has ended.
        permits: calls that were decided where they were proposed.
        hearing: tells apart the calls that its handlers hear of.
    """

    generation: Generation

    def __init__(self) -> None:
        self.tool_seam: set[str] = set()
        self.latch = Latch()
        self.permits = Permits()
        self.hearing = Hearing()
        self._settling: dict[str, Engine] = {}
        self._retired: weakref.WeakSet[Engine] = weakref.WeakSet()

    @property
    def enforcer(self) -> Enforcer:
        """Who decides what begins now."""
        held = _HELD.get()
        enforcer = held.enforcer if held is not None else None
        return enforcer if enforcer is not None and enforcer.seat is self else self.generation.enforcer

    @contextmanager
    def holding(self, enforcer: Enforcer | None = None) -> Iterator[Enforcer]:
        """Everything that begins inside is decided by one enforcer: this one, or the one that decides now."""
        enforcer = enforcer or self.enforcer
        held = Held(enforcer)
        try:
            with held.standing():
                yield enforcer
        finally:
            held.over()

    def approval(self, approval: Approval) -> None:
        """Keep a change of an approval, by the policy in office. Raises `StoreError`."""
        self.generation.recorder.approval(approval)

    def settling(self, decision: Decision) -> Engine:
        """Who settles a decision: the engine that made it, or what is left of that."""
        return self._settling.get(decision.id.partition("-")[0], self.generation.engine)

    def pass_on(self, new: Generation) -> None:
        """Put a new generation in office. The old one is stopped when nobody works by it any more."""
        old = self.generation
        if old.settling is not None:
            self._settling[old.engine.prefix] = old.settling
        while len(self._settling) > _SETTLING:
            self._settling.pop(next(iter(self._settling))).close()
        self._retired.add(old.engine)
        _JANITOR.after(old.engine, old.engine.closers(holding=False))
        self.generation = new

    def close(self) -> None:
        """Stop everything, also what replaced generations are still at."""
        for engine in (self.generation.engine, *self._retired, *self._settling.values()):
            engine.close()


_Jobs = queue.SimpleQueue[list[Callable[[], None]]]


class _Janitor:
    """One thread that stops what an engine leaves behind, wherever and whenever it was let go.

    The last hold may end in an event loop, or in the middle of anything when cycles are collected: there,
    nothing is done but to put a job into a queue, which is safe at any point.
    """

    def __init__(self) -> None:
        self._jobs: _Jobs = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def after(self, engine: Engine, closers: list[Callable[[], None]]) -> None:
        """Stop these when the engine is gone."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # a forked process has no thread
                self._jobs = queue.SimpleQueue()
                self._thread = threading.Thread(
                    target=_work, args=(self._jobs,), name="guardrails-mw-janitor", daemon=True
                )
                self._thread.start()
        weakref.finalize(engine, self._jobs.put, closers).atexit = False


def _work(jobs: _Jobs) -> None:
    while True:
        for close in jobs.get():
            with suppress(Exception):  # a gate that cannot be closed must not keep the others
                close()


_JANITOR = _Janitor()
