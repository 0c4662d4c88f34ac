"""A file of texts is scanned: files, resuming, exit codes."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ATTACK, POLICY, run

from guardrails_mw.cli.verdict_file import RefusedError, VerdictFile, line_of
from guardrails_mw.scan import BadRow, Row, RowVerdict, read_rows
from guardrails_mw.verdict import Action

GOOD = [{"id": "a", "text": "hello"}, {"id": 2, "text": "mail 😀 bob@example.com"}, {"id": "c", "text": ATTACK}]


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.jsonl"
    file.write_text(lines(*GOOD))
    return file


def answers(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_file_is_scanned(policy: Path, texts: Path, tmp_path: Path) -> None:
    """One verdict a row, in order, with the gate, type and place of every finding; the policy's store is not made."""
    out = tmp_path / "verdicts.jsonl"
    result = run("scan", "-p", policy, "--in", texts, "--out", out)
    assert (result.exit_code, result.output) == (0, "")
    first, second, third = answers(out)
    assert first == {"id": "a", "action": "allow", "findings": []}
    found = {"gate": "pii", "type": "EMAIL_ADDRESS", "start": 7, "end": 22, "score": 1.0}
    assert (second["id"], second["action"], second["findings"]) == (2, "allow", [found])
    assert (third["id"], third["action"], third["reason"]) == ("c", "block", "injection:override")
    assert not (tmp_path / "g.db").exists()


def test_streams(policy: Path) -> None:
    """`-` reads standard input and writes standard output."""
    result = run("scan", "-p", policy, "--in", "-", "--out", "-", text=lines(*GOOD))
    assert [json.loads(line)["action"] for line in result.stdout.splitlines()] == ["allow", "allow", "block"]
    assert result.exit_code == 0


def test_the_stage_counts(policy: Path, texts: Path, tmp_path: Path) -> None:
    """At tool_result this policy has no PII gate."""
    out = tmp_path / "verdicts.jsonl"
    assert run("scan", "-p", policy, "--stage", "tool_result", "--in", texts, "--out", out).exit_code == 0
    assert [row["findings"] for row in answers(out)][:2] == [[], []]


def test_bad_rows_are_told_counted_and_kept_in_place(policy: Path, texts: Path, tmp_path: Path) -> None:
    """A line that is no row has its number on standard error, its place in the output, and an exit code of its own."""
    texts.write_bytes(lines(GOOD[0], "", "{oops", {"id": "b"}).encode() + b'{"id": 1, "text": "\xff"}\n')
    out = tmp_path / "verdicts.jsonl"
    result = run("scan", "-p", policy, "--in", texts, "--out", out)
    assert result.exit_code == 3
    assert answers(out)[1:] == [
        {"error": "not_json", "line": 3},
        {"id": "b", "error": "no_text", "line": 4},
        {"error": "not_utf8", "line": 5},
    ]
    for said in ("line 3: the line is not JSON", "line 4: there is no text", "line 5: the line is not UTF-8"):
        assert said in result.stderr
    assert "3 bad rows" in result.stderr
    assert "oops" not in result.stderr


def test_many_bad_rows_do_not_flood_the_terminal(policy: Path, texts: Path, tmp_path: Path) -> None:
    """A hundred are told one by one; the rest are in the output and in the count."""
    texts.write_text("x\n" * 150)
    result = run("scan", "-p", policy, "--in", texts, "--out", tmp_path / "v")
    assert result.stderr.count("not JSON") == 100
    assert "150 bad rows" in result.stderr
    assert len(answers(tmp_path / "v")) == 150


@pytest.mark.parametrize(("fail_on", "code"), [("flag", 1), ("ask", 1), ("block", 1), (None, 0)])
def test_a_scan_can_fail_on_a_verdict(
    policy: Path, texts: Path, tmp_path: Path, fail_on: str | None, code: int
) -> None:
    """`--fail-on` exits with 1 where a verdict is that strict; without bad texts it does not."""
    more = ("--fail-on", fail_on) if fail_on else ()
    assert run("scan", "-p", policy, "--in", texts, "--out", tmp_path / "v", *more).exit_code == code
    texts.write_text(lines(GOOD[0]))
    assert run("scan", "-p", policy, "--in", texts, "--out", tmp_path / "w", *more).exit_code == 0


