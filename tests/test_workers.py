"""Where gates run that must not run inline."""

from __future__ import annotations

import asyncio
import threading

from guardrails_mw.workers import LoopThread


def test_a_closed_loop_thread_leaves_nothing_open() -> None:
    """Closing ends the thread and closes its loop, so that neither sockets nor threads pile up with guards."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def here() -> threading.Thread:
        loops.append(asyncio.get_running_loop())
        return threading.current_thread()

    runner = LoopThread()
    thread = runner.submit(here()).result(5)
    runner.close()
    thread.join(5)
    assert not thread.is_alive()
    assert loops[0].is_closed()
