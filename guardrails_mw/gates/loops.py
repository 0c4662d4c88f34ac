"""The gate that stops loops. It holds no state itself; the store does."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple
from uuid import uuid4

from guardrails_mw.errors import GateError, StoreError
from guardrails_mw.event import Event, Stage, ToolCall
from guardrails_mw.gate import Cost, Gate
from guardrails_mw.loops import WINDOW, Loop, LoopLimits, find_loop
from guardrails_mw.loops.call import call_key, tool_key
from guardrails_mw.loops.likeness import Habits, Step, step_of
from guardrails_mw.loops.traits import Trait
from guardrails_mw.store import Store
from guardrails_mw.verdict import Remedy, Verdict

__all__ = ["LoopsGate"]

_OPEN, _RAN, _TWIN, _APPROVED = "open", "ran", "twin", "approved"
_APART = frozenset({_OPEN, _TWIN})  # no steps
_STATES = frozenset({"nudge", "ask", "block"})
_SWAPS = 100
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_KEPT = 256  # calls under way and steps together; a turn may start many at once


class _Seen(NamedTuple):
    """A call as the register keeps it: of arguments and results hashes only, and figures that are moved.

    `state` is ``open`` until its result came, then ``ran``, ``twin`` (one of the same turn gave the same) or, where a
    person let it through, ``approved``; for a call that was stopped it is the rung. `id` is the model's own id of the
    call, which its result has too; `turn` is common to the calls that the model made at once (`Where.turn`).
    """

    key: str
    state: str
    tool: str
    call: str
    result: str = ""
    traits: int = 0
    patience: int = 0
    id: str = ""
    turn: str = ""
    figures: str = ""
    wording: str = ""

    @property
    def step(self) -> Step:
        return Step(self.tool, self.call, self.result, self.traits, self.patience, self.figures, self.wording)


@dataclass(frozen=True, slots=True)
class _Run:
    """What is remembered of a run: when its first call was made, how many there were, and the last of them."""

    began: float
    calls: int = 0
    seen: tuple[_Seen, ...] = field(default=())

    @classmethod
    def read(cls, text: str | None, now: float) -> _Run:
        if not text:
            return cls(now)
        began, calls, rows = json.loads(text)
        return cls(began, calls, tuple(_Seen(*row) for row in rows))

    def packed(self) -> str:
        return _ENCODER.encode((self.began, self.calls, _last(self.seen)))

    def with_call(self, new: _Seen) -> _Run:
        return replace(self, calls=self.calls + 1, seen=(*self.seen, new))


class LoopsGate(Gate):
    """Stops a tool call that only goes on with a loop: first a hint to the model, then a person, then the end.

    A stopped call counts as if it had given the same result again, so each rung comes once, in order, until something
    new is seen or a person lets the call through; calls that the model makes at once stand on one rung. Agents that
    work side by side are told apart: neither goes round by what the other does, nor is one's loop hidden by the other's
    news. Codes: ``loop.`` and a kind of `loops.KINDS`, ``loop.steps``, ``loop.seconds``. An event that comes again
    under its key gets the same answer again and is counted once. A result counts in the run that made the call.

    Args:
        name: the gate's name.
        store: where it remembers the last steps of a run, as keyed hashes and moved figures.
        limits: when it is a loop and what follows.
        habits: what the policy says about tools, by name.
        prefix: put before every key; shadow mode remembers under its own.
        secret: key of the hashes, and what figures are moved by.
        clock: seconds since the epoch.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.TOOL_CALL, Stage.TOOL_RESULT})
    remembers: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        store: Store,
        limits: LoopLimits | None = None,
        *,
        habits: Mapping[str, Habits] | None = None,
        prefix: str = "",
        secret: bytes = b"",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(name)
        self.cost = Cost.BLOCKING if store.blocking else Cost.LINEAR
        self._store, self._limits, self._habits = store, limits or LoopLimits(), dict(habits or {})
        self._prefix, self._secret, self._clock = prefix, secret, clock

    def may(self, stage: Stage) -> frozenset[str]:
        """It stops and asks before a call; of results it only takes note."""
        if stage is not Stage.TOOL_CALL:
            return frozenset()
        return frozenset({"ask" if rung == "ask" else "block" for rung in self._limits.then})

    def check(self, event: Event) -> Verdict:
        """Decide on a call, or remember a result."""
        tool = event.tool
        if tool is None and event.stage is Stage.TOOL_RESULT:
            return Verdict.allow()  # a text that no call brought
        if tool is None:
            raise GateError("no_call")
        own = tool_key(tool.id, self._secret) if tool.id else ""  # whoever chose the id may have put anything there
        if event.stage is Stage.TOOL_RESULT:
            step = step_of(
                tool.name, tool.args, event.content.value, not tool.failed, habits=self._of(tool), secret=self._secret
            )
            mine = _Seen(event.key, _RAN, step.tool, step.call, id=own, turn=event.where.turn)
            self._update(event.where.run, lambda run: _with_result(run, mine, step))
            return Verdict.allow()
        key, verdict = event.key or uuid4().hex, Verdict.allow()
        call = call_key(tool.name, tool.args, self._secret, self._of(tool).key)
        new = _Seen(key, _OPEN, tool_key(tool.name, self._secret), call, id=own, turn=event.where.turn)

        def attempt(run: _Run) -> _Run:
            nonlocal verdict
            verdict, after = self._decided(run, new, tool.name)
            return after

        self._update(event.where.run, attempt)
        return verdict

    def _of(self, tool: ToolCall) -> Habits:
        return self._habits.get(tool.name, _UNKNOWN)

    def _decided(self, run: _Run, new: _Seen, tool: str) -> tuple[Verdict, _Run]:
        """What is to be said about a call, and the run with it."""
        known = next((index for index, item in enumerate(run.seen) if item.key == new.key), None)
        if known is not None and run.seen[known].state not in _STATES:
            return Verdict.allow(), run
        before = run.seen[:known]
        if known is None and (code := self._spent(run)):
            return Verdict.block(code, remedy=Remedy.END), run
        steps = _streak(before, new.turn)
        loop = find_loop([item.step for item in steps], self._limits)
        if loop is None or not loop.goes_on(new.tool, new.call):
            return Verdict.allow(), run if known is not None else run.with_call(new)
        if known is not None:
            return _verdict(loop, run.seen[known].state, tool), run
        rung = self._rung(before, steps[-loop.since :], new.turn)
        like = _latest(steps, new)
        stopped = like._replace(
            key=new.key, state=rung, call=new.call, traits=like.traits | Trait.STOPPED, id=new.id, turn=new.turn
        )
        return _verdict(loop, rung, tool), run.with_call(stopped)

    def _spent(self, run: _Run) -> str:
        """The cap that a run has come to, as a reason code."""
        steps, seconds = self._limits.steps, self._limits.seconds
        if steps is not None and run.calls >= steps:
            return "loop.steps"
        return "loop.seconds" if seconds is not None and self._clock() - run.began >= seconds else ""

    def _rung(self, before: Sequence[_Seen], streak: Sequence[_Seen], turn: str) -> str:
        """What follows at this call: one rung up for every turn of the streak in which calls were stopped."""
        for item in reversed(before):
            if turn and item.turn == turn and item.state in _STATES:
                return item.state
        stopped = {item.turn or item.key for item in streak if item.state in _STATES}
        return self._limits.then[min(len(stopped), len(self._limits.then) - 1)]

    def _update(self, run: str, change: Callable[[_Run], _Run]) -> None:
        """Change what is remembered of a run; again from the start when somebody else did meanwhile."""
        register = f"{self._prefix}loops:{run}"
        for _ in range(_SWAPS):
            before = self._store.get(register)
            remembered = _Run.read(before, self._clock())
            after = change(remembered)
            if after is remembered or self._store.swap(register, before, after.packed()):
                return
        raise StoreError("store.busy")


