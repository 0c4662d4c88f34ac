"""What was spent, on the command line and by the guard."""

from __future__ import annotations

import json
from pathlib import Path

from commands import run

from guardrails_mw.event import Actor, Content, Event, ModelCall, Stage, Where
from guardrails_mw.guard import Guard
from guardrails_mw.verdict import Outcome, Usage

POLICY = """version: 1
store: sqlite:///g.db
budgets: {tenant: {usd: 100, per: month}}
prices: {"m*": {input: "1", output: "2"}}
"""


def test_spend(tmp_path: Path) -> None:
    """Calls of two tenants are added up by tenant and by model, the most expensive first; what is odd is escaped."""
    policy = tmp_path / "p.yaml"
    policy.write_text(POLICY)
    with Guard.from_yaml(policy) as guard:
        for number, tenant in enumerate(("acme", "acme", "\x1b[31mevil")):
            call = ModelCall(f"m{number}", 1000, 100)
            actor, where = Actor("u", tenant=tenant), Where(run=f"r{number}")
            event = Event(Stage.MODEL, Content(None), actor=actor, where=where, call=call, key=str(number))
            guard.settle(guard.decide(event), Outcome("done", 1.0, Usage(1000, 10 * number), f"m{number}"))
        assert [(each.name, each.usd_micro) for each in guard.spend("model")] == [
            ("m2", 1040),
            ("m1", 1020),
            ("m0", 1000),
        ]
    told = json.loads(run("spend", "-p", policy, "--by", "tenant", "--json").stdout)
    assert [(each["name"], each["usd_micro"], each["model_calls"]) for each in told] == [
        ("acme", 2020, 2),
        ("\x1b[31mevil", 1040, 1),
    ]
    shown = run("spend", "-p", policy, "--by", "tenant").stdout
    assert "acme" in shown
    assert "0.0020" in shown
    assert "Together: $0.0031" in shown
    assert "\x1b" not in shown


def test_nothing_spent_and_bad_groups(tmp_path: Path) -> None:
    """An empty record says so; an unknown group is a usage error that names what is allowed."""
    policy = tmp_path / "p.yaml"
    policy.write_text(POLICY)
    with Guard.from_yaml(policy) as guard:
        guard.check("hi")
    assert "Nothing on record" in run("spend", "-p", policy).stdout
    wrong = run("spend", "-p", policy, "--by", "colour")
    assert wrong.exit_code == 2
    assert "tenant" in wrong.stderr
