"""The file that a scan writes, and how a scan goes on where another ended.

Beside the verdicts, in ``NAME.scan``, stands what they were made with. A scan goes on only with the same, and
only while the ids that are there are those of the input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from guardrails_mw.scan import BadRow, Row, RowVerdict

__all__ = ["RefusedError", "VerdictFile", "line_of", "written"]


class RefusedError(Exception):
    """The file cannot be written or continued; says why."""


def written(path: Path) -> tuple[Path, Path, Path]:
    """Every file that a scan writes to: the verdicts, the note about them, and the note before it is whole."""
    return path, Path(f"{path}.scan"), Path(f"{path}.scan.new")


def line_of(answer: RowVerdict | BadRow) -> bytes:
    """A verdict, or a bad row, as a line of JSON."""
    return json.dumps(_plain(answer), separators=(",", ":")).encode() + b"\n"


def _plain(answer: RowVerdict | BadRow) -> dict[str, object]:
    if isinstance(answer, RowVerdict):
        return answer.plain()
    known = {} if answer.id is None else {"id": answer.id}
    return {**known, "error": answer.code, "line": answer.line}


class VerdictFile:
    """Opens the file of a scan.

    Args:
        path: where to.
        made_with: what the verdicts depend on: policy, stage and so on.
        resume: go on after what is there, if anything is.
        overwrite: start again, whatever is there.

    Raises:
        RefusedError: there is such a file already, or it was made with something else.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, made_with: dict[str, str], *, resume: bool = False, overwrite: bool = False) -> None:
        self._path, self._note, fresh = written(path)
        exists = path.exists()
        if exists and not path.is_file():
            raise RefusedError(f"{path} is not an ordinary file; - is standard output")
        self._continues = resume and exists
        if self._continues:
            self._compare(made_with)
        elif exists and not overwrite:
            raise RefusedError(f"{path} exists; use --resume to go on with it or --overwrite to start again")
        elif not overwrite and self._note.exists() and not self._known():
            raise RefusedError(f"{self._note} exists and is no note of a scan; use another name or --overwrite")
        self.file: BinaryIO = path.open("r+b" if self._continues else "wb" if overwrite else "xb")
        if not self._continues:
            fresh.write_text(json.dumps(made_with, indent=2) + "\n", encoding="utf-8")
            os.replace(fresh, self._note)

    def _compare(self, made_with: dict[str, str]) -> None:
        known = self._known()
        if known is None:
            raise RefusedError(f"{self._note} is missing or damaged, so nobody knows what the verdicts were made with")
        changed = sorted(name for name in {*known, *made_with} if known.get(name) != made_with.get(name))
        if changed:
            raise RefusedError(f"{self._path} was made with another {', '.join(changed)}; use --overwrite")

    def _known(self) -> dict[str, object] | None:
        """What the verdicts that are there were made with; None where nothing says so."""
        try:
            known = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        return known if isinstance(known, dict) and "policy" in known else None

    def answered(self, rows: Iterator[Row | BadRow]) -> Iterator[dict[str, object]]:
        """The answers that are there, each with its row taken from `rows`; cuts a torn last line.

        Raises:
            RefusedError: an answer is not one, or not that of the row in its place.
        """
        if not self._continues:
            return
        end, number = 0, 0
        while (line := self.file.readline()).endswith(b"\n"):
            number += 1
            answer = _answer(line)
            if answer is None:
                raise RefusedError(f"{self._path}, line {number}: not a verdict")
            row = next(rows, None)
            if row is None:
                raise RefusedError(f"{self._path}, line {number}: the input has fewer rows")
            if not _same(answer, row):
                raise RefusedError(f"{self._path}, line {number}: the id is not that of line {row.line} of the input")
            end += len(line)
            yield answer
        self.file.seek(end)
        self.file.truncate()

    def add(self, answer: RowVerdict | BadRow) -> None:
        """Write a line."""
        self.file.write(line_of(answer))

    def close(self) -> None:
        """Write what is left."""
        self.file.close()


def _answer(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and ("action" in value or "error" in value) else None


def _same(answer: dict[str, object], row: Row | BadRow) -> bool:
    if isinstance(row, BadRow):
        return answer == _plain(row)
    known = answer.get("id")
    return "action" in answer and type(known) is type(row.id) and known == row.id
