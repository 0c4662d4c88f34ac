"""What commands print. Everything from outside is shown as it is, never interpreted.

A record may hold whatever a user or a tool wrote. Terminal escapes, direction marks and other invisible
characters are written out, and nothing is read as markup.
"""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = ["ACTIONS", "clock", "complain", "console", "duration", "shown", "styled", "table", "write", "write_json"]

ACTIONS = {"allow": "green", "flag": "yellow", "ask": "magenta", "block": "red"}
"""Colours of actions and of states."""

_WIDE = 160
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def shown(text: object, *, lines: bool = False) -> str:
    r"""A text with every character that a terminal would act on or not show written out.

    Args:
        text: any value; shown as `str` does.
        lines: whether line breaks and tabs may stay.

    >>> shown("\x1b[31mred[/red]\n")
    '\\x1b[31mred[/red]\\n'
    """
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in _UNSEEN and not (lines and char in "\n\t")
        else char
        for char in str(text)
    )


def console() -> Console:
    """Standard output, without markup; wide where it is no terminal, so that lines can be searched."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDE
    return Console(markup=False, emoji=False, highlight=False, width=width)


def styled(word: str) -> Text:
    """An action in its colour."""
    from rich.text import Text

    return Text(shown(word), style=ACTIONS.get(word, ""))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; prints nothing without rows."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    head = Text(shown(title), style="bold")
    made = Table(*columns, title=head, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(shown(cell)) for cell in row))
    if made.row_count:
        console().print(made)


def write(text: object = "") -> None:
    """Print a text of one or more lines."""
    typer.echo(shown(text, lines=True))


def write_json(value: object) -> None:
    """Print a value as JSON, ASCII only."""
    typer.echo(json.dumps(value, indent=2, default=str))


def complain(text: object) -> None:
    """Say on standard error what is wrong."""
    typer.echo(f"guardrails-mw: {shown(text, lines=True)}", err=True)


def clock(at: float) -> str:
    """A time as people read it, in this machine's zone.

    >>> clock(0.0)[4]
    '-'
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def duration(seconds: float) -> str:
    """A duration as policies write it.

    >>> duration(1800.0), duration(0.5), duration(5400.0)
    ('30m', '500ms', '90m')
    """
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms"
