"""The command ``scan``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from guardrails_mw.cli.options import PolicyFile, placed, read_policy
from guardrails_mw.cli.output import complain
from guardrails_mw.event import Stage

if TYPE_CHECKING:
    from guardrails_mw.cli.verdict_file import VerdictFile
    from guardrails_mw.policy import Policy
    from guardrails_mw.scan import BadRow, Row, RowVerdict

__all__ = ["scan"]

BAD_ROWS = 3
"""Exit code where rows could not be read."""

_SAID = 100  # bad rows that are told one by one; all of them are in the output
_EVERY = 64  # rows between two movements of the bar
_ORDER = ("allow", "flag", "ask", "block")


class Scannable(StrEnum):
    """The stages whose content is a text."""

    INPUT = "input"
    TOOL_RESULT = "tool_result"
    OUTPUT = "output"


class Failing(StrEnum):
    """From which verdict on a scan fails."""

    FLAG = "flag"
    ASK = "ask"
    BLOCK = "block"


def scan(
    policy: PolicyFile,
    *,
    source: Annotated[Path, typer.Option("--in", help="JSON Lines with id and text; - is standard input.")],
    out: Annotated[Path, typer.Option("--out", help="Where verdicts go, as JSON Lines; - is standard output.")],
    stage: Annotated[Scannable, typer.Option(help="Where in a run the texts would stand.")] = Scannable.INPUT,
    tool: Annotated[str, typer.Option(help="At tool_result, the tool that gave these results.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier scan ended.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again, whatever --out holds.")] = False,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes that decide.")] = 1,
    fail_on: Annotated[
        Failing | None, typer.Option(help="Exit with 1 if a verdict is this or stricter.", show_default=False)
    ] = None,
) -> None:
    """Ask a policy about every text of a file.

    Each row {"id", "text"} gives one row {"id", "action", "findings": [{"gate", "type", "start", "end", "score"}]},
    in the same order; a line that is no such row gives {"error", "line"}. Nothing is recorded, counted or traced.
    Exits with 0 when every row was decided, 1 as --fail-on says, 2 when the scan could not be done, 3 when there were
    bad rows.

    Example: guardrails-mw scan -p policy.yaml --stage tool_result --in texts.jsonl --out verdicts.jsonl
    """
    files = _Files(source, out, resume, overwrite)
    files.check(policy)
    if tool and stage is not Scannable.TOOL_RESULT:
        raise typer.BadParameter("only results have a tool: use --stage tool_result", param_hint="--tool")
    with placed(policy):
        asked = _Asked(read_policy(policy), Stage(stage), tool, jobs)
        asked.build()
    tally = _Tally()
    try:
        _run(asked, files, tally)
    except BrokenPipeError:
        raise  # whoever read the verdicts has seen enough
    except OSError as error:
        _stopped(f"{error.strerror}; what was decided is kept, go on with --resume")
    except BrokenProcessPool:
        _stopped("a process died; what was decided is kept, go on with --resume")
    except KeyboardInterrupt:
        complain("interrupted; what was decided is kept, go on with --resume")
        raise typer.Exit(130) from None
    tally.tell()
    raise typer.Exit(tally.code(fail_on))


@dataclass
class _Tally:
    """What was said about how many rows."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: int = 0
    failed: int = 0

    def known(self, answer: dict[str, object]) -> None:
        """Count an answer of an earlier scan."""
        self.bad += "error" in answer
        self.failed += bool(answer.get("errors"))
        self.counts[str(answer.get("action", ""))] += 1

    def bad_row(self, row: BadRow) -> None:
        """Count a bad row, and say where it is."""
        from guardrails_mw.scan import PROBLEMS

        self.bad += 1
        if self.bad <= _SAID:
            complain(f"line {row.line}: {PROBLEMS[row.code]} ({row.code})")
        elif self.bad == _SAID + 1:
            complain("more bad rows are not told one by one; the output has them all")

    def verdict(self, row: RowVerdict) -> None:
        """Count a verdict."""
        self.counts[row.action.word] += 1
        self.failed += bool(row.errors)

    def tell(self) -> None:
        """Say what there was: always what went wrong, and on a terminal all of it."""
        if self.bad:
            complain(f"{self.bad:,} bad rows")
        if self.failed:
            complain(f"{self.failed:,} rows where a gate could not answer")
        if sys.stderr.isatty():
            complain(", ".join(f"{self.counts[action]:,} {action}" for action in _ORDER))

    def code(self, fail_on: Failing | None) -> int:
        """The exit code."""
        if self.bad:
            return BAD_ROWS
        strict = _ORDER[_ORDER.index(fail_on) :] if fail_on else ()
        return int(any(self.counts[action] for action in strict))


