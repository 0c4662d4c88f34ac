"""Asking one gate: inline, in a worker or in its own process, and again where the policy says so.

Whatever a gate does, what comes back is a `Check`: raising, overrunning and nonsense become the policy's `on_error`
with a reason code of their own.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import random
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from guardrails_mw.backlog import Backlog, Waiting
from guardrails_mw.blocks import Together
from guardrails_mw.errors import GateError, StoreError
from guardrails_mw.event import Event
from guardrails_mw.gate import DEADLINE, Cost, Gate, HoldingGate
from guardrails_mw.verdict import Action, Check, Outcome, Verdict, combine
from guardrails_mw.wait import AwaitableWait, FutureWait, Wait
from guardrails_mw.workers import IsolatedWorker, LoopThread, Workers

__all__ = ["INLINE", "PASS_THROUGH", "Asker", "Step"]

INLINE = 16_384
"""Characters up to which a linear gate runs inline; more goes to a worker, where its deadline can end it."""

PASS_THROUGH = (KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit)
"""What ends a program or a task is no answer of a gate."""

T = TypeVar("T")
_FIRST, _LONGEST = 0.05, 2.0
"""Seconds before a gate that failed is asked again, doubled each time, and at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """A gate at a stage: its deadline in seconds, what its failure means, and its process if it has one.

    `queue`: seconds for which a request waits for the gate to come back after it failed.
    """

    gate: Gate
    deadline: float
    on_error: Action
    process: IsolatedWorker | None = None
    queue: float = 0.0


