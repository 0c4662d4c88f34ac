"""Deciding many stored texts by a policy: rows in, verdicts out, in constant memory.

Each row is decided as `Guard.decide` would decide it at that stage, and nothing else happens: no record, no
trace, no vault. Gates that remember (loops, budgets) are left out, because rows are not one another's past.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from guardrails_mw.event import Content, Event, Json, Origin, Stage, ToolCall
from guardrails_mw.guard import Guard
from guardrails_mw.verdict import Action, Decision

if TYPE_CHECKING:
    from guardrails_mw.policy import Policy

__all__ = [
    "LONGEST", "PROBLEMS", "STAGES", "BadRow", "GateFinding", "Row", "RowVerdict", "offline_guard", "read_rows", "scan",
    "scan_in_processes",
]  # fmt: skip

LONGEST = 16 * 1024 * 1024
"""Bytes of a line above which it is not read."""

STAGES = (Stage.INPUT, Stage.TOOL_RESULT, Stage.OUTPUT)
"""The stages whose content is a text."""

PROBLEMS: Mapping[str, str] = {
    "too_long": f"the line is longer than {LONGEST:,} bytes",
    "not_utf8": "the line is not UTF-8",
    "not_json": "the line is not JSON",
    "duplicate_key": "a key appears twice",
    "not_an_object": "the line is not a JSON object",
    "no_id": "there is no id",
    "bad_id": "the id is neither a text nor an integer",
    "no_text": "there is no text",
    "bad_text": "the text is not a string",
}
"""What can be wrong with a row, by code."""

_ORIGINS = {Stage.INPUT: Origin.USER, Stage.TOOL_RESULT: Origin.TOOL, Stage.OUTPUT: Origin.MODEL}
_CHUNK_ROWS, _CHUNK_TEXT = 64, 262_144  # what a process is sent at once, in rows and characters
_AHEAD = 3  # chunks per process that are under way: enough to keep all busy, few enough to keep memory small


class Row(NamedTuple):
    """A text to decide. `line` is its place in a file, 1-based; 0 where there is none."""

    id: str | int
    text: str
    line: int = 0


class BadRow(NamedTuple):
    """A line that is no row: its number, what is wrong (a key of `PROBLEMS`), and its id if that could be read."""

    line: int
    code: str
    id: str | int | None = None


class GateFinding(NamedTuple):
    """What a gate found: ``[start, end)`` in code points of the row's text."""

    gate: str
    type: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """What the policy says about a row.

    Attributes:
        id: the row's.
        action: the verdict, also in shadow mode, where an agent would go on.
        findings: of every gate that was asked, by place.
        reason: ``gate:code`` of the gate that speaks for the verdict; empty where none had anything to say.
        errors: ``gate:code`` of every gate that could not answer; `action` then holds its `on_error`.
    """

    id: str | int
    action: Action
    findings: tuple[GateFinding, ...] = ()
    reason: str = ""
    errors: tuple[str, ...] = ()

    def plain(self) -> dict[str, object]:
        """The verdict as JSON has it; `reason` and `errors` only where there are any."""
        row: dict[str, object] = {
            "id": self.id,
            "action": self.action.word,
            "findings": [finding._asdict() for finding in self.findings],
        }
        if self.reason:
            row["reason"] = self.reason
        if self.errors:
            row["errors"] = list(self.errors)
        return row


class _BadLineError(Exception):
    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


def read_rows(file: BinaryIO, longest: int = LONGEST) -> Iterator[Row | BadRow]:
    r"""The rows of a JSON Lines file, one line at a time; blank lines are no rows.

    Other keys than ``id`` and ``text`` are ignored. A byte order mark at the beginning is, too.

    >>> import io
    >>> list(read_rows(io.BytesIO(b'{"id": 1, "text": "hi"}\n\n{"id": 2}\n')))
    [Row(id=1, text='hi', line=1), BadRow(line=3, code='no_text', id=2)]
    """
    number = 0
    while raw := file.readline(longest + 1):
        number += 1
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if len(raw) > longest and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(longest)
            yield BadRow(number, "too_long")
        elif not raw.isspace() and raw:
            yield _row(raw, number)


def _row(raw: bytes, number: int) -> Row | BadRow:
    try:
        value = _parsed(raw)
    except _BadLineError as error:
        return BadRow(number, error.code)
    known, text = value.get("id"), value.get("text")
    if not isinstance(known, str | int) or isinstance(known, bool):
        return BadRow(number, "bad_id" if "id" in value else "no_id")
    if not isinstance(text, str):
        return BadRow(number, "bad_text" if "text" in value else "no_text", known)
    return Row(known, text, number)


def _parsed(raw: bytes) -> dict[str, Json]:
    try:
        value: object = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refused)
    except UnicodeDecodeError:
        raise _BadLineError("not_utf8") from None
    except (ValueError, RecursionError):
        raise _BadLineError("not_json") from None
    if not isinstance(value, dict):
        raise _BadLineError("not_an_object")
    return value


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _BadLineError("duplicate_key")
    return found


