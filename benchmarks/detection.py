"""What the gates find on labelled files, and how often they cry wolf: every table of it that the documents quote.

    python benchmarks/detection.py FILE.jsonl [FILE.jsonl.gz ...] [--evade REWRITES.py] [--into PAGE.md ...]

A file holds one JSON object a line, and its first line tells which gate it is for:

- injection: ``text``, ``kind``, ``source``, ``label`` (1 attack, 0 harmless), ``stage``. Prints what is blocked, also
  with each source judged only by signatures that another source calls for, and the secrets gate's false findings;
- rewritten attacks: also ``evasion`` (its name) and ``orig`` (the clear text). Prints what of the attacks blocked in
  clear is still blocked. ``--evade`` makes them: a Python file with ``EVASIONS`` (their names) and
  ``evade(text, name, seed)``, for `--drawn` attacks of the injection files;
- secrets: ``text`` and ``spans`` (``start``, ``end``, ``kind``), empty where there is none;
- personal data: ``text`` and ``spans`` with a ``type``, ``obfuscation`` where a value is disguised;
- loops: ``steps``, as ``benchmarks/loops.py`` reads them.

``--into`` also writes each table where those pages quote it. Figures on data that rules were tuned on are in-sample.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypedDict

from benchmarks import loops, pii_accuracy
from benchmarks.measure import Table, quoted, share
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gates.injection.gate import InjectionGate
from guardrails_mw.gates.secrets import SecretsGate
from guardrails_mw.verdict import Action

__all__ = ["TABLES", "main"]

TABLES = ("injection", "injection by source", "injection rewritten", "secrets", "pii", "loops")
"""Names of the tables, as pages quote them."""


class Span(TypedDict, total=False):
    """A secret or a personal value in a text."""

    start: int
    end: int
    kind: str
    type: str


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


def rows(path: Path) -> Iterator[Row]:
    """The objects of a JSON Lines file, packed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines)


Blocked = Mapping[tuple[str, str], Sequence[tuple[bool, bool, bool]]]
"""By kind and source, of each text: blocked, flagged or blocked, blocked where its source is held out."""


def blocked(data: Iterable[Row]) -> Blocked:
    """Judge every text.

    Held out means: a source is judged only by signatures that find something in another source too. One that finds
    something in a single source may have learnt that source; this takes it away there. It does not take away that
    whoever wrote the others had read all sources.
    """
    gate = InjectionGate("injection")
    seen: list[tuple[Row, Action, dict[str, float], float, float]] = []
    calls: dict[str, set[str]] = defaultdict(set)
    for row in data:
        verdict = gate.check(Event(Stage(row.get("stage", "input")), Content(row["text"])))
        weights = {finding.type: finding.score for finding in verdict.findings}
        disguise = (verdict.score or 0) - sum(weights.values())
        limit = verdict.threshold if verdict.action is Action.BLOCK and verdict.threshold else 1.0
        seen.append((row, verdict.action, weights, disguise, limit))
        for name in weights if row["label"] else ():
            calls[name].add(row.get("source", "?"))
    found: dict[tuple[str, str], list[tuple[bool, bool, bool]]] = defaultdict(list)
    for row, action, weights, disguise, limit in seen:
        source = row.get("source", "?")
        left = [weight for name, weight in weights.items() if calls[name] - {source}]
        held_out = bool(left) and sum(left) + disguise > limit - 1e-6
        found[row["kind"], source].append((action is Action.BLOCK, action >= Action.FLAG, held_out))
    return found


def injection(found: Blocked, attacks: set[str]) -> tuple[Table, Table]:
    """The table by kind and the one by source."""
    kinds: dict[str, list[tuple[bool, bool, bool]]] = defaultdict(list)
    for (kind, _), texts in found.items():
        kinds[kind] += texts

    def line(name: str, texts: Sequence[tuple[bool, bool, bool]], kind: str) -> list[str]:
        block, flag, held_out = (share([text[n] for text in texts]) for n in range(3))
        return [name, f"{len(texts):,}", block, held_out if kind in attacks else "", flag]

    head = ["texts", "count", "blocked (95 %)", "the same, source held out", "flagged or blocked"]
    order = sorted(kinds, key=lambda kind: (kind not in attacks, kind))
    by_kind = [line(said(kind, attacks), kinds[kind], kind) for kind in order]
    by_source = [
        line(f"{kind}, {source}", texts, kind)
        for (kind, source), texts in sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]
    return Table("Injection by kind", head, by_kind), Table("Injection by source", head, by_source)


def said(kind: str, attacks: set[str]) -> str:
    """A kind, with what it is."""
    return f"{'attack' if kind in attacks else 'harmless'}: {kind.replace('_', ' ')}"


