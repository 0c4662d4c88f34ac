"""Faults: what can go wrong in a gate, done to the real gates of a real guard.

`failing` replaces what one gate of a guard answers. Everything else stays: the engine asks it where it asked it
before, inline, in a worker, in its own process or in a loop, on the same deadline. `assert_fails_safe` does it to
every gate of a policy and compares what happens with what the policy says.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from guardrails_mw.asking import Step
from guardrails_mw.event import Content, Event, ModelCall, Origin, Stage, ToolCall
from guardrails_mw.gate import Cost, Gate
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.stores import open_store
from guardrails_mw.verdict import Action, Decision

__all__ = ["Failure", "Fault", "assert_fails_safe", "expected_failure", "failing", "probe"]

_ACTIONS = {"block": Action.BLOCK, "flag": Action.FLAG, "queue": Action.BLOCK, "unsafe_allow": Action.ALLOW}
_ORIGINS = {Stage.INPUT: Origin.USER, Stage.TOOL_RESULT: Origin.TOOL}


class Fault(StrEnum):
    """Something that a gate can do instead of answering.

    >>> Fault.OVERRUNS.code, Fault.DIES.happens_to(Cost.LINEAR)
    ('deadline', False)
    """

    RAISES = "raises"
    """Raises an `Exception`."""
    NOT_IMPLEMENTED = "not_implemented"
    """Raises `NotImplementedError`, which LangChain's callbacks pass over."""
    BASE_EXCEPTION = "base_exception"
    """Raises something that no ``except Exception`` catches."""
    MEMORY = "memory"
    """Raises `MemoryError`."""
    RECURSION = "recursion"
    """Recurses without end."""
    OVERRUNS = "overruns"
    """Sleeps past its deadline."""
    HOLDS_LOCK = "holds_lock"
    """Runs past its deadline in C code that lets no other thread run; in a process of its own, without end."""
    NONE = "none"
    """Returns None."""
    GARBAGE = "garbage"
    """Returns something that looks like a verdict and is none."""
    DIES = "dies"
    """Ends its process; only for gates that have one of their own."""

    @property
    def code(self) -> str:
        """The reason code that the engine gives it."""
        return _CODES.get(self, "gate_error")

    def happens_to(self, cost: Cost) -> bool:
        """Whether a gate that is run so can have it."""
        return self is not Fault.DIES or cost is Cost.ISOLATED


_CODES = {
    Fault.OVERRUNS: "deadline",
    Fault.HOLDS_LOCK: "deadline",
    Fault.NONE: "not_a_verdict",
    Fault.GARBAGE: "not_a_verdict",
    Fault.DIES: "worker_died",
}


class _Stray(BaseException):
    """What no `except Exception` catches."""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The fault in a process of its own; can be pickled."""

    fault: Fault
    seconds: float

    def load(self) -> Callable[[object], object]:
        return lambda _event: _commit(self.fault, self.seconds, alone=True)


@dataclass(frozen=True, slots=True)
class Failure:
    """What the policy says that a gate's fault means: `action`, and `reason` as on record."""

    action: Action
    reason: str


def expected_failure(policy: Policy, gate: str, fault: Fault) -> Failure:
    r"""What a fault of a gate means by the policy; `queue` has waited in vain by then.

    >>> from guardrails_mw.document import Document
    >>> source = "version: 1\non_error: flag\ngates: {signs: {type: injection}}\nstages: {input: [signs]}"
    >>> failure = expected_failure(Policy.load(Document(source)), "signs", Fault.NONE)
    >>> failure.action.word, failure.reason
    ('flag', 'error.not_a_verdict')
    """
    own = policy.gates.get(gate)
    return Failure(_ACTIONS[(own.on_error if own else None) or policy.on_error], f"error.{fault.code}")


@contextmanager
def failing(guard: Guard, gate: str, fault: Fault, *, stages: Collection[Stage] = tuple(Stage)) -> Iterator[None]:
    """A guard of which one gate has a fault, while the block runs.

    Args:
        guard: any guard, also one that an agent has already.
        gate: the gate's name in the policy, or ``tools``, ``loops``, ``budget``.
        fault: what it does. A process of its own is started anew for it.
        stages: where it does so; elsewhere it answers as before. A gate in its own process has the fault everywhere.

    Raises:
        KeyError: the guard has no such gate.
        ValueError: this cannot happen to a gate that is run so.
    """
    step = {each.gate.name: each for each in guard.engine.steps()}[gate]
    if not fault.happens_to(step.gate.cost):
        raise ValueError(f"{fault} cannot happen to a {step.gate.cost} gate")
    if step.process is not None:
        recipe = getattr(step.gate, "recipe")().load  # noqa: B009 - every isolated gate has one
        step.process.become(_Recipe(fault, step.deadline).load)
        try:
            yield
        finally:
            step.process.become(recipe)
        return
    healthy = step.gate.check

    def check(event: Event) -> object:
        if event.stage not in stages:
            return healthy(event)
        if _awaits(step.gate):
            return _committing(fault, step.deadline)
        return _commit(fault, step.deadline)

    vars(step.gate)["check"] = check
    try:
        yield
    finally:
        del vars(step.gate)["check"]


