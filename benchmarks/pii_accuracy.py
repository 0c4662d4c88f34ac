"""Recall per entity and false positives of the ``pii`` gate on labelled texts.

Usage: python benchmarks/pii_accuracy.py PATH [--profile agent|strict] [--show ENTITY]

PATH holds one JSON object per line: ``text`` and ``spans`` (``start``, ``end`` in code points, ``type``),
``obfuscation`` on altered values. A span counts as found when findings cover it whole; a finding is false
when it touches no span.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import Site
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--profile", default="agent", choices=["agent", "strict"])
    parser.add_argument("--show", default="", help="print what was missed or falsely found of this entity")
    options = parser.parse_args()
    gate = PiiGate.build(PiiConfig(type="pii", profile=options.profile), Site("pii", Path()))
    gate.warm()
    total: Counter[tuple[str, str]] = Counter()
    found: Counter[tuple[str, str]] = Counter()
    named: Counter[tuple[str, str]] = Counter()
    false: Counter[tuple[str, bool]] = Counter()
    seconds = 0.0
    for line in options.path.open(encoding="utf-8"):
        row = json.loads(line)
        begin = time.perf_counter()
        findings = gate.check(Event(Stage.INPUT, Content(row["text"]))).findings
        seconds += time.perf_counter() - begin
        kind = row.get("obfuscation", "clear")
        for span in row["spans"]:
            covering = [f for f in findings if f.start <= span["start"] and f.end >= span["end"]]
            key = (span["type"], kind)
            total[key] += 1
            found[key] += bool(covering)
            named[key] += any(f.type == span["type"] for f in covering)
            if options.show == span["type"] and not covering and kind == "clear":
                print("missed", row["id"], repr(row["text"]), span)
        for f in findings:
            if not any(f.start < s["end"] and s["start"] < f.end for s in row["spans"]):
                false[f.type, not row["spans"]] += 1
                if options.show == f.type:
                    print("false ", row["id"], repr(row["text"]), f)
    print(f"{'entity':16} {'values':14} {'n':>5} {'covered':>8} {'named':>8}")
    for entity, kind in sorted(total):
        n = total[entity, kind]
        print(f"{entity:16} {kind:14} {n:5} {found[entity, kind] / n:8.3f} {named[entity, kind] / n:8.3f}")
    hard = sum(n for (_, negative), n in false.items() if negative)
    print(f"false positives: {hard} on texts without a span, {false.total() - hard} beside spans:", dict(false))
    print(f"seconds: {seconds:.2f}")


if __name__ == "__main__":
    main()