_UNKNOWN = Habits()


def _last(seen: Sequence[_Seen]) -> Sequence[_Seen]:
    """What is worth keeping: the last steps of each that works by itself, and calls whose result may yet come."""
    seen = seen[-_KEPT:]
    if len(seen) <= WINDOW:
        return seen
    kept: list[_Seen] = []
    after: Counter[str] = Counter()  # steps, by the graph that they are in
    for item in reversed(seen):
        if item.state not in _APART:
            if sum(steps for graph, steps in after.items() if not _beside(graph, item.turn)) >= WINDOW:
                continue
            after[item.turn.rpartition("/")[0]] += 1
        kept.append(item)
    return kept[::-1]


def _streak(seen: Sequence[_Seen], turn: str) -> list[_Seen]:
    """The steps that count: those since a person last let one through, but none of the turn that is being decided.

    Nor do those of others who work at the same time.
    """
    steps: list[_Seen] = []
    for item in seen:
        if _beside(item.turn, turn):
            continue
        if item.state == _APPROVED:
            steps.clear()
        if item.state not in _APART and not (turn and item.turn == turn):
            steps.append(item)
    return steps


def _beside(one: str, other: str) -> bool:
    """Whether two turns are of tasks that were started at once: their ways part at a task, within the same step.

    >>> _beside("1/a/7", "1/b/7"), _beside("1/a/7", "2/b/7"), _beside("1", "1/a/7")
    (True, False, False)
    """
    if one == other or "/" not in one or "/" not in other:
        return False
    ways = enumerate(zip(one.split("/"), other.split("/"), strict=False))
    parting = next((place for place, (mine, others) in ways if mine != others), 0)
    return parting % 2 == 1