def _refused(constant: str) -> Json:
    raise ValueError(constant)  # NaN and infinities are not JSON


def scan(
    guard: Guard, rows: Iterable[Row | BadRow], stage: Stage | str = Stage.INPUT, *, tool: str = ""
) -> Iterator[RowVerdict | BadRow]:
    r"""Decide rows one after the other; rows that could not be read come back as they are, in their place.

    The guard's store, ledger and traces stay untouched.

    Args:
        guard: a guard, or `offline_guard`.
        rows: texts with ids, such as from `read_rows`.
        stage: ``input``, ``tool_result`` or ``output``.
        tool: at ``tool_result``, the tool that gave these results, for what the policy says about it.

    Raises:
        ValueError: another stage, or a tool where there is none.

    >>> from guardrails_mw.document import Document
    >>> from guardrails_mw.policy import Policy
    >>> source = "version: 1\ngates: {secrets: {type: secrets, action: block}}\nstages: {output: [secrets]}"
    >>> rows = [Row("a", "hello"), Row("b", "password: Tr0ub4dor&3x")]
    >>> [(each.id, str(each.action)) for each in scan(offline_guard(Policy.load(Document(source))), rows, "output")]
    [('a', 'allow'), ('b', 'block')]
    """
    stage = _checked(stage, tool)
    call = ToolCall(tool) if stage is Stage.TOOL_RESULT else None

    def decided() -> Iterator[RowVerdict | BadRow]:
        for row in rows:
            if isinstance(row, BadRow):
                yield row
            else:
                event = Event(stage, Content(row.text), _ORIGINS[stage], call=call)
                yield _verdict(row.id, guard.engine.judge(event))

    return decided()


def _checked(stage: Stage | str, tool: str) -> Stage:
    if stage not in STAGES:
        raise ValueError(f"no text stands at {stage}; allowed: {', '.join(STAGES)}")
    if tool and stage != Stage.TOOL_RESULT:
        raise ValueError("only results have a tool: use the stage tool_result")
    return Stage(stage)


def _verdict(known: str | int, decision: Decision) -> RowVerdict:
    verdict = decision.verdict
    found = (
        GateFinding(check.gate, each.type, each.start, each.end, each.score)
        for check in decision.checks
        for each in check.verdict.findings
    )
    return RowVerdict(
        id=known,
        action=verdict.action,
        findings=tuple(sorted(found, key=lambda each: (each.start, each.end, each.gate, each.type))),
        reason=f"{decision.gate}:{verdict.reason}" if verdict.reason else "",
        errors=tuple(f"{check.gate}:{check.error}" for check in decision.checks if check.error),
    )


def offline_guard(policy: Policy) -> Guard:
    """A guard by this policy that neither opens its store nor sends traces.

    Raises:
        PolicyError: something in the policy cannot be built.
    """
    from guardrails_mw.sections import TracesPolicy
    from guardrails_mw.stores.memory import MemoryStore

    return Guard(policy.model_copy(update={"traces": TracesPolicy()}), store=MemoryStore())


class _Work:
    """What a process of `scan_in_processes` holds."""

    guard: Guard
    stage: Stage
    tool: str


def _begin(policy: Policy, stage: Stage, tool: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that writes the verdicts decides when to end
    _Work.guard, _Work.stage, _Work.tool = offline_guard(policy), stage, tool


def _decide(chunk: list[Row | BadRow]) -> list[RowVerdict | BadRow]:
    return list(scan(_Work.guard, chunk, _Work.stage, tool=_Work.tool))


def scan_in_processes(
    policy: Policy, rows: Iterable[Row | BadRow], stage: Stage | str, jobs: int, *, tool: str = ""
) -> Iterator[RowVerdict | BadRow]:
    """`scan` by several processes, each with an `offline_guard`; verdicts come in the order of the rows.

    Raises:
        BrokenProcessPool: a process died.
        ValueError: as `scan`.
    """
    stage = _checked(stage, tool)

    def decided() -> Iterator[RowVerdict | BadRow]:
        context = multiprocessing.get_context("spawn")  # guards have threads, and threads do not survive a fork
        pool = ProcessPoolExecutor(jobs, context, _begin, (policy, stage, tool))
        ahead: deque[Future[list[RowVerdict | BadRow]]] = deque()
        try:
            for chunk in _chunks(rows):
                ahead.append(pool.submit(_decide, chunk))
                if len(ahead) >= jobs * _AHEAD:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    return decided()


def _chunks(rows: Iterable[Row | BadRow]) -> Iterator[list[Row | BadRow]]:
    chunk: list[Row | BadRow] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += len(row.text) if isinstance(row, Row) else 0
        if len(chunk) >= _CHUNK_ROWS or size >= _CHUNK_TEXT:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