class Asker:
    """Asks gates for an engine.

    Args:
        backlog: where requests that wait are seen; None lets none wait.
    """

    def __init__(self, backlog: Backlog | None = None) -> None:
        self._backlog = backlog
        self._workers, self._loop = Workers(), LoopThread()
        self._closed = threading.Event()

    async def asked(self, step: Step, event: Event, joined: Together | None = None) -> Check:
        """What a gate says of an event and, where it looks at texts, of the event's blocks `joined`."""
        check = await self._asked(step, event)
        if joined is None or not step.gate.joins or step.gate.remembers:
            return check
        other = await self._asked(step, joined.event)
        both = combine((check, replace(other, verdict=joined.original(other.verdict))))
        return Check(check.gate, both, check.seconds + other.seconds, check.error or other.error)

    async def _asked(self, step: Step, event: Event) -> Check:
        """What a gate says of an event; where the policy lets requests wait for it, what it says at last."""
        check = await self._once(step, event)
        if not check.error or not step.queue or self._backlog is None:
            return check
        began = time.time() - check.seconds
        waiting = Waiting(
            step.gate.name, event.stage.value, event.where.run, check.error, time.time(), time.time() + step.queue
        )
        try:
            with self._backlog.place(waiting):
                check = await self._again(step, event, check)
        except GateError as error:
            return self._broken(step, error.code, check.seconds)
        return replace(check, seconds=max(time.time() - began, check.seconds))

    async def _again(self, step: Step, event: Event, check: Check) -> Check:
        """Ask until the gate answers or the time is over. No question begins later than that."""
        until = time.perf_counter() + step.queue
        for number in itertools.count():
            left = until - time.perf_counter()
            pause = min(_FIRST * 2 ** min(number, 10), _LONGEST) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
            if left <= 0 or not await _Patience(min(pause, left), self._closed):
                break
            check = await self._once(step, event)
            if not check.error:
                break
        return check

    async def _once(self, step: Step, event: Event) -> Check:
        if event.content.size <= INLINE and step.gate.cost is Cost.LINEAR:
            answer = self.here(step, event)
            return answer if isinstance(answer, Check) else await self._await(step, answer)
        return await self._offload(step, event)

    def here(self, step: Step, event: Event) -> Check | Awaitable[object]:
        """Ask a gate here and now; an asynchronous gate answers with something to await."""
        began = time.perf_counter()
        try:
            answer = step.gate.check(event)
        except BaseException as error:  # noqa: BLE001 - sorted by _failed
            return self._failed(step, error, began)
        if type(answer) is not Verdict and inspect.isawaitable(answer):
            return answer
        return self._answered(step, answer, began)

    async def _await(self, step: Step, answer: Awaitable[object]) -> Check:
        began = time.perf_counter()
        try:
            value = await AwaitableWait(answer, step.deadline, self._loop)
        except BaseException as error:  # noqa: BLE001 - sorted by _failed
            return self._failed(step, error, began)
        return self._answered(step, value, began)

    async def _offload(self, step: Step, event: Event) -> Check:
        """Ask a gate in a worker thread or in its own process."""
        began = time.perf_counter()
        token = DEADLINE.set(began + step.deadline)
        try:
            if step.process is not None:
                process = step.process
                value = await self.in_worker(lambda: process.call(event, step.deadline), step.deadline + 1.0)
            else:
                value = await self._held(step, event)
        except BaseException as error:  # noqa: BLE001 - sorted by _failed
            return self._failed(step, error, began)
        finally:
            DEADLINE.reset(token)
        if type(value) is not Verdict and inspect.isawaitable(value):
            return await self._await(step, value)
        return self._answered(step, value, began)

    async def _held(self, step: Step, event: Event) -> object:
        """Ask a gate in a worker thread. What it holds for nobody, because its answer came too late, is released."""
        job = self._workers.submit(lambda: step.gate.check(event))
        try:
            return await FutureWait(job, step.deadline, self._workers)
        except BaseException as error:
            gate = step.gate
            starts = isinstance(error, GateError) and step.on_error is not Action.BLOCK  # what it held for goes on
            if isinstance(gate, HoldingGate) and not starts:
                job.add_done_callback(lambda job: _released(gate, event, job))
            raise

    def in_worker(self, call: Callable[[], T], timeout: float | None) -> FutureWait[T]:
        """A call in a worker thread, to be awaited."""
        return FutureWait(self._workers.submit(call), timeout, self._workers)

    def _answered(self, step: Step, answer: object, began: float) -> Check:
        """A gate's answer, made strict where it is no verdict or came too late."""
        seconds = time.perf_counter() - began
        if type(answer) is not Verdict:
            return self._broken(step, "not_a_verdict", seconds)
        if seconds > step.deadline:
            late = self._broken(step, "deadline", seconds)
            stricter = answer.action > late.verdict.action
            return Check(step.gate.name, answer, seconds, "deadline") if stricter else late
        return Check(step.gate.name, answer, seconds)

    def _failed(self, step: Step, error: BaseException, began: float) -> Check:
        if isinstance(error, PASS_THROUGH):
            raise error
        code = error.code if isinstance(error, GateError | StoreError) else "gate_error"
        return self._broken(step, code, time.perf_counter() - began)

    @staticmethod
    def _broken(step: Step, code: str, seconds: float) -> Check:
        return Check(step.gate.name, Verdict(step.on_error, f"error.{code}"), seconds, code)

    def close(self) -> None:
        """Stop waiting, workers and the loop."""
        self._closed.set()
        self._workers.close()
        self._loop.close()


def _released(gate: HoldingGate, event: Event, job: Future[Verdict | Awaitable[Verdict]]) -> None:
    """Give back what a gate holds for an event that never starts, in the thread that has just made the hold."""
    if not job.cancelled() and job.exception() is None:
        with suppress(Exception):  # the hold stays and is charged, the strict side
            gate.settle(event, Outcome("released"))


class _Patience(Wait[bool]):
    """Some seconds of waiting; False where nobody may wait: when the guard closes, or in the way of a running loop."""

    def __init__(self, seconds: float, closed: threading.Event) -> None:
        self._seconds, self._closed = seconds, closed

    def here(self) -> bool:
        """Wait in this thread, unless it runs an event loop, as under a callback of an asynchronous call."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return not self._closed.wait(self._seconds)
        return False

    async def there(self) -> bool:
        """Wait while the loop runs others."""
        await asyncio.sleep(self._seconds)
        return not self._closed.is_set()
