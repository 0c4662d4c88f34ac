"""The record is read run by run."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from commands import ATTACK, run

from guardrails_mw.event import Content, Event, Stage, Where
from guardrails_mw.guard import Guard


@pytest.fixture
def recorded(policy: Path) -> Path:
    """Two runs: an edit and a block; and one that hides an escape in everything it can."""
    with Guard.from_yaml(policy) as guard:
        guard.warm()
        for key, text in enumerate(("write to bob@example.com", ATTACK)):
            guard.decide(Event(Stage.INPUT, Content(text), where=Where(run="r1"), key=f"m{key}"))
        hostile = "\x1b[31mred[bold]\u202e\n"
        guard.decide(Event(Stage.INPUT, Content(hostile), where=Where(run=f"bad{hostile}", agent=hostile), key="h"))
        body = {"stage": hostile, "verdict": hostile, "action": hostile, "gate": hostile, "reason": hostile}
        guard.ledger.record(f"bad{hostile}", "k", "decision", {**body, "tool": hostile, "ms": hostile})
        guard.ledger.record(f"bad{hostile}", "l", hostile, {})
    return policy


def test_runs(recorded: Path) -> None:
    """Runs are listed with their verdicts, and one is shown in order with its chain verified."""
    listed = {each["run"]: each for each in json.loads(run("runs", "list", "--json", "-p", recorded).stdout)}
    assert listed["r1"]["verdicts"] == {"allow": 1, "flag": 0, "ask": 0, "block": 1}
    result = run("runs", "show", "r1", "-p", recorded)
    assert result.exit_code == 0
    for words in ("allow + edit", "block", "override", "The chain of 2 entries holds."):
        assert words in result.stdout
    assert "bob@" not in run("runs", "show", "r1", "--json", "-p", recorded).stdout


def test_hostile_records(recorded: Path) -> None:
    """What a record holds reaches no terminal as an escape, and is not read as markup."""
    hostile = "bad\x1b[31mred[bold]\u202e\n"
    for command in (("list",), ("show", hostile), ("list", "--json"), ("show", hostile, "--json"), ("show", "\x1b[5m")):
        result = run("runs", *command, "-p", recorded)
        assert not {"\x1b", "\u202e"} & set(result.stdout + result.stderr), command
    shown = run("runs", "show", hostile, "-p", recorded).stdout
    assert "\\x1b[31mred[bold]\\u202e\\n" in shown


def test_broken_chain(recorded: Path) -> None:
    """A record that was changed is named, with exit code 1."""
    database = sqlite3.connect(recorded.parent / "g.db")
    database.execute("DROP TRIGGER log_no_update")
    database.execute("UPDATE log SET body = replace(body, 'block', 'allow') WHERE run = 'r1' AND seq = 2")
    database.commit()
    database.close()
    result = run("runs", "show", "r1", "-p", recorded)
    assert result.exit_code == 1
    assert "THE CHAIN IS BROKEN at entry 2 (hash)" in result.stderr
    assert "holds" not in result.stdout


def test_unknown_run(recorded: Path) -> None:
    """A run that is not on record is an error, not an empty table."""
    assert run("runs", "show", "r9", "-p", recorded).exit_code == 2
