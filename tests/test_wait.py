"""Waiting: what was given up leaves no trace in a log."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading

import pytest

from guardrails_mw.errors import GateError
from guardrails_mw.wait import AwaitableWait, FutureWait, drive_async
from guardrails_mw.workers import LoopThread, Workers


async def _given_up(wait: object, release: threading.Event) -> None:
    """Wait past the deadline, then let the job go on to its end and everything about it be forgotten."""

    async def flow() -> object:
        return await wait

    with pytest.raises(GateError):
        await drive_async(flow())
    release.set()
    for _ in range(20):
        await asyncio.sleep(0.01)


def test_a_job_that_fails_after_its_deadline_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """What an overrun gate in a worker raises later reaches no log: it may hold content."""
    release, workers = threading.Event(), Workers()

    def late() -> None:
        release.wait(5)
        raise ValueError("raw secret text")

    async def main() -> None:
        await _given_up(FutureWait(workers.submit(late), 0.05, workers), release)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
        gc.collect()
    workers.close()
    assert workers.adrift == 0
    assert "secret" not in caplog.text


def test_a_coroutine_that_fails_when_it_is_cancelled_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The same for an asynchronous gate that answers its cancellation with an exception."""
    release = threading.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(5)
        except asyncio.CancelledError:
            raise ValueError("raw secret text") from None

    async def main() -> None:
        await _given_up(AwaitableWait(stubborn(), 0.05, LoopThread()), release)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
        gc.collect()
    assert "secret" not in caplog.text
