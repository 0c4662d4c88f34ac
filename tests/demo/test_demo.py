"""The demo, run the way a user runs it: in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "guardrails_mw" / "demo" / "conversations.jsonl"
KEYS = ("OPENAI_", "LANGFUSE_", "OTEL_", "LLAMA_GUARD_", "GUARDRAILS_")


def _demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(KEYS)}
    code = "from guardrails_mw.cli.app import main; main()"
    command = [sys.executable, "-c", code, "demo", *arguments]
    return subprocess.run(
        command, check=False, env=env | {"COLUMNS": "100"}, capture_output=True, text=True, timeout=240
    )


def test_every_shipped_conversation_ends_as_expected(tmp_path: Path) -> None:
    """All conversations are played, each ends as the file says, and the record lies where the demo says."""
    done = _demo("--folder", str(tmp_path / "out"))
    total = len(SHIPPED.read_text(encoding="utf-8").splitlines())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{total} of {total} ended as expected" in done.stdout
    assert (tmp_path / "out" / "guardrails.db").stat().st_size > 0


def test_nothing_that_was_hidden_is_on_record(tmp_path: Path) -> None:
    """Card number, mail address and the leaked key are in no byte of the record."""
    done = _demo("pii-in", "pii-out", "secret-in-note", "--folder", str(tmp_path / "out"))
    assert done.returncode == 0, done.stdout
    raw = b"".join(path.read_bytes() for path in (tmp_path / "out").glob("guardrails.db*"))
    assert b"[CREDIT_CARD]" in raw
    for hidden in (b"4111 1111", b"priya.nair@", b"d.okafor@", b"sk_live_"):
        assert hidden not in raw


BREAKS = {
    "end": {"end": "refused"},
    "reasons": {"end": "answered", "reasons": ["injection:override"]},
    "ran": {"end": "answered", "ran": ["refund"]},
    "not_in_output": {"end": "answered", "ran": ["search_articles"], "not_in_output": ["24 months"]},
    "in_output": {"end": "answered", "ran": ["search_articles"], "in_output": ["36 months"]},
    "not_seen": {"end": "answered", "ran": ["search_articles"], "not_seen": ["my grinder"]},
    "not_ran": {"end": "answered", "ran": ["search_articles"], "not_ran": ["search_articles"]},
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_expectation_is_seen(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo can fail: every kind of expectation, set wrong, ends with status 1."""
    from rich.console import Console

    from guardrails_mw.demo.run import run

    for key in list(os.environ):
        if key.startswith(KEYS):
            monkeypatch.delenv(key)
    lines = [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]
    warranty = next(line for line in lines if line["id"] == "warranty")
    warranty["turns"] = ["is my grinder under warranty?"]
    file = tmp_path / "wrong.jsonl"
    file.write_text(json.dumps({**warranty, "expect": {"end": "answered", "ran": ["search_articles"]}}))
    assert run(tmp_path / "right", file, console=Console(quiet=True)) == 0
    file.write_text(json.dumps({**warranty, "expect": BREAKS[name]}))
    assert run(tmp_path / "broken", file, console=Console(quiet=True)) == 1


def test_a_broken_expectation_ends_the_program_with_one(tmp_path: Path) -> None:
    """What the command says about a conversation that went wrong, and its exit status."""
    line = {"id": "x", "title": "X", "turns": ["hello"], "script": [{"say": "hi"}], "expect": {"end": "refused"}}
    (tmp_path / "x.jsonl").write_text(json.dumps(line))
    done = _demo("--conversations", str(tmp_path / "x.jsonl"), "--folder", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "end: expected refused, got answered" in done.stdout


def test_with_a_model_of_ones_own_only_safety_is_enforced(tmp_path: Path) -> None:
    """What depends on the script is reported and forgiven; what must not reach the user is not."""
    from rich.console import Console

    from guardrails_mw.demo.conversations import Reply
    from guardrails_mw.demo.run import run
    from guardrails_mw.demo.server import ModelServer

    with ModelServer({"": [Reply(say="No idea."), Reply(say="Was it 4111?")]}) as model:
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "none", "OPENAI_MODEL": "my-model"}
        console = Console(record=True, file=io.StringIO(), width=100)
        assert run(tmp_path / "a", only=["warranty"], console=console, env=env) == 0
        assert "tools: expected search_articles, got nothing" in console.export_text()
        assert run(tmp_path / "b", only=["pii-in"], console=console, env=env) == 1
        assert "reached the user: 4111" in console.export_text()


@pytest.mark.parametrize("content", ["{}", "not json", '{"id": "a", "tittle": "typo"}'])
def test_a_file_that_is_wrong_is_named_with_its_line(content: str, tmp_path: Path) -> None:
    """A file of conversations that cannot be used says where it is wrong."""
    from guardrails_mw.demo.conversations import load

    (tmp_path / "c.jsonl").write_text("\n" + content)
    with pytest.raises(ValueError, match=r"c\.jsonl:2: "):
        load(tmp_path / "c.jsonl", {})


def test_an_unknown_conversation_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """A misspelt id plays nothing and says what there is."""
    from rich.console import Console

    from guardrails_mw.demo.run import run

    console = Console(record=True, file=io.StringIO(), width=100)
    assert run(tmp_path / "out", only=["waranty"], console=console) == 2
    assert "warranty" in console.export_text()


def test_an_earlier_demo_is_not_overwritten(tmp_path: Path) -> None:
    """A folder with a shop in it is refused and left alone."""
    from rich.console import Console

    from guardrails_mw.demo.run import run

    (tmp_path / "shop.db").write_text("mine")
    assert run(tmp_path, console=Console(quiet=True)) == 2
    assert (tmp_path / "shop.db").read_text() == "mine"


def test_the_wheel_holds_what_the_demo_reads() -> None:
    """Every file that a checkout has under configs is put where an installed demo looks for it."""
    from guardrails_mw.demo import run as module

    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    included = build["force-include"]
    for name in (*module._POLICIES.values(), *module._SCHEMAS):
        source = module.resource(name)
        assert source == ROOT / "configs" / name
        top = name.partition("/")[0]
        assert included[f"configs/{top}"] == f"guardrails_mw/demo/{top}"


def test_traces_are_added_where_the_environment_names_a_receiver(tmp_path: Path) -> None:
    """The demo's copy of the policy sends traces to what the usual variables name, and loads."""
    import shutil

    from guardrails_mw.demo.run import _add_traces
    from guardrails_mw.policy import Policy

    shutil.copytree(ROOT / "configs", tmp_path / "c")
    policy = tmp_path / "c" / "support-agent.yaml"
    _add_traces(policy, {})
    assert not Policy.read(policy, env={}).traces.otlp
    langfuse = {"LANGFUSE_PUBLIC_KEY": "a", "LANGFUSE_SECRET_KEY": "b"}
    _add_traces(policy, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:6006/", **langfuse})
    traces = Policy.read(policy, env={}).traces
    assert traces.langfuse
    assert [item.endpoint for item in traces.otlp] == ["http://localhost:6006/v1/traces"]
