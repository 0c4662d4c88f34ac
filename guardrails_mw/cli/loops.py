"""The command ``loops``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from guardrails_mw.cli.options import placed, read_policy
from guardrails_mw.cli.output import complain, write

if TYPE_CHECKING:
    from guardrails_mw.loops import LoopLimits
    from guardrails_mw.loops.likeness import Habits, Step

__all__ = ["loops"]

_SHOWN = 20


def loops(
    source: Annotated[
        Path, typer.Option("--in", help="Sequences, one JSON object a line: id, steps of tool, args, result, ok.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where verdicts go, one a line: id, loop, kind, step.")],
    policy: Annotated[Path | None, typer.Option("--policy", "-p", help="Judge by its loops and tools.")] = None,
) -> None:
    """Look for loops in recorded traffic, by what stops them in an agent.

    step is the one (from 1) that completes the first loop. Lines that cannot be read are named, left out and counted.
    Exits with 0, with 1 if there was such a line, with 2 if a file cannot be used.

    Example: guardrails-mw loops --in sequences.jsonl --out verdicts.jsonl
    """
    limits, habits = _terms(policy)
    if out.exists() and source.exists() and out.samefile(source):
        raise typer.BadParameter("this would overwrite what is read", param_hint="--out")
    try:
        with source.open(encoding="utf-8", errors="replace") as lines, out.open("w", encoding="utf-8") as verdicts:
            rows, found, bad = _judged(lines, verdicts, limits, habits)
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}")
        raise typer.Exit(2) from None
    write(f"{rows} sequences, {found} with a loop, {bad} lines that cannot be read")
    raise typer.Exit(1 if bad else 0)


def _terms(policy: Path | None) -> tuple[LoopLimits, Mapping[str, Habits]]:
    """When a repetition is a loop, and what is known of tools."""
    from guardrails_mw.loops import LoopLimits

    if policy is None:
        return LoopLimits(), {}
    from guardrails_mw.plan import habits, loop_limits

    with placed(policy):
        known = read_policy(policy)
        limits = loop_limits(known.loops) if known.loops else LoopLimits()
        return limits, {name: habits(tool) for name, tool in known.tools.items()}


def _judged(
    lines: Iterable[str], verdicts: TextIO, limits: LoopLimits, habits: Mapping[str, Habits]
) -> tuple[int, int, int]:
    """Judge line by line; how many sequences, loops and unreadable lines there were."""
    from guardrails_mw.loops import first_loop

    rows = found = bad = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            loop = first_loop(_steps(row, habits), limits)
        except (ValueError, RecursionError) as error:
            bad += 1
            if bad <= _SHOWN:
                because = str(error) if type(error) is ValueError else "not JSON"
                complain(f"line {number}: {because}")
            continue
        rows, found = rows + 1, found + (loop is not None)
        step, kind = (loop[0], loop[1].kind) if loop else (None, None)
        verdicts.write(json.dumps({"id": row["id"], "loop": loop is not None, "kind": kind, "step": step}) + "\n")
    return rows, found, bad


def _steps(row: object, habits: Mapping[str, Habits]) -> Iterator[Step]:
    """The steps of a line. Raises `ValueError` that says what is wrong with it, never what is in it."""
    from guardrails_mw.loops.likeness import Habits, step_of

    if not isinstance(row, dict) or not isinstance(row.get("id"), str | int):
        raise ValueError("not an object with an id")  # noqa: TRY004 - the line is at fault
    steps, unknown = row.get("steps"), Habits()
    if not isinstance(steps, list):
        raise ValueError("steps is not a list")  # noqa: TRY004
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, dict) or not isinstance(step.get("tool"), str):
            raise ValueError(f"step {number} has no tool")  # noqa: TRY004
        args, ok = step.get("args", {}), step.get("ok", True)
        if not isinstance(args, dict) or not isinstance(ok, bool):
            raise ValueError(f"step {number}: args is an object, ok is true or false")  # noqa: TRY004
        yield step_of(step["tool"], args, step.get("result"), ok, habits=habits.get(step["tool"], unknown))