def kept(data: Iterable[Row]) -> Table:
    """Still blocked or not, of the attacks that are blocked in clear, by evasion."""
    gate = InjectionGate("injection")
    clear: dict[tuple[str, str], bool] = {}

    def stopped(stage: str, text: str) -> bool:
        return gate.check(Event(Stage(stage), Content(text))).action is Action.BLOCK

    found: dict[str, list[bool]] = defaultdict(list)
    for row in data:
        key = row.get("stage", "input"), row["orig"]
        if key not in clear:
            clear[key] = stopped(*key)
        if clear[key]:
            found[row["evasion"]].append(stopped(key[0], row["text"]))
    mean = sum(sum(values) / len(values) for values in found.values()) / max(1, len(found))
    lines = [[name.replace("_", " "), share(values)] for name, values in sorted(found.items())]
    return Table(
        "Injection, rewritten",
        ["rewritten", "of those blocked in clear, still blocked (95 %)"],
        [*lines, [f"**mean of the {len(found)}**", f"**{mean:.1%}**".replace("%", " %")]],
        notes=[f"{len(clear)} attacks, {sum(clear.values())} of them blocked in clear."],
    )


def rewritten(data: Sequence[Row], path: Path, drawn: int, seed: int) -> Iterator[Row]:
    """Attacks drawn by the seed, each in every way of a file of rewrites."""
    spec = importlib.util.spec_from_file_location("rewrites", path)
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evade: Callable[[str, str, int], str] = module.evade
    attacks = [row for row in data if row["label"]]
    for row in random.Random(seed).sample(attacks, min(drawn, len(attacks))):
        for name in module.EVASIONS:
            yield {**row, "evasion": name, "orig": row["text"], "text": evade(row["text"], name, seed)}


def secrets(labelled: Iterable[Row], harmless: Mapping[str, Sequence[Row]]) -> Table:
    """Whole span covered or not, by kind; any finding or not, in texts without a secret."""
    gate = SecretsGate("secrets")

    def findings(row: Row) -> list[tuple[int, int]]:
        verdict = gate.check(Event(Stage.TOOL_RESULT, Content(row["text"])))
        return [(finding.start, finding.end) for finding in verdict.findings]

    covered: dict[str, list[bool]] = defaultdict(list)
    false: dict[str, list[bool]] = {}
    for row in labelled:
        where = findings(row)
        if not row.get("spans"):
            false.setdefault("look-alikes", []).append(bool(where))
        for span in row.get("spans") or ():
            covered[span.get("kind", "?")].append(any(a <= span["start"] and b >= span["end"] for a, b in where))
    false |= {name: [bool(findings(row)) for row in texts] for name, texts in harmless.items()}
    everything = [found for values in covered.values() for found in values]
    lines = [[f"found whole: all {len(covered)} kinds", f"{len(everything):,}", share(everything)]] if covered else []
    lines += [[f"found whole: {kind}", f"{len(values)}", share(values)] for kind, values in sorted(covered.items())
              if not all(values)]  # fmt: skip
    lines += [[f"false finding: {name}", f"{len(values):,}", share(values)] for name, values in false.items()]
    return Table("Secrets", ["measure", "count", "share (95 %)"], lines,
                 notes=["A kind has a line of its own where one of its values was missed."])  # fmt: skip


def tables(files: Sequence[Path], evade: Path | None, drawn: int, seed: int) -> Iterator[tuple[str, Table]]:
    """Every table that the files allow, by its name."""
    judged: list[Row] = []
    secret: list[Row] = []
    altered: list[Row] = []
    personal: list[Row] = []
    looping: list[Path] = []
    for path in files:
        data = list(rows(path))
        if "steps" in data[0]:
            looping.append(path)
        elif "evasion" in data[0]:
            altered += data
        elif "label" in data[0]:
            judged += data
        else:
            kinds = any("kind" in span for row in data for span in row.get("spans", ()))
            (secret if kinds else personal).extend(data)
    if judged:
        attacks = {row["kind"] for row in judged if row["label"]}
        yield from zip(TABLES[:2], injection(blocked(judged), attacks), strict=True)
    if evade is not None:
        altered += rewritten(judged, evade, drawn, seed)
    if altered:
        yield TABLES[2], kept(altered)
    others = {"injection's harmless texts": [row for row in judged if not row["label"]], "personal data": personal}
    if secret or judged:
        yield TABLES[3], secrets(secret, {name: texts for name, texts in others.items() if texts})
    if personal:
        yield TABLES[4], pii_accuracy.table(personal)
    if looping:
        yield TABLES[5], loops.table(3, looping)


def main(argv: list[str]) -> int:
    """Print each table, and write it where pages quote it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--evade", type=Path, help="a Python file of rewrites")
    parser.add_argument("--drawn", type=int, default=250, help="attacks to rewrite")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--into", type=Path, nargs="+", default=[], help="pages that quote the tables")
    asked = parser.parse_args(argv)
    for name, table in tables(asked.files, asked.evade, asked.drawn, asked.seed):
        print(table.markdown(), flush=True)
        quoted(asked.into, name, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
