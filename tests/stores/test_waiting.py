"""What a decision holds in a store that may wait is counted, recorded and given back off the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence

import pytest

from guardrails_mw import Action, Content, Event, Guard, Policy, Stage
from guardrails_mw.document import Document
from guardrails_mw.errors import StoreError
from guardrails_mw.event import ToolCall
from guardrails_mw.store import Again, Claim, Entry, Refusal
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.verdict import Outcome
from guardrails_mw.wait import drive_async

POLICY = """
version: 1
budgets: {run: {tool_calls: 5}}
tools: {look: {}}
"""


class Waiting(MemoryStore):
    """A store that says it may wait, notes who calls it, and cannot record decisions once it is `full`."""

    full = False

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    @property
    def blocking(self) -> bool:
        return True

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        self.calls.append(("append", threading.get_ident()))
        if self.full:
            raise StoreError("store.full")
        return super().append(run, key, at, kind, body)

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        self.calls.append(("reserve", threading.get_ident()))
        return super().reserve(key, claims, now, ttl)

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        self.calls.append(("settle", threading.get_ident()))
        return super().settle(key, amounts)

    def release(self, key: str) -> bool:
        self.calls.append(("release", threading.get_ident()))
        return super().release(key)


@pytest.mark.parametrize("full", [False, True])
def test_the_loop_never_waits_for_the_store(full: bool) -> None:
    """Reserving, recording, settling, and giving back what cannot be recorded, all happen in workers."""
    store = Waiting()
    event = Event(Stage.TOOL_CALL, Content({}), call=ToolCall("look", {}))

    async def flow() -> Action:
        store.full = full
        decision = await guard.adecide(event)
        await drive_async(guard.engine.settling(decision, Outcome("done", 0.1)))
        return decision.action

    with Guard(Policy.load(Document(POLICY)), store=store) as guard:
        assert asyncio.run(flow()) is (Action.BLOCK if full else Action.ALLOW)
    names = [name for name, _ in store.calls]
    assert names[:3] == (["reserve", "append", "release"] if full else ["reserve", "append", "settle"])
    assert threading.get_ident() not in {thread for _, thread in store.calls}