def _latest(steps: Sequence[_Seen], new: _Seen) -> _Seen:
    """The step that a call would repeat: the same call, else the same tool."""
    same = (item for item in reversed(steps) if item.call == new.call)
    return next(same, None) or next(item for item in reversed(steps) if item.tool == new.tool)


def _with_result(run: _Run, mine: _Seen, step: Step) -> _Run:
    """Add a result in the place of its call: one under way, or one that a person was asked about."""
    index = _place_of(run.seen, mine)
    if index is None:
        return run
    item = run.seen[index]
    state = _APPROVED if item.state == "ask" else _TWIN if _has_twin(run.seen, item, step) else _RAN
    ran = item._replace(
        state=state,
        call=step.call,
        result=step.result,
        traits=step.traits,
        patience=step.patience,
        figures=step.figures,
        wording=step.wording,
    )
    return replace(run, seen=(*run.seen[:index], ran, *run.seen[index + 1 :]))


def _place_of(seen: Sequence[_Seen], mine: _Seen) -> int | None:
    """Where the call of a result stands: one of the same turn, if models beside each other chose the same id."""
    places = [
        index
        for index, item in enumerate(seen)
        if item.state in {_OPEN, "ask"}
        and (item.key == mine.key or (item.id == mine.id if mine.id else item.call == mine.call))
    ]
    return max(places, key=lambda index: (seen[index].turn == mine.turn, index), default=None)


def _has_twin(seen: Sequence[_Seen], mine: _Seen, step: Step) -> bool:
    """Whether an equal call of the same turn gave the same result."""
    return bool(mine.turn) and any(
        (other.turn, other.call, other.result) == (mine.turn, mine.call, step.result) and other.state == _RAN
        for other in seen
    )


_TOLD = {
    "repeat": "with the same arguments and got the same result each time",
    "cycle": "in a round of the same calls with the same results",
    "ping_pong": "in turn with other agents that handed over to each other, and nothing was done in between",
    "same_error": "and got the same error each time, whatever the arguments",
    "no_news": "or calls like it, and none of them brought anything new",
    "monologue": "and only noted down what you think",
}


def _verdict(loop: Loop, rung: str, tool: str) -> Verdict:
    code = f"loop.{loop.kind}"
    if rung == "ask":
        return Verdict.ask(code)
    if rung == "block":
        return Verdict.block(code, remedy=Remedy.END)
    note = (
        f"You called {tool[:64]} {loop.count} times {_TOLD[loop.kind]}. Calling it again will not change that: use "
        "what you have, try something else, or say what is missing."
    )
    return Verdict.block(code, remedy=Remedy.NUDGE, note=note)
