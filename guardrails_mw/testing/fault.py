"""What can go wrong in a gate. Light to import: a gate's own process loads this to have the fault there."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NoReturn

from guardrails_mw.verdict import Verdict

if TYPE_CHECKING:
    from guardrails_mw.gate import Cost

__all__ = ["Fault", "FaultRecipe", "commit", "committing"]


class Fault(StrEnum):
    """Something that a gate can do instead of answering.

    >>> from guardrails_mw.gate import Cost
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
    """Sleeps past its deadline, then allows."""
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
        return self is not Fault.DIES or cost == "isolated"


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
class FaultRecipe:
    """The fault in a process of its own; can be pickled."""

    fault: Fault
    seconds: float

    def load(self) -> Callable[[object], object]:
        """What is called there instead of the gate."""
        return lambda _event: commit(self.fault, self.seconds, alone=True)


async def committing(fault: Fault, seconds: float) -> object:
    """Do it in a gate that is awaited."""
    if fault is Fault.OVERRUNS:
        await asyncio.sleep(1.2 * seconds + 0.02)
        return Verdict.allow()
    return commit(fault, seconds)


def commit(fault: Fault, seconds: float, *, alone: bool = False) -> object:
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
    return Verdict.allow()  # too late


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
