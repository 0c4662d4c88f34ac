"""The commands ``approvals list | show | approve | reject``.

They open the store and nothing else: no gate is built to answer a question.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrails_mw.cli.options import AsJson, PolicyFile, existing_store, placed, read_policy
from guardrails_mw.cli.output import clock, complain, duration, styled, table, write, write_json
from guardrails_mw.errors import AlreadyDecided, UnknownApproval

if TYPE_CHECKING:
    from guardrails_mw.approvals import Approval, Approvals

__all__ = ["app"]

app = typer.Typer(
    name="approvals", help="Answer the questions that agents wait for.", no_args_is_help=True, rich_markup_mode=None
)

Id = Annotated[str, typer.Argument(help="The question's id, such as ap-1f2e3d4c5b6a.", show_default=False)]
By = Annotated[str, typer.Option(help="Your name, for the record.", show_default=False)]
Feedback = Annotated[str, typer.Option(help="A word to whoever asked.")]


@contextmanager
def _register(policy: Path) -> Iterator[Approvals]:
    """The register of a policy, with the recorder that keeps every answer in the ledger."""
    from guardrails_mw.approvals import Approvals
    from guardrails_mw.ledger import Ledger
    from guardrails_mw.recorder import LedgerRecorder
    from guardrails_mw.redaction import Redactor

    with placed(policy):
        store = existing_store(read_policy(policy))
    try:
        recorder = LedgerRecorder(Ledger(store), Redactor([]), b"", content=False, blocking=store.blocking)
        yield Approvals(store, on_change=recorder.approval)
    except UnknownApproval as error:
        complain(f"no approval has the id {error}; see: guardrails-mw approvals list --all")
        raise typer.Exit(2) from None
    except AlreadyDecided as error:
        complain(f"already {error.state} by {error.by} at {clock(error.at)}; nothing was changed")
        raise typer.Exit(1) from None
    finally:
        store.close()


@app.command("list")
def list_(
    policy: PolicyFile,
    every: Annotated[bool, typer.Option("--all", help="Also those that are answered or expired.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the questions that wait for a person, oldest first.

    Example: guardrails-mw approvals list --policy policy.yaml
    """
    with _register(policy) as approvals:
        found = approvals.list(None if every else "pending")
    if as_json:
        write_json([asdict(each) for each in found])
    elif not found:
        write("No questions." if every else "Nothing waits for a person.")
    rows = ((e.id, styled(e.state), e.action, ", ".join(e.reasons), e.tier, e.ask, e.actor, _left(e)) for e in found)
    if not as_json:
        table("Approvals", ("id", "state", "action", "reasons", "tier", "ask", "actor", "closes"), rows)


@app.command()
def show(id: Id, policy: PolicyFile, as_json: AsJson = False) -> None:  # noqa: A002 - the word people know
    """Show one question and the arguments it is about.

    Arguments are shown as they were recorded, redacted.

    Example: guardrails-mw approvals show ap-1f2e3d4c5b6a --policy policy.yaml
    """
    with _register(policy) as approvals:
        _show(approvals.get(id), as_json)


@app.command()
def approve(  # noqa: PLR0917 - options
    id: Id,  # noqa: A002 - the word people know
    policy: PolicyFile,
    by: By,
    args: Annotated[str, typer.Option(help="Other arguments for the call, as a JSON object.")] = "",
    feedback: Feedback = "",
    as_json: AsJson = False,
) -> None:
    """Let it happen, perhaps with other arguments.

    Exits with 1 if somebody else, or the clock, was first.

    Example: guardrails-mw approvals approve ap-1f2e3d4c5b6a --by ann --policy policy.yaml
    """
    new = _arguments(args) if args else None
    _answer(policy, by, lambda approvals: approvals.approve(id, by=by, args=new, feedback=feedback), as_json)


@app.command()
def reject(
    id: Id,  # noqa: A002 - the word people know
    policy: PolicyFile,
    by: By,
    feedback: Feedback = "",
    as_json: AsJson = False,
) -> None:
    """Do not let it happen.

    Exits with 1 if somebody else, or the clock, was first.

    Example: guardrails-mw approvals reject ap-1f2e3d4c5b6a --by ann --feedback "ask finance" -p policy.yaml
    """
    _answer(policy, by, lambda approvals: approvals.reject(id, by=by, feedback=feedback), as_json)


def _answer(policy: Path, by: str, answer: Callable[[Approvals], Approval], as_json: bool) -> None:
    if not by.strip():
        raise typer.BadParameter("an answer needs a name", param_hint="--by")
    with _register(policy) as approvals:
        approval = answer(approvals)
        if as_json:
            write_json(asdict(approval))
        else:
            write(f"{approval.id} ({approval.action}) is {approval.state} by {approval.by}; resume the agent to go on")


def _arguments(text: str) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter('arguments are a JSON object, such as {"amount": 5}', param_hint="--args")
    return value


def _left(approval: Approval) -> str:
    if approval.state != "pending":
        return clock(approval.at) if approval.at else ""
    left = max(1.0, approval.due - time.time())
    size = next(size for size in (3600.0, 60.0, 1.0) if left >= 2 * size or size == 1.0)
    return f"in {duration(left // size * size)}"


def _show(approval: Approval, as_json: bool) -> None:
    if as_json:
        write_json(asdict(approval))
        return
    times = {"opened": clock(approval.opened), "due": clock(approval.due)}
    times["at"] = clock(approval.at) if approval.at else ""
    for key, value in asdict(approval).items():
        told = times.get(key, value)
        if key in ("args", "new_args") and value is not None:
            told = json.dumps(value, ensure_ascii=False, default=str)
        elif key == "reasons":
            told = ", ".join(approval.reasons)
        if told not in ("", None):
            write(f"{key:<9} {told}")