@dataclass(frozen=True)
class _Files:
    """What is read and what is written."""

    source: Path
    out: Path
    resume: bool
    overwrite: bool

    def check(self, policy: Path) -> None:
        """Refuse what cannot be meant, above all to write over what is read. Raises `typer.BadParameter`."""
        from guardrails_mw.cli.verdict_file import written

        if self.resume and self.overwrite:
            raise typer.BadParameter("either goes on or starts again", param_hint="--resume and --overwrite")
        if self.resume and _is_stream(self.out):
            raise typer.BadParameter("standard output cannot be continued", param_hint="--resume")
        if not _is_stream(self.source) and not self.source.is_file():
            raise typer.BadParameter(f"there is no file {self.source}", param_hint="--in")
        for path in [] if _is_stream(self.out) else filter(Path.exists, written(self.out)):
            if policy.exists() and path.samefile(policy):
                raise typer.BadParameter("the verdicts would overwrite the policy", param_hint="--out")
            if self._is_source(path):
                raise typer.BadParameter("the verdicts would overwrite the texts", param_hint="--out")

    def _is_source(self, path: Path) -> bool:
        if not _is_stream(self.source):
            return path.samefile(self.source)
        try:
            return os.path.samestat(path.stat(), os.fstat(0))
        except OSError:
            return False  # there is no standard input

    def reading(self, stack: ExitStack) -> BinaryIO:
        """The texts, open."""
        return typer.get_binary_stream("stdin") if _is_stream(self.source) else stack.enter_context(self._open())

    def _open(self) -> BinaryIO:
        return self.source.open("rb")

    def writing(self, made_with: dict[str, str], stack: ExitStack) -> VerdictFile | None:
        """The file of verdicts, open; None for standard output. Raises `typer.BadParameter`."""
        from guardrails_mw.cli.verdict_file import RefusedError, VerdictFile

        if _is_stream(self.out):
            return None
        try:
            target = VerdictFile(self.out, made_with, resume=self.resume, overwrite=self.overwrite)
        except RefusedError as error:
            raise typer.BadParameter(str(error), param_hint="--out") from None
        except OSError as error:
            raise typer.BadParameter(f"{self.out}: {error.strerror}", param_hint="--out") from None
        stack.callback(target.close)
        return target


def _is_stream(path: Path) -> bool:
    return str(path) == "-"


@dataclass
class _Asked:
    """Who is asked about each row."""

    policy: Policy
    stage: Stage
    tool: str
    jobs: int

    def build(self) -> None:
        """Build the gates before any file is touched. Raises `PolicyError`."""
        from guardrails_mw.scan import offline_guard

        self.guard = offline_guard(self.policy)
        if self.jobs > 1:
            self.guard.close()  # the processes have their own

    @property
    def made_with(self) -> dict[str, str]:
        """What verdicts depend on besides the text."""
        from guardrails_mw import __version__

        return {
            "policy": self.policy.hash,
            "stage": self.stage.value,
            "tool": self.tool,
            "guardrails-mw": __version__,
        }

    def answers(self, rows: Iterable[Row | BadRow]) -> Iterator[RowVerdict | BadRow]:
        """Decide."""
        from guardrails_mw.scan import scan, scan_in_processes

        if self.jobs > 1:
            return scan_in_processes(self.policy, rows, self.stage, self.jobs, tool=self.tool)
        return scan(self.guard, rows, self.stage, tool=self.tool)


def _stopped(why: str) -> None:
    complain(f"the scan stopped: {why}")
    raise typer.Exit(2) from None


def _run(asked: _Asked, files: _Files, tally: _Tally) -> None:
    """Skip what is answered, decide the rest, write it."""
    from guardrails_mw.scan import BadRow, read_rows

    with ExitStack() as stack:
        stack.callback(asked.guard.close)
        file = files.reading(stack)
        target = files.writing(asked.made_with, stack)
        moved = stack.enter_context(_bar(file))
        rows = read_rows(file)
        if target:
            _skip(target, rows, tally)
        add = target.add if target else _printed
        for number, answer in enumerate(asked.answers(rows)):
            add(answer)
            if isinstance(answer, BadRow):
                tally.bad_row(answer)
            else:
                tally.verdict(answer)
            if number % _EVERY == 0:
                moved()
        moved()


def _skip(target: VerdictFile, rows: Iterator[Row | BadRow], tally: _Tally) -> None:
    from guardrails_mw.cli.verdict_file import RefusedError

    try:
        for answer in target.answered(rows):
            tally.known(answer)
    except RefusedError as error:
        raise typer.BadParameter(str(error), param_hint="--resume") from None


def _printed(answer: RowVerdict | BadRow) -> None:
    """Write to standard output, at once: whoever reads may be waiting."""
    from guardrails_mw.cli.verdict_file import line_of

    out = typer.get_binary_stream("stdout")
    out.write(line_of(answer))
    out.flush()


@contextmanager
def _bar(file: BinaryIO) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal's standard error; to be told now and then that the file was read on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), DownloadColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        size = _size(file)
        task = progress.add_task("", total=size)
        yield lambda: progress.update(task, completed=file.tell() if size else None)


def _size(file: BinaryIO) -> int | None:
    """Bytes of a regular file; None for a pipe or a terminal."""
    if not file.seekable():
        return None
    place = file.tell()
    end = file.seek(0, 2)
    file.seek(place)
    return end
