"""The examples run offline, each in a process of its own, and say what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
SAYS = {
    "callbacks": ["Open from 9 to 5.", "input injection override", "output seam unenforceable"],
    "model": ["Write to Amy at [EMAIL_ADDRESS].", "My mail is [EMAIL_ADDRESS]", "(override)", "urgency=4"],
    "middleware": ["asked: refund", "delivered to [EMAIL_ADDRESS]", "tool: refunded 249.00", "ai: I have refunded"],
    "checkpoints": ["human: Please write to [EMAIL_ADDRESS]", "human: [blocked: override]", "hold the address: 0"],
    "graph": ["delivered to [EMAIL_ADDRESS].", "human: [blocked: override]"],
    "runnable": ["We open at 9.", "I'm at [EMAIL_ADDRESS]", "Write to [EMAIL_ADDRESS].", "(override)"],
    "custom_gate": ["You get that at another shop.", "competitors"],
    "approval": ["still waiting: True", "approved by dana", "Refunded."],
    "support_agent": [
        "tools that ran: ['search_articles']",
        "tool_result search_articles block injection override",
        "tool_call send_email block tools other-recipient",
    ],
}


def test_every_example_is_run() -> None:
    """No example is left out here, and each is short."""
    files = {path.stem: path for path in FOLDER.glob("*.py")}
    assert set(files) - {"shop_tools"} == set(SAYS)
    assert all(len(path.read_text().splitlines()) <= 60 for path in files.values())


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path) -> None:
    """The example runs from any folder, leaves nothing behind, and prints what its reader is told."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("GUARDRAILS_", "LLAMA_GUARD_"))}
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    done = subprocess.run(command, check=False, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for line in SAYS[name]:
        assert line in done.stdout
    assert "amy.lin@" not in done.stdout
    assert not list(tmp_path.iterdir())
