"""Help, errors, and the program as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import ATTACK, POLICY, run

PROGRAM = [sys.executable, "-c", "from guardrails_mw.cli.app import main; main()"]


@pytest.mark.parametrize(
    "command",
    [
        "check",
        "explain",
        "schema",
        "doctor",
        "demo",
        "approvals list",
        "approvals show",
        "approvals approve",
        "approvals reject",
        "runs list",
        "runs show",
    ],
)
def test_every_command_has_an_example(command: str) -> None:
    """The help of every command says how to use it, with an example of itself."""
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: guardrails-mw {command}" in result.stdout


def test_a_wrong_policy_is_one_clear_message(policy: Path) -> None:
    """File, line, field and what is allowed, on standard error, with exit code 2 and no traceback."""
    policy.write_text(POLICY.replace("type: pii", "type: pij"))
    for command in (("check", "x"), ("explain",), ("approvals", "list"), ("runs", "list")):
        result = run(*command, "--policy", policy)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{policy}:6: gates.pii.type: unknown gate type 'pij'; did you mean 'pii'?" in result.stderr
        assert "Traceback" not in result.stderr


def test_what_cannot_be_built_is_placed(policy: Path) -> None:
    """An error that shows only when the policy is put to work names file and line too."""
    policy.write_text(POLICY.replace("{type: pii}", "{type: python, call: 'no_such_module:check'}"))
    for command in (("check", "x"), ("explain",)):
        result = run(*command, "--policy", policy)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"{policy}:6: gates.pii.call: the module no_such_module cannot be found" in result.stderr


def test_a_broken_store_is_one_clear_message(policy: Path) -> None:
    """A file that is no database ends with its reason code."""
    (policy.parent / "g.db").write_bytes(b"this is no database" * 100)
    result = run("runs", "list", "-p", policy)
    assert (result.exit_code, result.stderr) == (2, "guardrails-mw: the store cannot be used: store.corrupt\n")


def test_nothing_is_made_by_looking(policy: Path) -> None:
    """Reading a policy whose agent never ran makes no database, and says that there is none."""
    for command in (("approvals", "list"), ("runs", "list"), ("runs", "show", "r")):
        result = run(*command, "-p", policy)
        assert result.exit_code == 2
        assert "nothing has run with this policy" in result.stderr
    run("doctor", "-p", policy)
    run("explain", "-p", policy)
    run("check", "-p", policy, "hello")
    assert [file.name for file in policy.parent.iterdir()] == ["policy.yaml"]


def test_memory_store(policy: Path) -> None:
    """A store that no other process sees is an error, not an empty list."""
    policy.write_text(POLICY.replace("sqlite:///g.db", "'memory:'"))
    result = run("approvals", "list", "-p", policy)
    assert result.exit_code == 2
    assert "which no other process can see" in result.stderr


def test_process_help() -> None:
    """The program starts, and its help needs neither rich, pydantic nor a framework."""
    code = (
        "import sys\nfrom guardrails_mw.cli.app import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'pydantic', 'langchain_core', 'yaml', 'rich.console', 'presidio_analyzer'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, "approvals" in done.stdout) == (0, True), done.stderr


def test_process_check(policy: Path) -> None:
    """The installed program reads standard input, and its exit code stops a shell script."""
    command = [*PROGRAM, "check", "-p", str(policy)]
    assert subprocess.run(command, input=b"hello", capture_output=True, check=False).returncode == 0
    done = subprocess.run(command, input=ATTACK.encode(), capture_output=True, check=False)
    assert (done.returncode, done.stdout[:5]) == (1, b"block")
    wrong = subprocess.run([*command[:-1], "nowhere.yaml"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert wrong.stderr == b"guardrails-mw: nowhere.yaml: cannot read the file: FileNotFoundError\n"
