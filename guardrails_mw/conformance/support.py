"""What the parts of the suite share: opening a store, starting callers together, expecting an error."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import ClassVar, TypeVar
from unittest import SkipTest

from guardrails_mw.errors import StoreError
from guardrails_mw.store import Store

__all__ = ["Conformance", "Opener", "go", "opened", "race", "refuses", "start"]

Opener = Callable[[], Store]
"""Opens the store under test: the same contents each time, where the store lasts."""

T = TypeVar("T")

_SPAWN = multiprocessing.get_context("spawn")


class Conformance:
    """What the store under test can do at all."""

    shared: ClassVar[bool] = True
    """Whether other processes see it."""
    lasting: ClassVar[bool] = True
    """Whether its contents are there when it is opened again."""

    def needs(self, power: bool, what: str) -> None:
        """Skip a test of something that the store does not claim."""
        if not power:
            raise SkipTest(what)


@contextmanager
def opened(opener: Opener) -> Iterator[Store]:
    """A store that is closed in the end."""
    store = opener()
    try:
        yield store
    finally:
        store.close()


@contextmanager
def refuses(code: str) -> Iterator[None]:
    """What is inside must raise this `StoreError`."""
    raised = ""
    try:
        yield
    except StoreError as error:
        raised = error.code
    assert raised == code


def start(target: Callable[..., None], *args: object) -> tuple[BaseProcess, Connection]:
    """A process of its own that runs a function of a module; its last argument is the other end of the pipe."""
    ours, theirs = _SPAWN.Pipe()
    worker = _SPAWN.Process(target=target, args=(*args, theirs), daemon=True)
    worker.start()
    theirs.close()
    return worker, ours


def go(told: Iterable[Connection]) -> None:
    """Have processes begin together, when each has said that it is ready."""
    ready = list(told)
    for each in ready:
        assert each.recv() == "ready"
    for each in ready:
        each.send("go")


def race(count: int, work: Callable[[int], T]) -> list[T]:
    """Run `work` in `count` threads that start together; what each returned, in order. Raises what one raised."""
    barrier = threading.Barrier(count)
    results: dict[int, T] = {}
    failed: list[BaseException] = []

    def one(index: int) -> None:
        try:
            barrier.wait()
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [results[index] for index in range(count)]