def test_processes_write_the_same_file(policy: Path, texts: Path, tmp_path: Path) -> None:
    """Two processes give the bytes that one gives."""
    texts.write_text(lines(*GOOD * 60, "bad", *GOOD))
    for name, jobs in (("one", 1), ("two", 2)):
        assert run("scan", "-p", policy, "--in", texts, "--out", tmp_path / name, "--jobs", jobs).exit_code == 3
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_existing_file_is_kept_unless_asked_for(policy: Path, texts: Path, tmp_path: Path) -> None:
    """Without --resume or --overwrite a file that is there is an error and stays as it is."""
    out = tmp_path / "verdicts.jsonl"
    out.write_text("precious\n")
    result = run("scan", "-p", policy, "--in", texts, "--out", out)
    assert (result.exit_code, out.read_text()) == (2, "precious\n")
    assert "--overwrite" in result.stderr
    assert run("scan", "-p", policy, "--in", texts, "--out", out, "--overwrite").exit_code == 0
    assert len(answers(out)) == 3


def test_a_policy_that_cannot_be_used_touches_no_file(policy: Path, texts: Path, tmp_path: Path) -> None:
    """A mistake in the policy ends with 2 before anything is overwritten."""
    out = tmp_path / "verdicts.jsonl"
    out.write_text("precious\n")
    policy.write_text(POLICY.replace("[injection, pii]", "[injektion]"))
    result = run("scan", "-p", policy, "--in", texts, "--out", out, "--overwrite")
    assert (result.exit_code, out.read_text()) == (2, "precious\n")
    assert "did you mean 'injection'" in result.stderr


