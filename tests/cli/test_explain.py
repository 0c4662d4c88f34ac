"""The tables, and the schema."""

from __future__ import annotations

import json
from pathlib import Path

from commands import run


def test_explain(policy: Path) -> None:
    """The tables name gates, seams, tools and what is not guarded."""
    result = run("explain", "-p", policy)
    assert result.exit_code == 0
    for words in ("injection", "unenforceable", "args.n > 5 -> large", "stage.output", "not listed: block"):
        assert words in result.stdout


def test_explain_one_seam(policy: Path) -> None:
    """One seam alone, as JSON; a misspelt one is an error with the nearest name."""
    told = json.loads(run("explain", "-p", policy, "--seam", "model", "--json").stdout)
    assert {reach["seam"] for reach in told["reach"]} == {"model"}
    result = run("explain", "-p", policy, "--seam", "modle")
    assert result.exit_code == 2
    assert "did you mean 'model'" in result.stderr


def test_schema() -> None:
    """The schema is printed as JSON."""
    assert json.loads(run("schema").stdout)["title"] == "Guardrails policy"
