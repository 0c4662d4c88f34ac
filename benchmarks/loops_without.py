"""What each part of the loop rules carries: ``python benchmarks/loops_without.py [FILE.jsonl ...]``.

Each line leaves one part out and says how many more loops are missed, and how many more false alarms raised.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import re2

from benchmarks.loops import OWN, Row, judged, rows_of
from guardrails_mw.loops import LoopLimits, call, gist, likeness, loop, progress, shapes, traits, wording

_NEVER = re2.compile(r"\x00never")
_SAYINGS = ("_ABSENCE", "_DENIED", "_EMPTY", "_FAILED", "_NO_HITS", "_PASSING", "_RECEIPT", "_WAITING")
PARTS: Mapping[str, Sequence[tuple[ModuleType, str, object]]] = {
    "nothing": (),
    "verbs in names of tools": ((traits, "_DOES", {}), (traits, "_MAKES", frozenset())),
    "words of answers": tuple((traits, name, _NEVER) for name in _SAYINGS),
    "units of time and size": (
        (shapes, "SECONDS", {}),
        (gist, "SECONDS", {}),
        (gist, "UNITS", frozenset()),
    ),
    "words before numbers": tuple((shapes, name, frozenset()) for name in ("_COUNTS", "_NAMES", "_TIMES")),
    "shapes of ids": ((gist, "without_ids", lambda word: word),),
    "trends": ((loop, "told_apart", lambda window: window),),
    "likeness of questions": ((progress, "alike", lambda *_: False), (progress, "mostly_in", lambda *_: False)),
    "sameness of texts": ((progress, "same_text", lambda *_: False),),
}


def forget() -> None:
    """Empty every cache that a part may have filled."""
    for module in (call, gist, likeness, progress, shapes, traits, wording):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def measured(sets: Sequence[Sequence[Row]]) -> tuple[int, int]:
    """Loops missed and false alarms in all sets."""
    forget()
    found = [judged(rows, LoopLimits()) for rows in sets]
    return sum(each.missed.total() for each in found), sum(each.false.total() for each in found)


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    sets = [rows_of(path) for path in [Path(name) for name in argv] or OWN]
    missed, false = measured(sets)
    print("| without | more loops missed | more false alarms |\n|---|---:|---:|")
    for name, changes in PARTS.items():
        before = [getattr(module, attribute) for module, attribute, _ in changes]
        for module, attribute, value in changes:
            setattr(module, attribute, value)
        now = measured(sets)
        for (module, attribute, _), value in zip(changes, before, strict=True):
            setattr(module, attribute, value)
        print(f"| {name} | {now[0] - missed} | {now[1] - false} |")


if __name__ == "__main__":
    main(sys.argv[1:])
