"""The fault matrix: every gate, fault, stage, seam, mode and `on_error`, and what the policy says of each.

The rows come from the registries: installed gate types, `SEAMS`, `Fault`. A cell is one request in which one gate
has one fault. There are two tables, because a seam never sees a gate: it sees a check, made by the engine.

- the *engine's*: gate x stage x fault x `on_error` x world (sync, async);
- the *seams'*: kind of gate x stage x seam x mode x fault x `on_error`, for one gate of each kind. Gates are of one
  kind if the engine asks them in the same way: same cost, bounds, holds and colour. Faults with one reason code are
  one there, and `queue` needs one fault, since it has become a block before the seam is told.

That gates of a kind and faults of a code give decisions that differ in nothing but names and times is asserted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

from hosts import MODES, Host

from guardrails_mw.document import Document
from guardrails_mw.event import Stage
from guardrails_mw.gate import Cost, Gate, GateTypes, HoldingGate
from guardrails_mw.guard import Guard
from guardrails_mw.plan import build_gates, plan
from guardrails_mw.policy import Policy
from guardrails_mw.seam import SEAMS, Power
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.testing import Fault, Recording, expected_failure, failing
from guardrails_mw.verdict import Action

ON_ERROR = ("block", "flag", "queue", "unsafe_allow")
WORLDS = ("sync", "async")
KEYS = {
    "json_schema": "schema: {type: string}",
    "pydantic": "model: 'guardrails_mw.verdict:Verdict'",
    "llama_guard": "endpoint: 'http://127.0.0.1:9/v1'",
    "python": "call: 'chat:codeword'",
}
"""Keys without which an installed gate cannot be made. A new one that needs some is a `PolicyError` before."""
VARIANTS = {
    "python": {
        "linear": "cost: linear",
        "isolated": "call: 'light:agrees', cost: isolated",
        "async": "call: 'chat:later', cost: linear",
    }
}
"""Further ways in which a type can be set up."""
BUILT_IN = {
    "tools": "tools: {look: {}}",
    "loops": "loops: {repeats: 3}",
    "budget": "budgets: {run: {model_calls: 9, tool_calls: 9}}",
}
"""Gates that a section of the policy makes."""
TIMED = (Fault.OVERRUNS, Fault.HOLDS_LOCK)


@dataclass(frozen=True, slots=True)
class Subject:
    """A gate as it can be set up. `name` is the gate's in the policy, `keys` its own or those of its section."""

    name: str
    type: str
    keys: str

    def policy(self, stages: Iterable[Stage], on_error: str, timed: bool) -> Policy:
        """A policy in which it is asked at some stages."""
        head = f"version: 1\non_error: {on_error}\nqueue: {{within: 60ms}}\ndeadline_ms: {60 if timed else 20_000}\n"
        if not self.type:
            return Policy.load(Document(f"{head}{self.keys}\n"))
        keys = f"type: {self.type}{', ' * bool(self.keys)}{self.keys}"
        asked = ", ".join(f"{stage.value}: [{self.name}]" for stage in stages)
        return Policy.load(Document(f"{head}gates: {{{self.name}: {{{keys}}}}}\nstages: {{{asked}}}\n"))

    def guard(self, stages: Iterable[Stage], on_error: str, timed: bool = False) -> Guard:
        """A guard of that policy."""
        return Guard(self.policy(stages, on_error, timed))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Where it can be asked."""
        gate, kind = gate_of(self), GateTypes.installed()
        serves = kind.get(self.type).stages if self.type else type(gate).stages
        return tuple(stage for stage in Stage if stage in serves)


@cache
def subjects() -> tuple[Subject, ...]:
    """Every gate that can be set up, by the registry and the sections."""
    found = []
    for name in GateTypes.installed().names:
        found.append(Subject(name, name, KEYS.get(name, "")))
        found += [
            Subject(f"{name}_{each}", name, _joined(KEYS.get(name, ""), more))
            for each, more in VARIANTS.get(name, {}).items()
        ]
    return (*found, *(Subject(name, "", section) for name, section in BUILT_IN.items()))


def _joined(keys: str, more: str) -> str:
    return more if "call:" in more else f"{keys}, {more}"


@cache
def gate_of(subject: Subject) -> Gate:
    """The gate itself, not at work."""
    stage = next(iter(GateTypes.installed().get(subject.type).stages)) if subject.type else Stage.TOOL_CALL
    policy = subject.policy([stage], "block", timed=False)
    steps = plan(policy, build_gates(policy, GateTypes.installed(), b""), MemoryStore(), b"")
    return {step.gate.name: step.gate for step in steps[stage]}[subject.name]


@cache
def kind(subject: Subject) -> tuple[object, ...]:
    """What the engine looks at when it asks a gate."""
    gate = gate_of(subject)
    holds, awaits = isinstance(gate, HoldingGate), bool(getattr(gate, "awaits", False))
    where = "inline" if gate.cost is Cost.LINEAR else "worker"  # that of an isolated gate speaks to its process
    return (where, gate.bounded, gate.classifies, holds, awaits)


@dataclass(frozen=True, slots=True)
class Cell:
    """One request. `seam` is empty in the engine's table; `mode` is then a world."""

    subject: Subject
    stage: Stage
    fault: Fault
    on_error: str
    mode: str
    seam: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.seam, self.mode, self.stage, self.subject.name, self.fault, self.on_error)))

    @property
    def timed(self) -> bool:
        """Whether the fault is one of time, for which the deadline is short."""
        return self.fault in TIMED


