"""What the demo shows: every conversation with the decisions in it as they are made, and a summary."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from guardrails_mw.demo.conversations import Conversation
from guardrails_mw.verdict import Action, Check, Decision

__all__ = ["Screen", "speaking"]

_STYLES = {"allow": "green", "edit": "cyan", "flag": "yellow", "ask": "magenta", "block": "red"}


def speaking(decision: Decision) -> list[Check]:
    """The checks of a decision that had something to say."""
    return [check for check in decision.checks if check.verdict.action > Action.ALLOW or check.verdict.edits]


def _why(check: Check) -> str:
    """Gate and reason in a few words, and what was found where something is replaced."""
    gate, reason = check.gate, check.verdict.reason
    text = reason if reason == gate or reason.startswith(f"{gate}.") else f"{gate}: {reason}"
    found = ", ".join(dict.fromkeys(finding.type for finding in check.verdict.findings)) if check.verdict.edits else ""
    return f"{text}  {found}".rstrip()


def _word(check: Check) -> str:
    """What a check did: its action, or that it only edited."""
    action = check.verdict.action
    return "edit" if action is Action.ALLOW and check.verdict.edits else action.word


class Screen:
    """Prints the demo, line by line as things happen.

    Args:
        console: where to.
        verbose: show also the decisions that let everything pass.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        self.console = console
        self.decisions: list[Decision] = []
        """Every decision so far."""
        self._verbose, self._shown = verbose, set[tuple[str, str, str]]()

    def decision(self, decision: Decision) -> None:
        """Show a decision; made to be an observer of a guard. A node that runs again is shown once."""
        self.decisions.append(decision)
        what = decision.event.tool.name if decision.event.tool else ""
        time = f"{decision.seconds * 1000:.1f} ms"
        spoke = speaking(decision)
        for check in spoke:
            once = (decision.event.key, check.gate, check.verdict.reason)
            if once not in self._shown:
                self._row(decision.stage.value, what, _word(check), _why(check), time)
            self._shown.add(once)
            time = ""
        if not spoke and self._verbose:
            self._row(decision.stage.value, what, "allow", "", time)

    def person(self, what: str, deed: str) -> None:
        """Show what a person did about a question."""
        self._row("person", what, "", deed, "")

    def stopped(self, what: str, reason: str) -> None:
        """Show what an answer, or none, means for a call."""
        self._row("tool_call", what, "block", reason, "")

    def said(self, who: str, text: str) -> None:
        """Show one message of the conversation."""
        line = Table.grid(padding=(0, 1))
        line.add_column(width=5, justify="right", style="bold blue" if who == "user" else "bold")
        line.add_column(overflow="fold")
        line.add_row("›" if who == "user" else "‹", Text(_visible(text)))
        self.console.print(line)

    def heading(self, conversation: Conversation, number: int, total: int) -> None:
        """Show which conversation begins."""
        place, who = Text(f"{number:>2}/{total} ", "dim"), Text(f"  {_who(conversation)}", "dim")
        self.console.print(place + Text(conversation.title, "bold") + who)

    def verdict(self, problems: Sequence[str], end: str, seconds: float, *, enforced: bool) -> None:
        """Show how the conversation ended."""
        if not problems:
            took = f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
            self.console.print(Text(f"    ✓ {end}, as expected", "green") + Text(f"  {took}", "dim"))
        for problem in problems:
            self.console.print(Text(f"    {'✗' if enforced else '·'} {problem}", "bold red" if enforced else "yellow"))
        self.console.print()

    def _row(self, stage: str, what: str, action: str, reason: str, time: str) -> None:
        row = Table.grid(padding=(0, 1), expand=True)
        for width in (5, 11, 15, 5):
            row.add_column(width=width, no_wrap=True)
        row.add_column(ratio=1, overflow="fold")
        row.add_column(width=9, justify="right", style="dim")
        style = _STYLES.get(action, "")
        row.add_row("", Text(stage, "dim"), what, Text(action, f"bold {style}"), Text(reason, style), time)
        self.console.print(row)

    def summary(self, expected: int, total: int, spent: float, tokens: int, seconds: float) -> None:
        """Show what all of it came to."""
        table = Table(title="Decisions by gate", title_justify="left", title_style="bold", expand=True, box=None)
        table.add_column("gate", style="bold")
        for name in ("checks", "edit", "flag", "ask", "block", "p50 ms", "p95 ms"):
            table.add_column(name, justify="right", style=_STYLES.get(name, ""))
        for gate, checks in sorted(self._by_gate().items()):
            counts = Counter(_word(check) for check in checks)
            times = [check.seconds * 1000 for check in checks]
            done = [str(counts[word] or "") for word in ("edit", "flag", "ask", "block")]
            table.add_row(gate, str(len(checks)), *done, *(f"{_quantile(times, share):.2f}" for share in (0.5, 0.95)))
        self.console.print(table)
        whole = [decision.seconds * 1000 for decision in self.decisions]
        self.console.print()
        style = "green" if expected == total else "bold red"
        self.fact("Conversations", f"{expected} of {total} ended as expected", style)
        took = f"p50 {_quantile(whole, 0.5):.1f} ms, p95 {_quantile(whole, 0.95):.1f} ms"
        self.fact("Decisions", f"{len(whole)}, each with all its gates: {took}")
        self.fact("Spend", f"${spent:.4f} at the policy's prices, {tokens} tokens")
        self.fact("Time", f"{seconds:.1f} s")

    def fact(self, name: str, text: str, style: str = "") -> None:
        """Show one line of the summary."""
        self.console.print(Text(f"{name:<14}", "bold") + Text(text, style), soft_wrap=True)

    def look(self, commands: Iterable[tuple[str, str]]) -> None:
        """Show how to look into what was recorded."""
        self.console.print(Text("\nLook into it", "bold"))
        for command, why in commands:
            self.console.print(Text(f"  {why}", "dim"))
            self.console.print(Text(f"    {command}"), soft_wrap=True)

    def _by_gate(self) -> dict[str, list[Check]]:
        found: dict[str, list[Check]] = defaultdict(list)
        for decision in self.decisions:
            for check in decision.checks:
                found[check.gate].append(check)
        return found


def _who(conversation: Conversation) -> str:
    roles = conversation.actor.get("roles")
    held = f" ({', '.join(map(str, roles))})" if isinstance(roles, list) and roles else ""
    return f"{conversation.actor.get('id') or 'anonymous'}{held}"


def _quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile; 0 for no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _visible(text: str) -> str:
    """What a terminal can show: invisible characters are counted, not printed; a single one is a dot."""
    pieces = []
    for hidden, run in groupby(text, key=lambda char: unicodedata.category(char) in ("Cf", "Cc", "Co", "Cs", "Cn")):
        piece = "".join(run)
        if hidden:
            piece = " " if piece.isspace() else "·" if len(piece) == 1 else f"⟨{len(piece)} hidden⟩"
        pieces.append(piece)
    return " ".join("".join(pieces).split())
