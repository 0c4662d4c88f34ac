"""The command ``explain``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from guardrails_mw.cli.options import AsJson, PolicyFile, placed, read_policy
from guardrails_mw.cli.output import duration, styled, table, write, write_json

if TYPE_CHECKING:
    from guardrails_mw.explain import Explanation, Reach, ToolTerms

__all__ = ["explain"]

_TIMING = {
    "before": "",
    "flows": "flows, held to the end of what gates look for",
    "held": "held until complete",
    "late": "after tokens were streamed",
    "refused": "unenforceable",
}


def explain(
    policy: PolicyFile,
    seam: Annotated[
        str | None, typer.Option(help="Only one seam: callbacks, model, middleware, nodes or runnable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a policy means, gate by gate and seam by seam.

    Shows the gates in the order they are asked, what each way of plugging in can carry out, tools, limits, and
    what is not guarded.

    Example: guardrails-mw explain --policy policy.yaml --seam callbacks
    """
    from guardrails_mw.explain import explain as explained

    with placed(policy):
        told = explained(read_policy(policy), seam=seam)
    if as_json:
        write_json(told.plain())
        return
    write(f"Policy {told.label}, mode {told.mode}")
    _stages(told)
    _seams(told)
    _tools(told)
    _limits(told)
    table(
        "Not guarded, or weaker than it may look", ("code", "what it means"), ((w.code, w.text) for w in told.warnings)
    )


_STREAM = {"": "", "span": "flows", "stride": "at strides", "all": "held"}


def _stages(told: Explanation) -> None:
    columns = ("stage", "#", "gate", "type", "may", "stream", "runs", "deadline", "on error")
    rows: list[tuple[object, ...]] = []
    for stage in told.stages:
        if not stage.gates:
            rows.append((stage.stage, "", "no gates", *[""] * 6))
        for number, gate in enumerate(stage.gates, 1):
            terms = (gate.cost, duration(gate.deadline_ms / 1000), styled(gate.on_error))
            what = (gate.name, gate.type, " ".join(gate.may), _STREAM[gate.stream])
            rows.append((stage.stage if number == 1 else "", number, *what, *terms))
    table("Gates, in the order they are asked; a block ends the stage", columns, rows)


def _seams(told: Explanation) -> None:
    columns = ("seam", "stage", "mode", "can", "stream", "cannot carry out")
    table("Seams; synchronous and asynchronous calls are alike", columns, _reach(told))
    write(f"What a seam cannot carry out becomes: {told.on_unenforceable} (unenforceable).")
    write("To ask, a seam needs a graph that can pause: a checkpointer and a thread.")
    for seam, note in told.seam_notes.items():
        write(f"  {seam}: {note}")
    write()


def _reach(told: Explanation) -> Iterator[tuple[object, ...]]:
    """The rows of the table, modes that mean the same in one."""
    merged: dict[tuple[object, ...], list[Reach]] = {}
    for each in told.reach:
        merged.setdefault((each.seam, each.stage, each.timing), []).append(each)
    for same in merged.values():
        first = same[0]
        gaps = ", ".join(f"{gap.gate}: {gap.effect}" for gap in first.unenforceable)
        mode = "all" if len(same) == 3 else ", ".join(each.mode for each in same)
        can = " ".join(first.powers) or "not reached"
        yield first.seam, first.stage, mode, can, _TIMING.get(first.timing, ""), gaps


def _tools(told: Explanation) -> None:
    columns = ("tool", "tier", "otherwise", "roles", "blocks if", "asks if", "who is asked", "checks")
    table("Tools", columns, map(_tool, told.tools))
    if told.unlisted:
        write(f"A tool that is not listed: {told.unlisted}.")


def _tool(tool: ToolTerms) -> tuple[object, ...]:
    asked = ""
    if tool.asks:
        who, within, then = tool.asks
        asked = f"{who or 'anybody'} within {duration(within)}, then {' '.join(then)}"
    name = tool.name if tool.listed else f"{tool.name} (not listed)"
    blocks, asks = ("; ".join(f"{rule} -> {because}" for rule, because in rules) for rules in (tool.block, tool.ask))
    return name, tool.tier, styled(tool.otherwise), " ".join(tool.roles), blocks, asks, asked, ", ".join(tool.checks)


def _limits(told: Explanation) -> None:
    for name, terms in told.budgets.items():
        write(f"Budget {name}: {terms}")
    if told.loops:
        repeats, then = told.loops
        write(f"Loops: from the same result {repeats} times on: {', then '.join(then)}")
    if told.vault:
        gates, lifetime = told.vault["gates"], told.vault["lifetime"]
        assert isinstance(gates, list)
        assert isinstance(lifetime, float)
        by = ", ".join(gates) or "gates of yours"
        write(f"Vault: tokens by {by}, kept for {duration(lifetime)} under the key of the {told.vault['key']}")
