"""The fault matrix: no fault of any gate, in any seam and mode, is a silent pass; each is what the policy says.

A fixed core and a fresh sample run each time; ``make test-full`` runs every distinct cell. ``FAULT_SEED`` repeats a
sample.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest
from matrix import (
    BUILT_IN,
    MODES,
    ON_ERROR,
    WORLDS,
    Bench,
    Cell,
    engine_cells,
    every_cell,
    grouped,
    isolated,
    kind,
    seam_cells,
    subjects,
)

from guardrails_mw.event import Stage
from guardrails_mw.gate import GateTypes
from guardrails_mw.seam import SEAMS, Power
from guardrails_mw.testing import Fault, expected_failure, failing
from guardrails_mw.testing.faults import probe
from guardrails_mw.verdict import Action, Decision

SEED = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**6))
CORE = [
    Cell(next(each for each in subjects() if each.name == name), stage, fault, "block", mode, seam.name)
    for seam, stage in itertools.product(SEAMS, Stage)
    for name, fault, mode in (
        ("python_linear", Fault.NOT_IMPLEMENTED, "invoke"),
        ("python", Fault.BASE_EXCEPTION, "astream"),
    )
    if seam.can(stage, Power.BLOCK)
]


def _sample(cells: list[Cell], number: int) -> list[Cell]:
    return random.Random(SEED).sample([cell for cell in cells if not isolated(cell.subject)], number)


def _engine_table(cells: list[Cell]) -> list[str]:
    """What is wrong with cells of the engine's table."""
    wrong, numbers = [], itertools.count()

    def of(cell: Cell) -> tuple[str, str, Fault]:  # at all stages alike, so that few guards and processes are started
        return (cell.subject.name, cell.on_error, cell.fault)

    for _, cells_of in itertools.groupby(sorted(cells, key=of), key=of):
        group = list(cells_of)
        first = group[0]
        with first.subject.guard(first.subject.stages, first.on_error, first.timed) as guard:
            wanted = expected_failure(guard.policy, first.subject.name, first.fault)
            with failing(guard, first.subject.name, first.fault):
                for cell in group:
                    guard.engine.start()  # a process that was killed has to load again
                    event = probe(cell.stage, f"n{next(numbers)}", key=f"k{next(numbers)}")
                    decision = guard.decide(event) if cell.mode == "sync" else asyncio.run(guard.adecide(event))
                    found = [
                        (c.verdict.action, c.verdict.reason) for c in decision.checks if c.gate == cell.subject.name
                    ]
                    stops = wanted.action is Action.BLOCK
                    if found != [(wanted.action, wanted.reason)] or decision.blocked is not stops:
                        wrong.append(f"{cell}: {found}, not {wanted}")
    return wrong


def _seams_table(cells: list[Cell]) -> list[str]:
    with Bench() as bench:
        return [wrong for cell in cells if (wrong := bench.run(cell))]


@pytest.fixture(autouse=True)
def _seed(record_property: pytest.RecordProperty) -> None:
    record_property("FAULT_SEED", SEED)
    print(f"FAULT_SEED={SEED}")  # shown where a test fails


@pytest.mark.parametrize("seam", [seam.name for seam in SEAMS])
def test_core(seam: str) -> None:
    """Each stage of each seam: a gate that raises what hosts are known to skip stops the request."""
    assert _seams_table([cell for cell in CORE if cell.seam == seam]) == []


def test_sample_of_the_engine() -> None:
    """A fresh sample: gate, stage, fault, `on_error`, sync and async."""
    assert _engine_table(_sample(list(engine_cells()), 60)) == []


def test_sample_of_the_seams() -> None:
    """A fresh sample of the seams' table."""
    assert _seams_table(grouped(_sample(list(seam_cells()), 80))) == []


