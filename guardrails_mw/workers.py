"""Where gates run that must not run inline: worker threads, killable processes, and a loop for sync callers.

A thread cannot be stopped. When a gate overruns, its worker is abandoned: the thread ends when the gate
does, and only so many may be adrift at once. A process can be killed, which also stops code that holds the
interpreter lock.
"""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from guardrails_mw.errors import GateError
from guardrails_mw.forks import forget_in_children

__all__ = ["IsolatedWorker", "LoopThread", "Workers"]

T = TypeVar("T")


class Workers:
    """Daemon threads that run blocking gates.

    Args:
        limit: most threads at work at once; further jobs wait for one, on their own deadline.
        adrift: most abandoned threads; beyond it new jobs are refused with ``workers_exhausted``.
    """

    def __init__(self, limit: int = 16, adrift: int = 16) -> None:
        self._limit, self._most_adrift = limit, adrift
        self.forget()
        forget_in_children(self)

    def forget(self) -> None:
        """Begin without threads: a forked child has none of its parent's."""
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = self._idle = 0
        self.adrift = 0

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Run a call in a worker, in a copy of the caller's context. Raises `GateError`."""
        with self._lock:
            if self.adrift >= self._most_adrift:
                raise GateError("workers_exhausted")
            if self._idle <= self._jobs.qsize() and self._threads - self.adrift < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name="guardrails-mw-worker", daemon=True).start()
        job: _Job[T] = _Job(call)
        self._jobs.put(job)  # type: ignore[arg-type]
        return job.future

    def abandon(self, future: Future[T]) -> None:
        """Give up on a job: it is dropped if it has not begun, else its thread is counted as adrift."""
        if future.cancel():
            return
        with self._lock:
            self.adrift += 1
        future.add_done_callback(self._landed)

    def _landed(self, _future: Future[T]) -> None:
        with self._lock:
            self.adrift -= 1

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
            job.run()
            del job  # an idle thread keeps no content alive

    def close(self) -> None:
        """Let idle threads end. Threads that are busy end with their job."""
        for _ in range(self._threads):
            self._jobs.put(None)


class _Job(Generic[T]):
    def __init__(self, call: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self._call, self._context = call, contextvars.copy_context()

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._context.run(self._call))
        except BaseException as error:  # noqa: BLE001 - the waiting engine decides what it means
            self.future.set_exception(error)


class LoopThread:
    """One event loop in a daemon thread, for synchronous callers whose gate is asynchronous."""

    def __init__(self) -> None:
        self.forget()
        forget_in_children(self)

    def forget(self) -> None:
        """Begin without a loop: a forked child has no thread that runs its parent's."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def submit(self, awaitable: Awaitable[T]) -> Future[T]:
        """Run an awaitable there; cancelling the future cancels it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_turn, args=(self._loop,), name="guardrails-mw-loop", daemon=True).start()
        return asyncio.run_coroutine_threadsafe(_as_coroutine(awaitable), self._loop)

    def close(self) -> None:
        """Stop the loop."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped; what still runs in it is cancelled, its sockets are closed with it."""
    try:
        loop.run_forever()
        for task in (left := asyncio.all_tasks(loop)):
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    finally:
        loop.close()


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


class IsolatedWorker:
    """A child process that runs one gate and is killed when it overruns.

    Args:
        recipe: makes the check inside the child; must be picklable.
    """

    def __init__(self, recipe: Callable[[], Callable[[object], object]]) -> None:
        self._recipe = recipe
        self._pipe: Connection | None = None
        self.forget()
        forget_in_children(self)

    def forget(self) -> None:
        """Begin without a child: that of a forked process's parent answers the parent."""
        if self._pipe is not None:
            self._pipe.close()
        self._lock, self._pipe = threading.Lock(), None
        self._process: multiprocessing.process.BaseProcess | None = None
        self._loaded = False

    def call(self, event: object, timeout: float) -> object:
        """Check an event in the child; `timeout` includes all waiting.

        Raises:
            GateError: ``deadline``, ``worker_died`` or the gate's own.
        """
        until = time.perf_counter() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise GateError("deadline")
        late = False
        try:
            pipe = self._ready(until)
            pipe.send(event)
            late = not pipe.poll(_left(until))
            if late:  # the caller's time is over: it does not wait for the end of this child and the next one's start
                threading.Thread(target=self._renew, name="guardrails-mw-renewal", daemon=True).start()
                raise GateError("deadline")
            answered, value = pipe.recv()
        except (EOFError, OSError):
            self._kill()
            raise GateError("worker_died") from None
        finally:
            if not late:
                self._lock.release()
        if not answered:
            raise GateError(value)
        return value

    def _renew(self) -> None:
        """Kill the child that overran and start another, so that the next request finds it loading.

        Has the lock of the call that it ends.
        """
        try:
            self._kill()
            self._begin()
        finally:
            self._lock.release()

    def start(self) -> None:
        """Start the child and wait until it has loaded its gate, so that no request pays for that."""
        with self._lock:
            self._ready()

    def close(self) -> None:
        """Kill the child."""
        with self._lock:
            self._kill()

    def become(self, recipe: Callable[[], Callable[[object], object]]) -> None:
        """Run another check from now on, in a new child; returns when that has loaded."""
        with self._lock:
            self._kill()
            self._recipe = recipe
            self._ready()

    def _ready(self, until: float | None = None) -> Connection:
        """The pipe to a child that has loaded. Raises `GateError` where it goes on loading after its time."""
        pipe = self._pipe
        if pipe is None or self._process is None or not self._process.is_alive():
            pipe = self._begin()
        if not self._loaded:
            if until is not None and not pipe.poll(_left(until)):
                raise GateError("deadline")
            pipe.recv()  # loaded, or EOFError
            self._loaded = True
        return pipe

    def _begin(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._recipe), daemon=True)
        self._process.start()
        theirs.close()
        return self._pipe

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join(5)
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None
        self._loaded = False


def _left(until: float) -> float:
    return max(0.0, until - time.perf_counter())


def _serve(pipe: Connection, recipe: Callable[[], Callable[[object], object]]) -> None:
    """The child's loop: load the gate, then answer events until the pipe closes."""
    check = recipe()
    pipe.send(True)
    while True:
        try:
            event = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send((True, check(event)))
        except (KeyboardInterrupt, SystemExit):
            return
        except BaseException as error:  # noqa: BLE001 - else its text would end up on standard error
            pipe.send((False, error.code if isinstance(error, GateError) else "gate_error"))
