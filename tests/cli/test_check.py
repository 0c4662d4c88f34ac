"""A policy is asked about one text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import ATTACK, POLICY, run


@pytest.mark.parametrize(
    ("args", "code", "word"),
    [
        (("hello",), 0, "allow"),
        ((ATTACK,), 1, "block by injection: override"),
        (("--stage", "tool_result", "fine"), 0, "allow"),
        (("--stage", "tool_call", "--tool", "pay", '{"n": 9}'), 1, "ask by tools: large"),
        (("--stage", "tool_call", "--tool", "pay", '{"n": 1}'), 0, "allow"),
        (("--stage", "tool_call", "--tool", "other", "{}"), 1, "block by tools: tool.not_listed"),
    ],
)
def test_check(policy: Path, args: tuple[str, ...], code: int, word: str) -> None:
    """The verdict is the first line, and the exit code says whether anything would be stopped."""
    result = run("check", "-p", policy, *args)
    assert result.exit_code == code, result.output
    assert result.stdout.startswith(word)


def test_check_json(policy: Path) -> None:
    """Findings and the edited text, from standard input, as JSON."""
    result = run("check", "-p", policy, "--json", "-", text="mail bob@example.com")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["action"], told["edited"]) == (0, "allow", True)
    assert told["content"] == "mail [EMAIL_ADDRESS]"
    assert [(f["type"], f["start"], f["end"]) for f in told["findings"]] == [("EMAIL_ADDRESS", 5, 20)]


def test_check_in_shadow(policy: Path) -> None:
    """A shadow policy answers what it would do, and says that an agent would go on."""
    policy.write_text(POLICY + "mode: shadow\n")
    result = run("check", "-p", policy, ATTACK)
    assert result.exit_code == 1
    assert "shadow mode" in result.stdout
    assert json.loads(run("check", "-p", policy, "--json", ATTACK).stdout)["enforced"] == "allow"


def test_check_needs_what_a_call_needs(policy: Path) -> None:
    """A tool call without a tool, or with arguments that are no object, is a usage error."""
    assert run("check", "-p", policy, "--stage", "tool_call", "{}").exit_code == 2
    assert run("check", "-p", policy, "--stage", "tool_call", "--tool", "pay", "[1]").exit_code == 2
