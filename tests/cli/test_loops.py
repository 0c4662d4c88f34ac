"""The command ``loops``: recorded traffic, judged line by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run

SAME = {"tool": "look", "args": {"q": "x"}, "result": "same", "ok": True}
BATCH = [{"tool": "send", "args": {"to": n}, "result": "ok", "ok": True} for n in range(40)]


def verdicts(folder: Path, *lines: object, options: tuple[object, ...] = ()) -> tuple[int, list[object], str]:
    """Exit code, verdicts and output for a file of these lines."""
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    result = run("loops", "--in", source, "--out", out, *options)
    return result.exit_code, [json.loads(line) for line in out.read_text().splitlines()], result.output


def test_verdicts(tmp_path: Path) -> None:
    """Each sequence has one verdict, in order, with the step that completes its loop."""
    code, said, output = verdicts(
        tmp_path,
        {"id": "a", "steps": [SAME] * 9},
        "",
        {"id": 2, "label": "x", "steps": BATCH},
        {"id": "c", "steps": []},
    )
    assert said == [
        {"id": "a", "loop": True, "kind": "repeat", "step": 5},
        {"id": 2, "loop": False, "kind": None, "step": None},
        {"id": "c", "loop": False, "kind": None, "step": None},
    ]
    assert code == 0
    assert "3 sequences, 1 with a loop" in output


@pytest.mark.parametrize(
    ("line", "because"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([1], "not an object with an id"),
        ({"steps": []}, "not an object with an id"),
        ({"id": 1}, "steps is not a list"),
        ({"id": 1, "steps": [SAME, {"args": {}}]}, "step 2 has no tool"),
        ({"id": 1, "steps": [{"tool": "t", "args": [1]}]}, "step 1: args is an object"),
        ({"id": 1, "steps": [{"tool": "t", "ok": "secret-value"}]}, "step 1: args is an object, ok is true or false"),
    ],
)
def test_lines_that_cannot_be_read(tmp_path: Path, line: object, because: str) -> None:
    """A bad line is named by number and reason, never by content; the others are judged, and the exit code is 1."""
    code, said, output = verdicts(tmp_path, {"id": "a", "steps": [SAME]}, line, {"id": "c", "steps": [SAME] * 5})
    assert [row["id"] for row in said] == ["a", "c"]
    assert code == 1
    assert f"line 2: {because}" in output
    assert "1 lines that cannot be read" in output
    assert "secret-value" not in output


def test_by_a_policy(tmp_path: Path) -> None:
    """A policy's limits, and what it says of tools, are those of the agent."""
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nloops: {repeats: 3}\ntools: {status: {polls: true}, find: {key: [q]}}\n")
    polls = [{**SAME, "tool": "status"}] * 40
    pages = [{**SAME, "tool": "find", "args": {"q": "x", "page": n}} for n in range(5)]
    rows = [{"id": 1, "steps": [SAME] * 9}, {"id": 2, "steps": polls}, {"id": 3, "steps": pages}]
    code, said, _ = verdicts(tmp_path, *rows, options=("--policy", policy))
    assert code == 0
    assert [row["step"] for row in said] == [3, None, 3]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """No input, an output that is the input, and a bad policy end with 2 and a message."""
    missing = run("loops", "--in", tmp_path / "none.jsonl", "--out", tmp_path / "out.jsonl")
    assert (missing.exit_code, "No such file" in missing.output) == (2, True)
    source = tmp_path / "in.jsonl"
    source.write_text("")
    assert run("loops", "--in", source, "--out", source).exit_code == 2
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nloops: {repeats: 1}\n")
    bad = run("loops", "--in", source, "--out", tmp_path / "out.jsonl", "--policy", policy)
    assert bad.exit_code == 2
    assert "loops.repeats" in bad.output
