"""The command ``spend``."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from guardrails_mw.cli.options import AsJson, PolicyFile, existing_store, placed, read_policy
from guardrails_mw.cli.output import table, write, write_json

if TYPE_CHECKING:
    from guardrails_mw.spend import Spend

__all__ = ["spend"]

_DAY = 86_400.0


def spend(
    policy: PolicyFile,
    by: Annotated[
        str, typer.Option(help="run, thread, task, agent, actor, tenant, model, tool or day (of UTC).")
    ] = "model",
    days: Annotated[float, typer.Option(help="How far back to look; 0 for everything.", min=0.0)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Show what was spent, added up: money at the policy's prices, tokens, calls and time.

    Models without a price are counted, and not in the money. Estimated: the provider named no tokens.

    Example: guardrails-mw spend --policy guardrails.yaml --by tenant --days 7
    """
    from guardrails_mw.ledger import Ledger
    from guardrails_mw.spend import GROUPS
    from guardrails_mw.spend import spend as added_up

    if by not in GROUPS:
        raise typer.BadParameter(f"{by!r} is not one of: {', '.join(GROUPS)}", param_hint="--by")
    with placed(policy):
        store = existing_store(read_policy(policy))
    try:
        costs = added_up(Ledger(store), by, time.time() - days * _DAY if days else 0.0)
    finally:
        store.close()
    if as_json:
        write_json([asdict(each) for each in costs])
    elif not costs:
        write("Nothing on record. Costs are kept where the policy has budgets or prices.")
    else:
        head = (by, "usd", "tokens in", "tokens out", "model calls", "tool calls", "seconds", "unpriced", "estimated")
        table("Spend", head, map(_row, costs))
        write(f"Together: ${sum(each.usd_micro for each in costs) / 1e6:.4f}")


def _row(cost: Spend) -> tuple[object, ...]:
    counts = (cost.input_tokens, cost.output_tokens, cost.model_calls, cost.tool_calls)
    return (
        cost.name or "-",
        f"{cost.usd_micro / 1e6:.4f}",
        *counts,
        f"{cost.seconds:.1f}",
        cost.unpriced,
        cost.estimated,
    )
