"""Waiting without twins: one coroutine, driven by hand for synchronous callers and awaited by others.

Code that may have to wait is written once, as a coroutine that awaits `Wait`s. `drive` runs it in the
calling thread and needs no event loop; `drive_async` runs it in the running one. A coroutine that never
waits costs about a microsecond either way.
"""

from __future__ import annotations

import asyncio
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Generic, NoReturn, TypeVar, cast

from guardrails_mw.errors import GateError
from guardrails_mw.workers import LoopThread, Workers

__all__ = [
    "AwaitableWait",
    "Either",
    "Flow",
    "FutureWait",
    "Wait",
    "drive",
    "drive_async",
    "drive_each",
    "drive_each_async",
]

T = TypeVar("T")
Flow = Coroutine["Wait[object]", object, T]
"""A coroutine that awaits nothing but `Wait`s."""


class Wait(ABC, Generic[T]):
    """Something to wait for, in this thread or in the running loop."""

    def __await__(self) -> Generator[Wait[T], T, T]:
        return (yield self)

    @abstractmethod
    def here(self) -> T:
        """Wait in this thread."""

    @abstractmethod
    async def there(self) -> T:
        """Wait in the running loop."""


class FutureWait(Wait[T]):
    """A job in a worker thread, abandoned when its time is over. Raises `GateError` (``deadline``)."""

    def __init__(self, future: Future[T], timeout: float | None, workers: Workers) -> None:
        self._future, self._timeout, self._workers = future, timeout, workers

    def here(self) -> T:
        """Wait in this thread."""
        try:
            return self._future.result(self._timeout)
        except FutureTimeout:
            if self._future.done():
                raise  # the job itself raised a timeout error
            self._workers.abandon(self._future)
            raise GateError("deadline") from None
        except (KeyboardInterrupt, SystemExit):
            self._workers.abandon(self._future)
            raise

    async def there(self) -> T:
        """Wait in the running loop."""
        waiting = asyncio.wrap_future(self._future)
        try:
            done, _ = await asyncio.wait([waiting], timeout=self._timeout)
        except asyncio.CancelledError:
            self._give_up(waiting)
            raise
        if not done:
            self._give_up(waiting)
            raise GateError("deadline")
        return waiting.result()

    def _give_up(self, waiting: asyncio.Future[T]) -> None:
        self._workers.abandon(self._future)
        waiting.cancel()  # else asyncio logs, with its text, what the job raises later


class AwaitableWait(Wait[T]):
    """An awaitable: awaited in the caller's loop, or in a loop of its own for a synchronous caller."""

    def __init__(self, awaitable: Awaitable[T], timeout: float | None, loop: LoopThread) -> None:
        self._awaitable, self._timeout, self._loop = awaitable, timeout, loop

    def here(self) -> T:
        """Wait in this thread while a loop thread runs it."""
        future = self._loop.submit(self._awaitable)
        try:
            return future.result(self._timeout)
        except FutureTimeout:
            if future.done():
                raise
            future.cancel()
            raise GateError("deadline") from None

    async def there(self) -> T:
        """Await it; cancelled when its time is over."""
        task = asyncio.ensure_future(self._awaitable)
        task.add_done_callback(_seen)
        try:
            done, _ = await asyncio.wait([task], timeout=self._timeout)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            raise GateError("deadline")
        return task.result()


def _seen(task: asyncio.Future[T]) -> None:
    """Take note of how a task ended: asyncio logs, with its text, an exception that nobody looked at."""
    if not task.cancelled():
        task.exception()


class Either(Wait[T]):
    """A call of the host that exists in both forms, such as ``invoke`` and ``ainvoke``.

    >>> async def flow():
    ...     return await Either(lambda: 1, lambda: asyncio.sleep(0, 2))
    >>> drive(flow()), asyncio.run(drive_async(flow()))
    (1, 2)
    """

    def __init__(self, sync: Callable[[], T], asynchronous: Callable[[], Awaitable[T]]) -> None:
        self._sync, self._async = sync, asynchronous

    @classmethod
    def only_here(cls, sync: Callable[[], T]) -> Either[T]:
        """A call in a flow that is driven by hand; awaiting it raises `RuntimeError`."""
        return cls(sync, _wrong_way)

    @classmethod
    def only_there(cls, asynchronous: Callable[[], Awaitable[T]]) -> Either[T]:
        """A call in a flow that is awaited; driving it by hand raises `RuntimeError`."""
        return cls(_wrong_way, asynchronous)

    def here(self) -> T:
        """Call the synchronous form."""
        return self._sync()

    async def there(self) -> T:
        """Await the asynchronous form."""
        return await self._async()


def _wrong_way() -> NoReturn:
    raise RuntimeError("a flow was driven the wrong way")


def drive(flow: Flow[T]) -> T:
    """Run a flow in this thread."""
    try:
        wait, failed = flow.send(None), list[BaseException]()
        while True:
            try:
                value = wait.here()
            except BaseException as error:  # noqa: BLE001 - belongs to the flow, which sorts it out
                failed.append(error)
            # out here, so that what the flow raises instead does not carry it along
            wait = flow.throw(failed.pop()) if failed else flow.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def drive_async(flow: Flow[T]) -> T:
    """Run a flow in the running event loop."""
    try:
        wait, failed = flow.send(None), list[BaseException]()
        while True:
            try:
                value = await wait.there()
            except BaseException as error:  # noqa: BLE001 - belongs to the flow, which sorts it out
                failed.append(error)
            # out here, so that what the flow raises instead does not carry it along
            wait = flow.throw(failed.pop()) if failed else flow.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def drive_each(flow: AsyncGenerator[T, None]) -> Iterator[T]:
    """What a flow that yields gives, in this thread; the flow is closed when nobody wants more.

    >>> async def flow():
    ...     yield await Either(lambda: 1, lambda: asyncio.sleep(0, 2))
    >>> list(drive_each(flow()))
    [1]
    """
    try:
        while True:
            try:
                value = drive(_step(flow.__anext__))
            except StopAsyncIteration:
                return
            yield value
    finally:
        drive(_step(flow.aclose))


async def drive_each_async(flow: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """What a flow that yields gives, in the running event loop."""
    try:
        while True:
            try:
                value = await drive_async(_step(flow.__anext__))
            except StopAsyncIteration:
                return
            yield value
    finally:
        await drive_async(_step(flow.aclose))


class _Step(Generic[T]):
    """A step of a flow that yields, of which the running loop is not to know.

    At its end a loop closes the generators it knows of by itself and in any order, and it knows no `Wait`. Those of
    a flow are closed by whoever drives it.
    """

    def __init__(self, begin: Callable[[], Flow[T]]) -> None:
        with _unknown():
            self._flow = begin()

    def send(self, value: object) -> Wait[object]:
        with _unknown():
            return self._flow.send(value)

    def throw(self, error: BaseException) -> Wait[object]:
        with _unknown():
            return self._flow.throw(error)


def _step(begin: Callable[[], Flow[T]]) -> Flow[T]:
    return cast("Flow[T]", _Step(begin))


class _unknown:  # noqa: N801 - a context manager; as a generator it would take a microsecond
    """While generators begin that no loop shall know of."""

    __slots__ = ("_hooks",)

    def __enter__(self) -> None:
        self._hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)

    def __exit__(self, *_: object) -> None:
        sys.set_asyncgen_hooks(*self._hooks)