@pytest.mark.parametrize(
    "more",
    [
        ("--in", "missing.jsonl", "--out", "v"),
        ("--in", "texts.jsonl", "--out", "texts.jsonl"),
        ("--in", "texts.jsonl", "--out", "-", "--resume"),
        ("--in", "texts.jsonl", "--out", "v", "--resume", "--overwrite"),
        ("--in", "texts.jsonl", "--out", "v", "--tool", "web"),
        ("--in", "texts.jsonl", "--out", "v", "--stage", "tool_call"),
        ("--in", "texts.jsonl", "--out", "no/such/folder/v"),
        ("--in", "texts.jsonl", "--out", "."),
    ],
)
def test_what_cannot_be_meant_is_refused(
    policy: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Usage errors end with 2, and the texts are as they were."""
    monkeypatch.chdir(texts.parent)
    assert run("scan", "-p", policy, *more).exit_code == 2
    assert texts.read_text() == lines(*GOOD)


def test_a_torn_scan_goes_on(policy: Path, texts: Path, tmp_path: Path) -> None:
    """Wherever a scan was cut off, going on gives the file that a whole scan gives, and the same exit code."""
    texts.write_text(lines(GOOD[0], "bad", *GOOD[1:]))
    out = tmp_path / "verdicts.jsonl"
    options = ("scan", "-p", policy, "--in", texts, "--out", out, "--fail-on", "block")
    assert run(*options, "--resume").exit_code == 3  # nothing to go on with: an ordinary scan
    whole = out.read_bytes()
    for cut in (0, 1, len(whole) - 1, len(whole), *random.Random(1).sample(range(len(whole)), 3)):
        out.write_bytes(whole[:cut])
        result = run(*options, "--resume")
        assert (result.exit_code, out.read_bytes()) == (3, whole), cut


ROWS: list[Row | BadRow] = [Row("a", "x", 1), BadRow(2, "no_text", "b"), Row(3, "y", 4), BadRow(5, "not_json")]
WITH = {"policy": "p", "stage": "input"}


def written(path: Path) -> bytes:
    file = VerdictFile(path, WITH)
    for row in ROWS:
        file.add(row if isinstance(row, BadRow) else RowVerdict(row.id, Action.FLAG))
    file.close()
    return path.read_bytes()


def test_every_cut_is_a_place_to_go_on_from(tmp_path: Path) -> None:
    """At each byte: the complete answers are taken over, their rows skipped, and the torn rest is cut off."""
    path = tmp_path / "v"
    whole = written(path)
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        rows = iter(ROWS)
        file = VerdictFile(path, WITH, resume=True)
        known = list(file.answered(rows))
        assert len(known) == whole[:cut].count(b"\n")
        assert list(rows) == ROWS[len(known) :]
        file.close()
        assert path.read_bytes() == whole[: whole[:cut].rfind(b"\n") + 1]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([Row("z", "x", 1), *ROWS[1:]], "line 1 of the input"),
        ([*ROWS[:2], Row("3", "y", 4), ROWS[3]], "line 4 of the input"),
        ([*ROWS[:3], BadRow(6, "not_json")], "line 6 of the input"),
        ([Row("a", "x", 1), Row("b", "now it has one", 2), *ROWS[2:]], "line 2 of the input"),
        (ROWS[:2], "fewer rows"),
    ],
)
def test_another_input_is_refused(tmp_path: Path, rows: list[Row | BadRow], why: str) -> None:
    """Answers that are not those of the input's rows are never gone on with, and are left as they are."""
    whole = written(tmp_path / "v")
    file = VerdictFile(tmp_path / "v", WITH, resume=True)
    with pytest.raises(RefusedError, match=why):
        list(file.answered(iter(rows)))
    file.close()
    assert (tmp_path / "v").read_bytes() == whole


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A line that is no verdict, and a file that nobody knows the origin of, are not gone on with."""
    path = tmp_path / "v"
    path.write_bytes(written(path) + b"{}\n")
    file = VerdictFile(path, WITH, resume=True)
    with pytest.raises(RefusedError, match="line 5: not a verdict"):
        list(file.answered(iter([*ROWS, Row("e", "z", 6)])))
    file.close()
    (tmp_path / "v.scan").write_text("[]")
    with pytest.raises(RefusedError, match="missing or damaged"):
        VerdictFile(path, WITH, resume=True)
    (tmp_path / "v.scan").unlink()
    with pytest.raises(RefusedError, match="missing or damaged"):
        VerdictFile(path, WITH, resume=True)


def test_another_policy_or_stage_is_refused(policy: Path, texts: Path, tmp_path: Path) -> None:
    """Half of one policy's verdicts and half of another's would be worth nothing."""
    out = tmp_path / "verdicts.jsonl"
    options = ("scan", "-p", policy, "--in", texts, "--out", out)
    assert run(*options).exit_code == 0
    assert "another stage" in run(*options, "--resume", "--stage", "tool_result").stderr
    policy.write_text(POLICY + "mode: shadow\n")
    result = run(*options, "--resume")
    assert result.exit_code == 2
    assert "another policy" in result.stderr


def test_a_scan_that_is_interrupted_keeps_what_was_decided(policy: Path, texts: Path, tmp_path: Path) -> None:
    """A signal while more texts are awaited ends with 130; what was decided is in the file and can be gone on with."""
    out = tmp_path / "verdicts.jsonl"
    script = Path(sys.executable).parent / "guardrails-mw"
    command = [script, "scan", "-p", policy, "--in", "-", "--out", out]
    heeding = signal.signal(signal.SIGINT, signal.default_int_handler)  # the background ignores it
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, heeding)
    with process:
        assert process.stdin is not None
        process.stdin.write(lines(*GOOD[:2], "bad").encode())
        process.stdin.flush()
        assert process.stderr is not None
        assert b"line 3" in process.stderr.readline()  # it is at work
        process.send_signal(2)
        assert process.wait(60) == 130
        assert b"--resume" in process.stderr.read()
    assert len(answers(out)) == 3
    texts.write_text(lines(*GOOD[:2], "bad", GOOD[2]))
    assert run("scan", "-p", policy, "--in", texts, "--out", out, "--resume").exit_code == 3
    assert [row.get("action", "-") for row in answers(out)] == ["allow", "allow", "-", "block"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_gets_a_bar_and_a_summary(policy: Path, texts: Path, tmp_path: Path) -> None:
    """On a terminal there is a bar and a line of counts; a pipe gets neither, as the other tests see."""
    ours, theirs = os.openpty()
    script = Path(sys.executable).parent / "guardrails-mw"
    command = [script, "scan", "-p", policy, "--in", texts, "--out", tmp_path / "v"]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            said += piece
        os.close(ours)
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert b"2 allow, 0 flag, 0 ask, 1 block" in said
    assert b"\x1b[" in said


def test_ids_and_errors_in_the_output_are_plain_json() -> None:
    """A hostile id cannot write to the terminal of whoever looks at the file, nor break its lines."""
    line = line_of(RowVerdict("\x1b[31m\n\u202e", Action.ALLOW))
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line
    (back,) = read_rows(io.BytesIO(line.replace(b'"action"', b'"text"')))
    assert back.id == "\x1b[31m\n\u202e"