def engine_cells() -> Iterator[Cell]:
    """The engine's table."""
    for subject in subjects():
        faults = [fault for fault in Fault if fault.happens_to(gate_of(subject).cost)]
        for stage, on_error, fault, world in itertools.product(subject.stages, ON_ERROR, faults, WORLDS):
            yield Cell(subject, stage, fault, on_error, world)


def seam_cells() -> Iterator[Cell]:
    """The seams' table."""
    for stage in Stage:
        kinds: dict[object, Subject] = {}
        for subject in subjects():
            if stage in subject.stages:
                kinds.setdefault(kind(subject), subject)
        for subject, on_error in itertools.product(kinds.values(), ON_ERROR):
            codes: dict[str, Fault] = {}
            for fault in Fault:
                if fault.happens_to(gate_of(subject).cost):
                    codes.setdefault(fault.code, fault)
            faults = [Fault.RAISES] if on_error == "queue" else list(codes.values())
            for fault, seam, mode in itertools.product(faults, SEAMS, MODES):
                if seam.can(stage, Power.BLOCK):
                    yield Cell(subject, stage, fault, on_error, mode, seam.name)


def every_cell() -> Iterator[Cell]:
    """The whole product, of which the tables are what is distinct."""
    for subject in subjects():
        for stage, on_error, fault, seam, mode in itertools.product(subject.stages, ON_ERROR, Fault, SEAMS, MODES):
            if fault.happens_to(gate_of(subject).cost) and seam.can(stage, Power.BLOCK):
                yield Cell(subject, stage, fault, on_error, mode, seam.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cell has to end in: what is on record of the gate, and whether the request goes on."""

    action: Action
    reason: str
    goes_on: bool


def expected(cell: Cell, policy: Policy) -> Outcome:
    """What the policy says of a cell. Every seam can block, so no seam changes it."""
    failure = expected_failure(policy, cell.subject.name, cell.fault)
    return Outcome(failure.action, failure.reason, goes_on=failure.action is not Action.BLOCK)


class Bench:
    """Runs cells. Keeps the guard and the hosts of the last one, since cells come in groups."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._guard: Guard | None = None
        self._fault: Fault | None = None
        self._faults = ExitStack()
        self._hosts: dict[str, Host] = {}
        self._numbers = itertools.count()

    def run(self, cell: Cell) -> str:
        """What is wrong with a cell; empty where all is as expected."""
        guard = self._of(cell)
        name, wanted = f"n{next(self._numbers)}", expected(cell, guard.policy)
        host = self._hosts.get(cell.seam) or self._hosts.setdefault(cell.seam, Host(cell.seam, guard))
        seen = Recording(guard)
        try:
            outcome = host.run(cell.mode, cell.stage, name)
        finally:
            guard.engine.observers.pop()
        found = [check for decision in seen.decisions if decision.stage is cell.stage for check in decision.checks]
        if not any((check.verdict.action, check.verdict.reason) == (wanted.action, wanted.reason) for check in found):
            return (
                f"{cell}: on record {[(c.gate, c.verdict.action.word, c.verdict.reason) for c in found]}, not {wanted}"
            )
        if host.happened(cell.stage, outcome, cell.mode) is not wanted.goes_on:
            return f"{cell}: {'stopped' if wanted.goes_on else 'SILENT PASS'}: {outcome!r:.300}"
        if isinstance(outcome, Exception) and wanted.goes_on:
            return f"{cell}: {outcome!r}"
        if cell.stage is not Stage.TOOL_RESULT and host.told(outcome) is wanted.goes_on:
            return f"{cell}: told {host.told(outcome)}: {outcome!r:.300}"
        return f"{cell}: the gate's words came out" if "raw text" in repr(outcome) else ""

    def _of(self, cell: Cell) -> Guard:
        # a guard's tool node takes the calls of its tools from the guarded model, so nodes have a guard of their own
        key = (cell.subject, cell.stage, cell.on_error, cell.timed, cell.seam == "nodes")
        if key != self._key or self._guard is None:
            self.close()
            self._guard, self._key = cell.subject.guard([cell.stage], cell.on_error, cell.timed), key
        if cell.fault is not self._fault:
            self._faults.close()
            self._fault = cell.fault
            self._faults.enter_context(failing(self._guard, cell.subject.name, cell.fault, stages=[cell.stage]))
        self._guard.engine.start()  # a process that was killed has to load again
        return self._guard

    def close(self) -> None:
        """Close the guard that is open."""
        self._faults.close()
        self._fault = None
        if self._guard is not None:
            self._guard.close()
        self._guard, self._hosts = None, {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def grouped(cells: Iterator[Cell]) -> list[Cell]:
    """Cells in an order in which few guards are made."""
    return sorted(
        cells, key=lambda c: (c.subject.name, c.stage, c.on_error, c.timed, c.seam == "nodes", c.fault, c.seam, c.mode)
    )


def isolated(subject: Subject) -> bool:
    """Whether a fault costs two processes."""
    return gate_of(subject).cost is Cost.ISOLATED
