"""What was spent, by run, agent, task, actor, tenant, model or day: read from the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from guardrails_mw.account import task_of
from guardrails_mw.event import Event, Json, ModelCall, ToolCall
from guardrails_mw.ledger import Ledger
from guardrails_mw.verdict import Outcome, Usage

__all__ = ["GROUPS", "Spend", "spend", "spent"]

GROUPS = ("run", "thread", "task", "agent", "actor", "tenant", "model", "tool", "day")
"""What costs can be added up by."""
_PAGE = 1000


@dataclass(slots=True)
class Spend:
    """The costs of one run, tenant or whatever they were added up by.

    Attributes:
        name: which one; empty where the events did not say.
        usd_micro: millionths of a US dollar.
        unpriced: model calls whose price nobody knew; they are not in `usd_micro`.
        estimated: model calls whose tokens are estimates, because their provider named none.
        unknown: calls of which nobody knows how they ended; they count as what was held for them.
        seconds: time in model and tool calls.
    """

    name: str
    usd_micro: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    seconds: float = 0.0
    unpriced: int = 0
    estimated: int = 0
    unknown: int = 0

    def add(self, body: Mapping[str, Json]) -> None:
        """Count one entry of kind ``spend``."""
        self.seconds += _number(body, "seconds")
        self.unknown += body.get("status") == "unknown"
        if "model" not in body:
            self.tool_calls += 1
            return
        self.model_calls += 1
        self.input_tokens += int(_number(body, "input"))
        self.output_tokens += int(_number(body, "output"))
        self.estimated += bool(body.get("estimated"))
        if body.get("usd_micro") is None:
            self.unpriced += 1
        else:
            self.usd_micro += int(_number(body, "usd_micro"))


def spent(
    event: Event, outcome: Outcome, used: Usage | None = None, usd_micro: int | None = None, tools: Collection[str] = ()
) -> dict[str, object]:
    """The body of a ledger entry about one call that ended.

    Args:
        event: the call.
        outcome: how it ended.
        used: the tokens that it counts with, of a model call.
        usd_micro: what it cost; None where nobody knows the price.
        tools: the names that may be kept: a model may put anything where a tool's name should be.
    """
    body: dict[str, object] = {
        "status": outcome.status,
        "seconds": round(outcome.seconds, 3),
        "thread": event.where.thread,
        "task": task_of(event.where),
        "agent": event.where.agent,
        "actor": event.actor.id,
        "tenant": event.actor.tenant,
    }
    if isinstance(event.call, ToolCall):
        return body | {"tool": event.call.name if event.call.name in tools else ""}
    assert isinstance(event.call, ModelCall)
    used = used or Usage(event.call.input_tokens, event.call.max_tokens, estimated=True)
    details = {
        "cached": used.cached_tokens,
        "cache_write": used.cache_write_tokens,
        "reasoning": used.reasoning_tokens,
        "audio_input": used.audio_input_tokens,
        "audio_output": used.audio_output_tokens,
        "estimated": int(used.estimated),
    }
    told = {name: value for name, value in details.items() if value}
    body |= {"model": outcome.model or event.call.name, "usd_micro": usd_micro}
    return body | {"input": used.input_tokens, "output": used.output_tokens} | told


def spend(ledger: Ledger, by: str, since: float = 0.0, runs: Iterable[str] | None = None) -> list[Spend]:
    """Costs added up, the most expensive first.

    Args:
        ledger: where every call's cost was kept.
        by: one of `GROUPS`.
        since: epoch seconds; calls that ended before do not count.
        runs: only these; all that were seen since then if left out.

    Raises:
        ValueError: not one of `GROUPS`.
        StoreError: the ledger cannot be read.
    """
    if by not in GROUPS:
        raise ValueError(f"costs add up by: {', '.join(GROUPS)}")
    found: dict[str, Spend] = {}
    for run in _runs(ledger, since) if runs is None else runs:
        for entry in ledger.read(run):
            at, body = entry["at"], entry["body"]
            if entry["kind"] != "spend" or not isinstance(body, Mapping) or not isinstance(at, float) or at < since:
                continue
            name = _name(by, run, at, body)
            if name is not None:
                found.setdefault(name, Spend(name)).add(body)
    return sorted(
        found.values(), key=lambda each: (-each.usd_micro, -each.input_tokens - each.output_tokens, each.name)
    )


def _runs(ledger: Ledger, since: float) -> list[str]:
    """Every run seen since then; asked for in growing pages, newest first."""
    limit = _PAGE
    while True:
        summaries = ledger.runs(limit)
        if len(summaries) < limit or summaries[-1].last < since:
            return [each.run for each in summaries if each.last >= since]
        limit *= 4


def _name(by: str, run: str, at: float, body: Mapping[str, Json]) -> str | None:
    """Which group an entry belongs to; None for a tool's entry among models and the other way round."""
    if by == "run":
        return run
    if by == "day":
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    if by in ("model", "tool") and by not in body:
        return None
    return str(body.get(by, ""))


def _number(body: Mapping[str, Json], key: str) -> float:
    value = body.get(key, 0)
    return value if isinstance(value, int | float) else 0
