"""People answer questions at the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from commands import POLICY, run, store

from guardrails_mw.approvals import Approval, Approvals
from guardrails_mw.ledger import Ledger


def ask(policy: Path, approval: str = "ap-1", **fields: object) -> None:
    """A question as an agent opens it."""
    values = {"action": "pay", "args": {"n": 9}, "reasons": ("tools:large",), "digest": "d", "opened": time.time()}
    values |= {"due": time.time() + 600, "run": "r1"} | fields
    opened = store(policy)
    Approvals(opened).open(Approval(approval, **values))
    opened.close()


def test_approve(policy: Path) -> None:
    """An answer is stored with name, arguments and feedback, and is in the ledger of its run."""
    ask(policy)
    assert "ap-1" in run("approvals", "list", "-p", policy).stdout
    answer = ("approvals", "approve", "ap-1", "--by", "ann", "--args", '{"n": 6}', "--feedback", "less", "-p", policy)
    result = run(*answer)
    assert (result.exit_code, "approved by ann" in result.stdout) == (0, True), result.output
    told = json.loads(run("approvals", "show", "ap-1", "--json", "-p", policy).stdout)
    assert (told["state"], told["by"], told["new_args"], told["feedback"]) == ("approved", "ann", {"n": 6}, "less")
    opened = store(policy)
    (entry,) = Ledger(opened).read("r1")
    opened.close()
    assert (entry["kind"], entry["body"]["state"], entry["body"]["by"]) == ("approval", "approved", "ann")
    assert entry["body"]["edited"] is True


def test_second_answer(policy: Path) -> None:
    """Who comes second is told who was first, exits with 1, and changes nothing."""
    ask(policy)
    assert run("approvals", "reject", "ap-1", "--by", "ann", "-p", policy).exit_code == 0
    result = run("approvals", "approve", "ap-1", "--by", "bob", "-p", policy)
    assert result.exit_code == 1
    assert "already rejected by ann" in result.stderr
    assert json.loads(run("approvals", "show", "ap-1", "--json", "-p", policy).stdout)["by"] == "ann"


def test_too_late(policy: Path) -> None:
    """A question whose time is over was answered by the clock."""
    ask(policy, due=time.time() - 1)
    result = run("approvals", "approve", "ap-1", "--by", "ann", "-p", policy)
    assert (result.exit_code, "already expired by clock" in result.stderr) == (1, True)
    assert "Nothing waits" in run("approvals", "list", "-p", policy).stdout
    assert "expired" in run("approvals", "list", "--all", "-p", policy).stdout


def test_unknown_question(policy: Path) -> None:
    """An id that is not on record is an error."""
    ask(policy)
    result = run("approvals", "approve", "ap-2", "--by", "ann", "-p", policy)
    assert (result.exit_code, "no approval has the id ap-2" in result.stderr) == (2, True)


@pytest.mark.parametrize("wrong", [("--by", " "), ("--by", "ann", "--args", "5"), ("--by", "ann", "--args", "{")])
def test_wrong_answers(policy: Path, wrong: tuple[str, ...]) -> None:
    """Nobody answers without a name, and arguments are an object; the question stays open."""
    ask(policy)
    assert run("approvals", "approve", "ap-1", *wrong, "-p", policy).exit_code == 2
    assert json.loads(run("approvals", "show", "ap-1", "--json", "-p", policy).stdout)["state"] == "pending"


def test_approvals_build_no_gate(policy: Path) -> None:
    """A gate that cannot be built any more does not keep people from answering."""
    broken = POLICY.replace("{type: pii}", "{type: python, call: 'no_such_module:check'}")
    policy.write_text(broken)
    ask(policy)
    assert run("check", "-p", policy, "x").exit_code == 2
    assert run("approvals", "approve", "ap-1", "--by", "ann", "-p", policy).exit_code == 0


def test_hostile_approvals(policy: Path) -> None:
    """The same for questions, whose arguments a model wrote."""
    hostile = "\x1b]0;title\x07[red]\u2066"
    ask(policy, action=hostile, args={"n": hostile}, reasons=(hostile,), actor=hostile, ask=hostile)
    for command in (("list",), ("show", "ap-1"), ("show", "ap-1", "--json"), ("reject", "ap-1", "--by", hostile)):
        result = run("approvals", *command, "-p", policy)
        assert result.exit_code == 0, result.output
        assert not {"\x1b", "\x07", "\u2066"} & set(result.stdout), command
    assert "\x1b" not in run("approvals", "approve", "ap-1", "--by", "ann", "-p", policy).stderr
