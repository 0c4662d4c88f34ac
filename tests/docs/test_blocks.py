"""What the documentation shows is executed: Python, policies, commands, links.

A comment before a block says what to do with it:

``<!-- file: NAME -->``         write it to this file, for the blocks below it
``<!-- standalone -->``         run it in a namespace of its own
``<!-- run -->``                run its ``guardrails-mw`` commands; ``run: 1`` expects that exit code
``<!-- let NAME = EXPR -->``    before a command is run, replace NAME by a value from the Python blocks above
``<!-- not run: WHY -->``       leave it alone; there may be few of these
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from benchmarks import __main__ as report
from benchmarks import detection
from guardrails_mw import Guard
from guardrails_mw.document import Document
from guardrails_mw.policy import Policy

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MOST_SKIPPED = 3

_FENCE = re.compile(r"^(?:```)(\w*)\s*$")
_COMMENT = re.compile(r"^<!-- (.*?) -->$")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, first line, text and the comments directly above it."""

    language: str
    line: int
    text: str
    marks: Mapping[str, str] = field(default_factory=dict)


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a Markdown file."""
    marks: dict[str, str] = {}
    language, start, inside = "", 0, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if not start:
            if comment := _COMMENT.match(line):
                word, _, rest = comment[1].partition(" " if comment[1].startswith("let ") else ":")
                marks[word.strip()] = rest.strip()
            elif fence:
                language, start, inside = fence[1], number + 1, []
            elif line.strip():
                marks = {}
        elif fence:
            yield Block(language, start, "\n".join(inside) + "\n", marks)
            start, marks = 0, {}
        else:
            inside.append(line)
    assert not start, f"{path.name}:{start}: a block is not closed"


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder whose modules can be imported, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close every guard that a block opens: documents do not tidy up after each line."""
    opened: list[Guard] = []
    original = Guard.__init__

    def noting(self: Guard, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)
        opened.append(self)

    monkeypatch.setattr(Guard, "__init__", noting)
    yield
    for guard in opened:
        guard.close()


@pytest.mark.parametrize("path", FILES, ids=shown)
@pytest.mark.usefixtures("closing")
def test_every_block_does_what_it_shows(path: Path, folder: Path) -> None:
    """The blocks of a file run in order, in one namespace, and none of them fails."""
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(path):
        if "not run" in block.marks:
            continue
        if name := block.marks.get("file"):
            (folder / name).write_text(block.text, encoding="utf-8")
        if block.language == "python" and not name:
            source = "\n" * (block.line - 1) + block.text
            scope = {"__name__": "docs"} if "standalone" in block.marks else names
            exec(compile(source, shown(path), "exec", dont_inherit=True), scope)
        elif block.language == "yaml":
            load(block, f"{shown(path)}:{block.line}", folder)
        elif block.language == "console" and "run" in block.marks:
            commands(block, names, folder)


def load(block: Block, place: str, folder: Path) -> None:
    """Load a policy, or a piece of one within the least policy that it fits."""
    data = yaml.safe_load(block.text)
    text = block.text if "version" in data else yaml.safe_dump(completed(data))
    Policy.load(Document(text, place, env={**os.environ, "PHOENIX_KEY": "k"}), base=folder)


STANDARD = {
    "injection": {"type": "injection"},
    "pii": {"type": "pii"},
    "secrets": {"type": "secrets"},
}


def completed(piece: dict[str, object]) -> dict[str, object]:
    """A policy around a piece of one: gates that it names, and a stage for gates that it defines."""
    policy: dict[str, object] = {"version": 1, **piece}
    gates = dict(policy.get("gates") or {})
    stages = dict(policy.get("stages") or {})
    named = [name for plan in stages.values() for name in (plan["gates"] if isinstance(plan, dict) else plan)]
    record = policy.get("record") or {}
    for name in [*named, *record.get("redact", ())]:
        if name not in gates:
            gates[name] = STANDARD[name]
    unused = [name for name in gates if name not in named and name not in record.get("redact", ())]
    if unused:
        stages["output"] = [*stages.get("output", []), *unused]
    if (policy.get("budgets") or {}).get("run", {}).get("usd"):
        policy.setdefault("prices", {"*": {"input": "1", "output": "1"}})
    if not (stages or {"tools", "tiers", "default_tool", "budgets", "loops"} & set(policy)):
        policy["default_tool"] = "block"
    return {**policy, **({"gates": gates} if gates else {}), **({"stages": stages} if stages else {})}


