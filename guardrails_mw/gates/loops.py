"""The gate that stops loops. It holds no state itself; the store does."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import uuid4

from guardrails_mw.errors import GateError, StoreError
from guardrails_mw.event import Event, Stage
from guardrails_mw.gate import Cost, Gate
from guardrails_mw.loops import WINDOW, Loop, LoopLimits, Step, call_key, find_loop, result_key
from guardrails_mw.store import Store
from guardrails_mw.verdict import Remedy, Verdict

__all__ = ["LoopsGate"]

_RAN, _ASKED, _REFUSED = "ran", "asked", "refused"
_SWAPS = 100


@dataclass(frozen=True, slots=True)
class _Seen:
    """A step as the register keeps it: hashes only."""

    key: str
    call: str
    result: str
    state: str
    id: str = ""
    """The model's own id of the call, which its result has too."""

    @property
    def step(self) -> Step:
        return Step(self.call, self.result)


class LoopsGate(Gate):
    """Stops a tool call that keeps giving the same result: first a hint to the model, then a person, then the end.

    A stopped call counts as one more repetition, so each rung comes once, in order, until something new
    is seen. Code: ``loop.repeat``. An event that comes again under its key gets the same answer again.

    Args:
        name: the gate's name.
        store: where it remembers the last steps of a run, as keyed hashes.
        limits: when it is a loop and what follows.
        polls: tools that may be called again and again; they are never stopped, but what they bring is news.
        prefix: put before every key; shadow mode remembers under its own.
        secret: key of the hashes.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.TOOL_CALL, Stage.TOOL_RESULT})

    def __init__(
        self,
        name: str,
        store: Store,
        limits: LoopLimits | None = None,
        *,
        polls: Collection[str] = (),
        prefix: str = "",
        secret: bytes = b"",
    ) -> None:
        super().__init__(name)
        self.cost = Cost.BLOCKING if store.blocking else Cost.LINEAR
        self._store, self._limits = store, limits or LoopLimits()
        self._polls, self._prefix, self._secret = frozenset(polls), prefix, secret

    def may(self, stage: Stage) -> frozenset[str]:
        """It stops and asks before a call; of results it only takes note."""
        if stage is not Stage.TOOL_CALL:
            return frozenset()
        return frozenset({"ask" if rung == "ask" else "block" for rung in self._limits.then})

    def check(self, event: Event) -> Verdict:
        """Decide on a call, or remember a result."""
        tool = event.tool
        if tool is None:
            raise GateError("no_call")
        key, call = event.key or uuid4().hex, call_key(tool.name, tool.args, self._secret)
        if event.stage is Stage.TOOL_RESULT:
            result = result_key(event.content.value, self._secret)
            self._update(event.where.run, lambda seen: _with_result(seen, _Seen(key, call, result, _RAN, tool.id)))
            return Verdict.allow()
        if tool.name in self._polls:
            return Verdict.allow()
        found: Loop | None = None

        def attempt(seen: list[_Seen]) -> list[_Seen]:
            nonlocal found
            before = next((index for index, item in enumerate(seen) if item.key == key), len(seen))
            found = find_loop([item.step for item in seen[:before]], call, self._limits)
            if found is None or before < len(seen):
                return seen
            result = next(item.result for item in reversed(seen) if item.call == call)
            return [*seen, _Seen(key, call, result, _ASKED if found.rung == "ask" else _REFUSED, tool.id)]

        self._update(event.where.run, attempt)
        return _verdict(found, tool.name) if found else Verdict.allow()

    def _update(self, run: str, change: Callable[[list[_Seen]], list[_Seen]]) -> None:
        """Change a run's steps; again from the start when somebody else did meanwhile."""
        register = f"{self._prefix}loops:{run}"
        for _ in range(_SWAPS):
            before = self._store.get(register)
            seen = [_Seen(*item) for item in json.loads(before)] if before else []
            after = change(seen)
            if after is seen or self._store.swap(register, before, _packed(after)):
                return
        raise StoreError("store.busy")


def _packed(seen: Sequence[_Seen]) -> str:
    rows = [(item.key, item.call, item.result, item.state, item.id) for item in seen[-WINDOW:]]
    return json.dumps(rows, separators=(",", ":"))


def _with_result(seen: list[_Seen], new: _Seen) -> list[_Seen]:
    """Add a result once per key, in the place of its own call if that was stopped or asked about."""
    if any(item.key == new.key and item.state == _RAN for item in seen):
        return seen
    own = [index for index, item in enumerate(seen) if item.key == new.key]
    asked = [i for i, item in enumerate(seen) if item.state == _ASKED and item.id and item.id == new.id]
    for index in (*own, *asked):
        return [*seen[:index], new, *seen[index + 1 :]]
    return [*seen, new]


def _verdict(loop: Loop, tool: str) -> Verdict:
    if loop.rung == "ask":
        return Verdict.ask("loop.repeat")
    if loop.rung == "block":
        return Verdict.block("loop.repeat", remedy=Remedy.END)
    note = (
        f"You called {tool[:64]} {loop.count} times with the same arguments and got the same result. Calling it "
        "again will not change that: use what you have, try something else, or say what is missing."
    )
    return Verdict.block("loop.repeat", remedy=Remedy.NUDGE, note=note)