def probe(stage: Stage, text: str = "hello", *, key: str = "") -> Event:
    """An ordinary event of a stage: a text, a call of a model, or a call of a tool ``probe``."""
    if stage is Stage.MODEL:
        return Event(stage, Content(None), Origin.MODEL, call=ModelCall("probe", 10, 10), key=key)
    if stage is Stage.TOOL_CALL:
        args = {"text": text}
        return Event(stage, Content(args), Origin.MODEL, call=ToolCall("probe", args, id="probe"), key=key)
    return Event(stage, Content(text), _ORIGINS.get(stage, Origin.MODEL), key=key)


def assert_fails_safe(
    policy: Guard | Policy | str | Path, faults: Collection[Fault] = tuple(Fault), *, text: str = "hello"
) -> list[Decision]:
    r"""Fail unless every fault of every gate, at every stage, means what the policy says.

    Args:
        policy: a policy or the path of its file (decided with a store in memory), or a guard.
        faults: the faults to try; one that overruns takes as long as the gate may, at each stage.
        text: what is decided meanwhile; something that the gates have nothing against.

    Returns:
        What was decided, one decision for each gate, fault and stage.

    >>> from guardrails_mw.document import Document
    >>> source = "version: 1\ngates: {signs: {type: injection}}\nstages: {input: [signs], tool_result: [signs]}"
    >>> made = assert_fails_safe(Policy.load(Document(source)), [Fault.RAISES, Fault.NONE])
    >>> [(each.stage.value, each.verdict.reason) for each in made][::3]
    [('input', 'error.gate_error'), ('tool_result', 'error.not_a_verdict')]
    """
    if not isinstance(policy, Guard):
        policy = policy if isinstance(policy, Policy) else Policy.read(policy)
        with Guard(policy, store=open_store("memory:", policy.base)) as guard:
            return assert_fails_safe(guard, faults, text=text)
    guard, made = policy, list[Decision]()
    for step in guard.engine.steps():
        for fault in faults:
            if fault.happens_to(step.gate.cost):
                with failing(guard, step.gate.name, fault):
                    made += [_meant(guard, step, fault, probe(stage, text)) for stage in _asked_at(guard, step)]
    return made


def _asked_at(guard: Guard, step: Step) -> list[Stage]:
    return [stage for stage in Stage if any(each.gate is step.gate for each in guard.engine.steps(stage))]


def _meant(guard: Guard, step: Step, fault: Fault, event: Event) -> Decision:
    """Decide, and compare. Another gate may have blocked first: then this one was not asked."""
    decision, name = guard.decide(event), step.gate.name
    expected = expected_failure(guard.policy, name, fault)
    where = f"{name} at {event.stage}: {fault}"
    mine = next((check for check in decision.checks if check.gate == name), None)
    if mine is None:
        assert decision.verdict.action is Action.BLOCK, f"{where}: not asked, and {decision.verdict.action}"
        return decision
    found = Failure(mine.verdict.action, mine.verdict.reason)
    assert found == expected, f"{where}: {found}, expected {expected}"
    assert decision.verdict.action >= expected.action, f"{where}: {decision.verdict.action} in spite of {expected}"
    return decision


def _awaits(gate: Gate) -> bool:
    return bool(getattr(gate, "awaits", False)) or inspect.iscoroutinefunction(type(gate).check)


async def _committing(fault: Fault, seconds: float) -> object:
    """The fault of a gate that is awaited."""
    if fault is Fault.OVERRUNS:
        await asyncio.sleep(1.2 * seconds + 0.02)
        return None
    return _commit(fault, seconds)


def _commit(fault: Fault, seconds: float, *, alone: bool = False) -> object:
    """Do it. `seconds` is the deadline to pass; `alone` in its own process, where it may take for ever."""
    match fault:
        case Fault.OVERRUNS:
            time.sleep(3600.0 if alone else 1.2 * seconds + 0.02)
        case Fault.HOLDS_LOCK:
            _hold_lock(3600.0 if alone else 1.2 * seconds + 0.02)
        case Fault.GARBAGE:
            return {"action": "allow", "reason": "", "edits": ()}
        case Fault.DIES:
            os._exit(3)
        case Fault.NONE:
            return None
        case _:
            _raise(fault)
    return None


def _hold_lock(seconds: float) -> None:
    """Backtrack in C, ever longer, until the time is over."""
    began, length = time.perf_counter(), 16
    while time.perf_counter() - began < seconds:
        re.match(r"(a+)+$", "a" * length + "b")
        length += 1


def _raise(fault: Fault) -> NoReturn:
    match fault:
        case Fault.NOT_IMPLEMENTED:
            raise NotImplementedError("raw text of a gate")
        case Fault.BASE_EXCEPTION:
            raise _Stray("raw text of a gate")
        case Fault.MEMORY:
            raise MemoryError("raw text of a gate")
        case Fault.RECURSION:
            _raise(fault)
        case _:
            raise RuntimeError("raw text of a gate")