def commands(block: Block, names: Mapping[str, object], folder: Path) -> None:
    """Run the ``guardrails-mw`` lines of a block and hold their exit codes against what is said."""
    script = Path(sys.executable).parent / "guardrails-mw"
    for line in block.text.splitlines():
        if not line.startswith("$ guardrails-mw "):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if "let" in block.marks:
            name, _, expression = block.marks["let"].partition(" = ")
            value = str(eval(expression, dict(names)))
            words = [value if word == name else word for word in words]
        result = subprocess.run([script, *words[1:]], cwd=folder, capture_output=True, text=True, check=False)
        expected = int(block.marks["run"] or 0)
        assert result.returncode == expected, f"{line}: exit {result.returncode}\n{result.stdout}{result.stderr}"


def test_few_blocks_are_not_run() -> None:
    """A block that is not executed says why, and there are few."""
    skipped = [(shown(path), block) for path in FILES for block in blocks(path) if "not run" in block.marks]
    assert all(block.marks["not run"] for _, block in skipped)
    assert len(skipped) <= MOST_SKIPPED, [f"{name}:{block.line}" for name, block in skipped]


def test_something_is_run() -> None:
    """The reader of blocks finds the blocks: the README has one for every seam."""
    python = [block.text for block in blocks(ROOT / "README.md") if block.language == "python"]
    for call in ("callbacks(", "model(", "middleware(", "input_node(", "tool_node(", "approval_node(", "runnable("):
        assert any(f"guard.{call}" in text for text in python), call


def anchors(path: Path) -> set[str]:
    """The anchors of a Markdown file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*FILES, ROOT / "CHANGELOG.md"], ids=shown)
def test_links_lead_somewhere(path: Path) -> None:
    """Every link to a file or heading of this repository has a target."""
    text = path.read_text(encoding="utf-8")
    for block in blocks(path):
        text = text.replace(block.text, "")
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{shown(path)}: {link}"
        assert not anchor or anchor in anchors(target), f"{shown(path)}: {link}"


@pytest.mark.parametrize("path", [*FILES, ROOT / "CHANGELOG.md"], ids=shown)
def test_files_that_are_named_exist(path: Path) -> None:
    """A path of this repository in the text, such as the test that holds a law, is there."""
    named = re.findall(
        r"\b((?:tests|guardrails_mw|benchmarks|configs|examples)/[\w./-]+\.\w+)", path.read_text("utf-8")
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_figures_that_are_quoted_are_printed_by_a_command() -> None:
    """Every table of figures has a name that a benchmark prints, is not empty, and ends."""
    names = {*detection.TABLES, *(f"time of {name}" for name in report.TABLES)}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"<!-- figures: ([\w ]+) -->\n(.*?)<!-- figures:end -->", text, re.DOTALL)
        assert len(found) == text.count("<!-- figures: "), shown(path)
        for name, table in found:
            assert name in names, f"{shown(path)}: {name}"
            assert "\n| --- |" in table, f"{shown(path)}: {name}"


def test_commands_that_are_named_exist() -> None:
    """Every subcommand that the documents name is one, in text and in blocks."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    script = Path(sys.executable).parent / "guardrails-mw"
    named = set(re.findall(r"guardrails-mw ((?:approvals |runs )?[a-z]+)\b", text)) | {"demo"}
    assert len(named) > 5
    for name in sorted(named):
        result = subprocess.run([script, *name.split(), "--help"], capture_output=True, text=True, check=False)
        assert result.returncode == 0, name
