"""How many texts a second one core scans, with the injection, PII and secrets gates.

Process time, not the clock on the wall: what else the machine does is left out.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from benchmarks import corpus
from benchmarks.measure import Table, quiet_collector
from guardrails_mw.document import Document
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.scan import RowVerdict, offline_guard, read_rows, scan

__all__ = ["MIX", "POLICY", "table"]

MIX = "SCAN_MIX"
"""Environment variable: JSON Lines files with ``text``, separated as in PATH, for a row of their own."""

POLICY = """
version: 1
deadline_ms: 10000
gates: {injection: {type: injection}, pii: {type: pii}, secrets: {type: secrets}}
stages: {input: [injection, pii, secrets]}
"""
_ROWS = 2000


def _english() -> list[str]:
    """Texts of 500 bytes, all different: nothing is seen twice."""
    whole = corpus.text("English", 600_000)
    return [whole[start : start + 500] for start in range(0, 500 * 1000, 500)]


def _mixed() -> list[str]:
    """Every kind of the corpus, in pieces of 100 to 2,000 characters."""
    rng, texts = random.Random(5), []
    for kind in corpus.KINDS:
        whole, place = corpus.text(kind, 400_000), 0
        while place < len(whole):
            size = round(10 ** rng.uniform(2, 3.3))
            texts.append(whole[place : place + size])
            place += size
    rng.shuffle(texts)
    return texts[:_ROWS]


def _files() -> dict[str, list[str]]:
    paths = [Path(name) for name in os.environ.get(MIX, "").split(os.pathsep) if name]
    texts = [json.loads(line)["text"] for path in paths for line in path.open(encoding="utf-8")]
    random.Random(5).shuffle(texts)
    return {f"{len(paths)} files of {MIX}": texts[:_ROWS]} if texts else {}


def table(rounds: int) -> Table:
    """Measure, in a guard just built for each kind of text; a tenth of the texts warms it up."""
    kinds = {"clean English of 500 B": _english(), "generated mix": _mixed(), **_files()}
    rows = []
    for name, texts in kinds.items():
        with offline_guard(Policy.load(Document(POLICY))) as guard:
            _sample(guard, texts[: len(texts) // 10])
            samples = [_sample(guard, texts) for _ in range(rounds)]
        rate, told, failed = statistics.median(rate for rate, _, _ in samples), samples[0][1], samples[0][2]
        size = statistics.mean(len(text.encode(errors="replace")) for text in texts)
        rows.append([name, f"{len(texts):,}", f"{size:,.0f}", f"{rate:,.0f}", f"{told:,}", f"{failed:,}"])
    return Table(
        "Scan",
        ["texts", "count", "mean bytes", "texts/s and core", "with findings", "gate failed"],
        rows,
        "Policy with `injection`, `pii` and `secrets`, one process, process time; reading and writing JSON included.",
        [f"Give your own files with `{MIX}=a.jsonl:b.jsonl`; {_ROWS:,} of their texts are drawn by a fixed seed."],
    )


def _lines(texts: list[str]) -> BinaryIO:
    return BytesIO(b"".join(json.dumps({"id": n, "text": text}).encode() + b"\n" for n, text in enumerate(texts)))


def _sample(guard: Guard, texts: list[str]) -> tuple[float, int, int]:
    """Texts a second, and how many had findings or a gate that could not answer."""
    told, failed, file = 0, 0, _lines(texts)
    with quiet_collector():
        began = time.process_time()
        for answer in scan(guard, read_rows(file)):
            assert isinstance(answer, RowVerdict)
            json.dumps(answer.plain())
            told += bool(answer.findings)
            failed += bool(answer.errors)
        taken = time.process_time() - began
    return len(texts) / taken, told, failed
