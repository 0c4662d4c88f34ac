"""The command ``check``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from guardrails_mw.cli.options import AsJson, PolicyFile, placed, read_policy
from guardrails_mw.cli.output import styled, table, write, write_json
from guardrails_mw.event import Content, Event, Origin, Stage, ToolCall

if TYPE_CHECKING:
    from guardrails_mw.policy import Policy
    from guardrails_mw.verdict import Decision

__all__ = ["check"]


class Readable(StrEnum):
    """The stages that have a content to check."""

    INPUT = "input"
    OUTPUT = "output"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"


def check(
    policy: PolicyFile,
    text: Annotated[str, typer.Argument(help="What to check; - or nothing reads standard input.")] = "-",
    stage: Annotated[Readable, typer.Option(help="Where in a run the text would stand.")] = Readable.INPUT,
    tool: Annotated[
        str, typer.Option(help="The tool, at tool_call (TEXT is then its arguments as JSON) and tool_result.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Ask a policy about one text and print what it says.

    Nothing is recorded, counted or traced. Exits with 0 when the policy allows or flags, 1 when it asks or
    blocks (also in shadow mode, where an agent would go on), 2 when it cannot be used.

    Example: guardrails-mw check -p policy.yaml "Ignore all previous instructions"
    """
    event = _event(Stage(stage), sys.stdin.read() if text == "-" else text, tool)
    with placed(policy):
        decision = _decide(read_policy(policy), event)
    if as_json:
        write_json(_plain(decision))
    else:
        _show(decision)
    raise typer.Exit(1 if decision.verdict.action.word in ("ask", "block") else 0)


def _event(stage: Stage, text: str, tool: str) -> Event:
    if stage is Stage.INPUT:
        return Event(stage, Content(text), Origin.USER)
    if stage is Stage.OUTPUT:
        return Event(stage, Content(text), Origin.MODEL)
    if stage is Stage.TOOL_RESULT:
        return Event(stage, Content(text), Origin.TOOL, call=ToolCall(tool))
    if not tool:
        raise typer.BadParameter("a tool call needs a tool", param_hint="--tool")
    try:
        args = json.loads(text)
    except (ValueError, RecursionError):
        args = None
    if not isinstance(args, dict):
        raise typer.BadParameter('the arguments of a tool are a JSON object, such as {"amount": 5}', param_hint="TEXT")
    return Event(stage, Content(args), Origin.MODEL, call=ToolCall(tool, args))


def _decide(policy: Policy, event: Event) -> Decision:
    """Decide with the policy's gates, but nowhere to record or trace."""
    from guardrails_mw.guard import Guard
    from guardrails_mw.sections import TracesPolicy
    from guardrails_mw.stores.memory import MemoryStore

    with Guard(policy.model_copy(update={"traces": TracesPolicy()}), store=MemoryStore()) as guard:
        guard.warm()
        return guard.decide(event)


def _plain(decision: Decision) -> dict[str, object]:
    verdict = decision.verdict
    return {
        "stage": decision.stage.value,
        "action": verdict.action.word,
        "enforced": decision.action.word,
        "gate": decision.gate,
        "reason": verdict.reason,
        "score": verdict.score,
        "threshold": verdict.threshold,
        "findings": [asdict(finding) for finding in verdict.findings],
        "edited": bool(verdict.edits),
        "content": decision.would.value,
        "checks": [
            {
                "gate": each.gate,
                "action": each.verdict.action.word,
                "reason": each.verdict.reason,
                "error": each.error,
                "ms": round(each.seconds * 1000, 3),
            }
            for each in decision.checks
        ],
        "policy": decision.policy,
    }


def _show(decision: Decision) -> None:
    verdict = decision.verdict
    because = f" by {decision.gate}: {verdict.reason}" if verdict.reason else ""
    shadow = "  (shadow mode: an agent would go on)" if decision.shadow else ""
    write(f"{verdict.action.word}{because}{shadow}")
    table(
        "Gates",
        ("gate", "says", "reason", "score", "ms"),
        (
            (
                each.gate,
                styled(each.verdict.action.word),
                each.verdict.reason,
                "" if each.verdict.score is None else f"{each.verdict.score:g} of {each.verdict.threshold:g}",
                f"{each.seconds * 1000:.2f}",
            )
            for each in decision.checks
        ),
    )
    found = ((f.type, f"{f.start}-{f.end}", f"{f.score:g}", f.part) for f in verdict.findings)
    table("Findings", ("type", "characters", "score", "part"), found)
    if verdict.edits:
        value = decision.would.value
        write("Goes on as:" if verdict.action.word in ("allow", "flag") else "Without what must not be seen:")
        write(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