def test_sample_of_what_was_collapsed() -> None:
    """A fresh sample of the whole product, in which every gate meets every seam, as if nothing were equal."""
    assert _seams_table(grouped(_sample(list(every_cell()), 60))) == []


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("on_error", ON_ERROR)
@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_whole_engine(subject: object, on_error: str) -> None:
    """The engine's table, every cell once."""
    cells = [cell for cell in engine_cells() if cell.subject == subject and cell.on_error == on_error]
    assert cells
    assert _engine_table(cells) == []


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stage", Stage)
@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_whole_seams(subject: object, stage: Stage) -> None:
    """The seams' table, every cell once; gates that another stands for have none."""
    cells = grouped(cell for cell in seam_cells() if cell.subject == subject and cell.stage is stage)
    assert _seams_table(cells) == []


def test_cells_are_distinct() -> None:
    """Every cell of both tables is there once, and each of the whole product has one that stands for it."""
    seams = list(seam_cells())
    assert len(set(seams)) == len(seams)
    assert len(set(engine_cells())) == len(list(engine_cells()))

    def mark(cell: Cell) -> tuple[object, ...]:
        code = "" if cell.on_error == "queue" else cell.fault.code
        return (kind(cell.subject), cell.stage, code, cell.on_error, cell.mode, cell.seam)

    marks = [mark(cell) for cell in seams]
    assert len(set(marks)) == len(marks)
    died = {cell for cell in every_cell() if cell.fault is Fault.DIES}  # has a test of its own, in every seam
    assert {mark(cell) for cell in every_cell() if cell not in died} == set(marks)


def test_every_registered_row_is_there() -> None:
    """Installed types, gates of sections, seams, modes and faults all have cells."""
    engine, seams = list(engine_cells()), list(seam_cells())
    assert {cell.subject.type for cell in engine} == {*GateTypes.installed().names, ""}
    assert {cell.subject.name for cell in engine if not cell.subject.type} == set(BUILT_IN)
    assert {cell.fault for cell in engine} == set(Fault)
    assert {cell.mode for cell in engine} == set(WORLDS)
    assert {cell.seam for cell in seams} == {seam.name for seam in SEAMS}
    assert {cell.mode for cell in seams} == set(MODES)


def test_readme_says_how_many() -> None:
    """The numbers in README are those of the tables."""
    said = f"{len(list(engine_cells())):,} and {len(list(seam_cells())):,} distinct cases"
    assert said in (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def _shape(decision: Decision, cell: Cell) -> object:
    """A decision without names, times and ids."""
    (check,) = [check for check in decision.checks if check.gate == cell.subject.name]
    bare = replace(check.verdict, reason="")
    return (
        decision.action,
        replace(decision.verdict, reason=""),
        bare,
        bool(check.error),
        decision.content.value,
        decision.held,
    )


@pytest.mark.parametrize("on_error", ["block", "flag", "unsafe_allow"])
@pytest.mark.parametrize("stage", Stage)
def test_what_is_collapsed_is_equal(stage: Stage, on_error: str) -> None:
    """A failed check says nothing of its gate and its fault but their names: seams cannot tell them apart."""
    shapes = {}
    for subject in subjects():
        if stage not in subject.stages or isolated(subject):
            continue
        with subject.guard([stage], on_error) as guard:
            for fault in (Fault.RAISES, Fault.MEMORY, Fault.NONE):
                cell = Cell(subject, stage, fault, on_error, "sync")
                with failing(guard, subject.name, fault):
                    decision = guard.decide(probe(stage, "hello", key=f"{subject.name}{fault}"))
                shape = _shape(decision, cell)
                shapes[repr(shape if not decision.held else (*shape[:-1], ()))] = cell
    assert len(shapes) == 1, list(map(str, shapes.values()))


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seam", [seam.name for seam in SEAMS])
def test_isolated_gates_in_seams(seam: str) -> None:
    """A gate whose process is killed, or dies, in every seam at every stage that it reaches."""
    subject = next(each for each in subjects() if isolated(each))
    (reaches,) = [each for each in SEAMS if each.name == seam]
    product = itertools.product(subject.stages, (Fault.HOLDS_LOCK, Fault.DIES), ("invoke", "astream"))
    cells = [Cell(subject, *row[:2], "block", row[2], seam) for row in product if reaches.can(row[0], Power.BLOCK)]
    assert _seams_table(grouped(iter(cells))) == []
