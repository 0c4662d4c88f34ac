"""Recall per entity and false positives of the ``pii`` gate on labelled texts.

Usage: python benchmarks/pii_accuracy.py PATH [--profile agent|strict] [--show ENTITY]

PATH holds one JSON object per line: ``text`` and ``spans`` (``start``, ``end`` in code points, ``type``),
``obfuscation`` on altered values. A span counts as found when findings cover it whole; a finding is false
when it touches no span. `benchmarks/detection.py` prints both profiles side by side.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Table, share
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import Site
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate

__all__ = ["PROFILES", "Found", "measured", "table"]

PROFILES = ("agent", "strict")


@dataclass
class Found:
    """By entity and by whether the value was disguised, of each value: covered whole, and under its own name."""

    covered: defaultdict[tuple[str, bool], list[bool]] = field(default_factory=lambda: defaultdict(list))
    named: defaultdict[tuple[str, bool], list[bool]] = field(default_factory=lambda: defaultdict(list))
    without: list[bool] = field(default_factory=list)
    """Of each text without a value: anything found."""
    false: Counter[str] = field(default_factory=Counter)
    """False findings in texts without a value, by entity."""
    beside: Counter[str] = field(default_factory=Counter)
    """False findings beside values, by entity."""


def measured(rows: Iterable[Mapping[str, object]], profile: str, show: str = "") -> Found:
    """Check every text; `show` prints what was missed or falsely found of one entity."""
    gate = PiiGate.build(PiiConfig.model_validate({"type": "pii", "profile": profile}), Site("pii", Path()))
    gate.warm()
    found = Found()
    for row in rows:
        text, spans = str(row["text"]), row["spans"]
        assert isinstance(spans, list)
        findings = gate.check(Event(Stage.INPUT, Content(text))).findings
        for span in spans:
            covering = [f for f in findings if f.start <= span["start"] and f.end >= span["end"]]
            key = span["type"], "obfuscation" in row
            found.covered[key].append(bool(covering))
            found.named[key].append(any(f.type == span["type"] for f in covering))
            if show == span["type"] and not covering:
                print("missed", row.get("id"), repr(text), span)
        if not spans:
            found.without.append(bool(findings))
        for f in findings:
            if not any(f.start < span["end"] and span["start"] < f.end for span in spans):
                (found.beside if spans else found.false)[f.type] += 1
                if show == f.type:
                    print("false ", row.get("id"), repr(text), f)
    return found


def table(rows: Sequence[Mapping[str, object]], profiles: Sequence[str] = PROFILES) -> Table:
    """Values covered whole, in clear and disguised, and false findings, for each profile."""
    by_profile = {profile: measured(rows, profile) for profile in profiles}
    lines = []
    for key in sorted({key for found in by_profile.values() for key in found.covered}):
        shares = [share(found.covered[key]) for found in by_profile.values()]
        count = len(next(iter(by_profile.values())).covered[key])
        lines.append([f"{key[0]}{', disguised' if key[1] else ''}", f"{count:,}", *shares])
    empty = [found.without for found in by_profile.values()]
    lines.append(["texts of look-alikes only: any finding", f"{len(empty[0]):,}", *map(share, empty)])
    lines.append(["findings in them", "", *(f"{found.false.total():,}" for found in by_profile.values())])
    lines.append(["false findings beside values", "", *(f"{found.beside.total():,}" for found in by_profile.values())])
    return Table("Personal data", ["covered whole (95 %)", "count", *(f"`{name}`" for name in profiles)], lines)


def main() -> None:
    """Print a table of one profile, with what was found under which name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--profile", default="agent", choices=PROFILES)
    parser.add_argument("--show", default="", help="print what was missed or falsely found of this entity")
    options = parser.parse_args()
    with options.path.open(encoding="utf-8") as lines:
        found = measured(map(json.loads, lines), options.profile, options.show)
    print(f"{'entity':16} {'disguised':10} {'n':>5} {'covered':>8} {'named':>8}")
    for entity, disguised in sorted(found.covered):
        covered, named = found.covered[entity, disguised], found.named[entity, disguised]
        shares = f"{sum(covered) / len(covered):8.3f} {sum(named) / len(named):8.3f}"
        print(f"{entity:16} {disguised!s:10} {len(covered):5} {shares}")
    print(f"false on texts without a span: {found.false.total()}", dict(found.false))
    print(f"false beside spans: {found.beside.total()}", dict(found.beside))


if __name__ == "__main__":
    main()
