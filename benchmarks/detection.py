"""How much the injection and secrets gates find, and how often they cry wolf, on labelled files.

    python benchmarks/detection.py FILE.jsonl [FILE.jsonl.gz ...]

A file holds one JSON object a line. Injection rows have ``text``, ``kind``, ``source``, ``label`` (1 attack, 0
harmless) and ``stage``; rewritten attacks also ``evasion`` (its name) and ``orig`` (the clear text); secrets rows have
``text`` and ``spans`` (``start``, ``end``, ``kind``), empty where there is none. Prints, for every kind, the share with
its count and Wilson 95 % interval; for attacks, what is left of each source's recall without the signatures that no
other source calls for; and for rewritten attacks, how many of those blocked in clear are still blocked. Figures on data
that rules were tuned on are in-sample.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.table import Table

from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gates.injection.gate import InjectionGate
from guardrails_mw.gates.secrets import SecretsGate
from guardrails_mw.verdict import Action


class Span(TypedDict, total=False):
    """A secret in a text."""

    start: int
    end: int
    kind: str


class Row(TypedDict, total=False):
    """A line of a file."""

    text: str
    label: int
    kind: str
    source: str
    stage: str
    evasion: str
    orig: str
    spans: list[Span]


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share (Wilson 1927), as fractions.

    >>> [round(bound, 3) for bound in wilson(0, 100)]
    [0.0, 0.037]
    """
    share, spread = hits / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON Lines file, packed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


def injection(data: Iterable[Row]) -> dict[str, list[bool]]:
    """Blocked or not, by measure and kind, and within it by source."""
    gate = InjectionGate("injection")
    found: dict[str, list[bool]] = defaultdict(list)
    for row in data:
        stage = Stage(row.get("stage", "input"))
        action = gate.check(Event(stage, Content(row["text"]))).action
        measure = "recall" if row["label"] else "false positives"
        found[f"{measure}: {row['kind']}"].append(action is Action.BLOCK)
        found[f"{measure}: {row['kind']} / {row.get('source', '?')}"].append(action is Action.BLOCK)
        found[f"flagged or blocked: {row['kind']}"].append(action >= Action.FLAG)
    return found


def held_out(data: Iterable[Row]) -> dict[str, list[bool]]:
    """Blocked or not, in attacks, when each source is judged only by signatures that another source calls for too.

    A signature that finds something in one source alone may have learnt that source; this takes it away there.
    """
    gate = InjectionGate("injection")
    seen: list[tuple[Row, dict[str, float], float]] = []
    calls: dict[str, set[str]] = defaultdict(set)
    for row in data:
        if row["label"]:
            verdict = gate.check(Event(Stage(row.get("stage", "input")), Content(row["text"])))
            weights = {finding.type: finding.score for finding in verdict.findings}
            seen.append((row, weights, (verdict.score or 0) - sum(weights.values())))
            for name in weights:
                calls[name].add(row.get("source", "?"))
    found: dict[str, list[bool]] = defaultdict(list)
    for row, weights, extra in seen:
        kept = [weight for name, weight in weights.items() if calls[name] != {row.get("source", "?")}]
        for how, score in (("all", sum(weights.values()) + extra), ("held out", sum(kept) + extra if kept else 0)):
            found[f"{row['kind']}: {how}"].append(score > 1 - 1e-6)
            found[f"{row['kind']} / {row.get('source', '?')}: {how}"].append(score > 1 - 1e-6)
    return found


def kept(data: Iterable[Row]) -> dict[str, list[bool]]:
    """Still blocked or not, of the attacks that are blocked in clear, by evasion."""
    gate = InjectionGate("injection")
    clear: dict[tuple[str, str], bool] = {}

    def blocked(stage: str, text: str) -> bool:
        return gate.check(Event(Stage(stage), Content(text))).action is Action.BLOCK

    found: dict[str, list[bool]] = defaultdict(list)
    for row in data:
        key = row.get("stage", "input"), row["orig"]
        if key not in clear:
            clear[key] = blocked(*key)
        if clear[key]:
            found[row["evasion"]].append(blocked(key[0], row["text"]))
    shares = [sum(values) / len(values) for values in found.values()]
    print(f"kept after {len(shares)} evasions, mean of the shares: {sum(shares) / max(1, len(shares)):.2%}")
    return found


def secrets(data: Iterable[Row]) -> dict[str, list[bool]]:
    """Whole span covered or not, by kind; any finding or not, in texts without a secret."""
    gate = SecretsGate("secrets")
    found: dict[str, list[bool]] = defaultdict(list)
    for row in data:
        findings = gate.check(Event(Stage.TOOL_RESULT, Content(row["text"]))).findings
        if not row.get("spans"):
            found["false positives: texts without a secret"].append(bool(findings))
        for span in row.get("spans") or ():
            covered = any(f.start <= span["start"] and f.end >= span["end"] for f in findings)
            found["recall: all"].append(covered)
            found[f"recall: {span.get('kind', '?')}"].append(covered)
    return found


def show(title: str, found: dict[str, list[bool]]) -> None:
    """Print one table."""
    table = Table("measure", "share", "count", "95 % interval", title=title)
    for name in sorted(found):
        hits, total = sum(found[name]), len(found[name])
        low, high = wilson(hits, total)
        table.add_row(name, f"{hits / total:.2%}", f"{hits}/{total}", f"{low:.2%} to {high:.2%}")
    Console(width=120).print(table)


def main(argv: list[str]) -> int:
    """Measure every file with the gates its rows are made for; texts labelled harmless also with the secrets gate."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args(argv).files:
        data = list(rows(path))
        if "evasion" in data[0]:
            show(f"injection gate, {path.name}, attacks still blocked when rewritten", kept(data))
        elif "label" in data[0]:
            show(f"injection gate, {path.name}", injection(data))
            attacks = held_out(data)
            if attacks:
                show(f"injection gate, {path.name}, recall by source, held out of each other", attacks)
            harmless = [row for row in data if not row["label"]]
            if harmless:
                show(f"secrets gate, {path.name}, harmless texts", secrets(harmless))
        else:
            show(f"secrets gate, {path.name}", secrets(data))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
