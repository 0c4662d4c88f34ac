"""The commands ``runs list | show``: what the ledger holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrails_mw.cli.options import AsJson, PolicyFile, existing_store, placed, read_policy
from guardrails_mw.cli.output import clock, complain, styled, table, write, write_json
from guardrails_mw.errors import StoreError

if TYPE_CHECKING:
    from guardrails_mw.ledger import Ledger, Problem

__all__ = ["app"]

app = typer.Typer(name="runs", help="Read what was decided, run by run.", no_args_is_help=True, rich_markup_mode=None)

_COUNTED = ("allow", "flag", "ask", "block")


@contextmanager
def _ledger(policy: Path) -> Iterator[Ledger]:
    from guardrails_mw.ledger import Ledger

    with placed(policy):
        store = existing_store(read_policy(policy))
    try:
        yield Ledger(store)
    finally:
        store.close()


@app.command("list")
def list_(
    policy: PolicyFile,
    limit: Annotated[int, typer.Option(min=1, help="The runs seen last.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first, with their verdicts counted.

    Example: guardrails-mw runs list --policy policy.yaml
    """
    with _ledger(policy) as ledger:
        found = [
            {"run": each.run, "first": each.first, "last": each.last, "entries": each.entries}
            | {"verdicts": _verdicts(ledger, each.run)}
            for each in ledger.runs(limit)
        ]
    if as_json:
        write_json(found)
    elif not found:
        write("No runs are recorded.")
    else:
        table("Runs", ("run", "began", "last seen", "entries", *_COUNTED), map(_row, found))


def _verdicts(ledger: Ledger, run: str) -> dict[str, int]:
    """How often each action was the verdict; empty where the record is damaged, which `runs show` explains."""
    try:
        bodies = [entry["body"] for entry in ledger.read(run) if entry["kind"] == "decision"]
    except StoreError:
        return {}
    counts = Counter(str(body.get("verdict", "")) for body in bodies if isinstance(body, Mapping))
    return {action: counts[action] for action in _COUNTED}


def _row(run: Mapping[str, object]) -> tuple[object, ...]:
    first, last, verdicts = run["first"], run["last"], run["verdicts"]
    assert isinstance(first, float)
    assert isinstance(last, float)
    assert isinstance(verdicts, Mapping)
    return (
        run["run"],
        clock(first),
        clock(last),
        run["entries"],
        *(verdicts.get(action, "?") or "" for action in _COUNTED),
    )


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The run, as `runs list` shows it.", show_default=False)],
    policy: PolicyFile,
    as_json: AsJson = False,
) -> None:
    """Show the decisions of a run, and check its chain.

    Exits with 1 where the chain is broken.

    Example: guardrails-mw runs show 4/c17fc91f --policy policy.yaml
    """
    with _ledger(policy) as ledger:
        problems = ledger.verify(run)
        if problems:  # first of all: what follows may not be readable
            complain(_verification(problems, 0))
        entries = list(ledger.read(run))
    if not entries:
        complain(f"no run {run} is recorded; see: guardrails-mw runs list")
        raise typer.Exit(2)
    if as_json:
        codes = [{"seq": each.seq, "code": each.code} for each in problems]
        write_json({"run": run, "entries": entries, "chain": {"holds": not problems, "problems": codes}})
    else:
        columns = ("#", "time", "stage", "gate", "verdict", "enforced", "reason", "tool or model", "ms")
        table(f"Run {run}", columns, map(_decision, entries))
        if not problems:
            write(_verification(problems, len(entries)))
    raise typer.Exit(1 if problems else 0)


def _decision(entry: Mapping[str, object]) -> tuple[object, ...]:
    body, at = entry["body"], entry["at"]
    assert isinstance(body, Mapping)
    assert isinstance(at, int | float)
    when = clock(at)
    if entry["kind"] == "approval":
        edited = " with other arguments" if body.get("edited") else ""
        by = f"{body.get('state')} by {body.get('by')}{edited}" if body.get("by") else str(body.get("state"))
        reasons = body.get("reasons")
        joined = ", ".join(map(str, reasons)) if isinstance(reasons, list) else ""
        return entry["seq"], when, "approval", body.get("approval", ""), by, "", joined, body.get("action", ""), ""
    if entry["kind"] == "restored":
        counts = f"{body.get('restored')} values, {body.get('unresolved')} unresolved"
        return entry["seq"], when, body.get("stage", ""), "vault", "restored", "", counts, body.get("tool", ""), ""
    if entry["kind"] != "decision":
        return entry["seq"], when, entry["kind"], "", "", "", "", "", ""
    verdict = str(body.get("verdict", "")) + (" + edit" if body.get("edits") else "")
    enforced = str(body.get("action", "")) + (" (shadow)" if body.get("shadow") else "")
    about = body.get("tool") or body.get("model") or ""
    return (
        entry["seq"], when, body.get("stage", ""), body.get("gate", ""), styled(verdict), styled(enforced),
        body.get("reason", ""), about, body.get("ms", ""),
    )  # fmt: skip


def _verification(problems: list[Problem], entries: int) -> str:
    if not problems:
        return f"The chain of {entries} entries holds."
    listed = ", ".join(f"entry {each.seq} ({each.code})" for each in problems[:10])
    more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"THE CHAIN IS BROKEN at {listed}{more}: the record was changed after it was written"
