"""Whether the ``pii`` gate's search finds exactly what Presidio's own analyzer finds, and how much faster.

Usage: python benchmarks/pii_equality.py FILE.jsonl... [--generated 20000] [--real 2000] [--seed 1]

The rival is Presidio's `AnalyzerEngine` with the same recognizers, threshold 0, and a language engine that does
nothing, so that nothing but the recognizers is compared and timed. Two things are set right on both sides: the
Mastercard 2-series is known, and the list of public suffixes is the bundled one. FILE holds one JSON object with a
``text`` per line. Values looked up before are forgotten before every text. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from guardrails_mw.gates.pii.engine import Engine
from guardrails_mw.gates.pii.matching import Match, distinct
from guardrails_mw.gates.pii.presidio import load
from guardrails_mw.gates.pii.profiles import ENTITIES, PROFILES

Find = Callable[[str], list[Match]]
PROSE = (
    "The committee met on Tuesday to talk about the new library, and most of the members agreed that the "
    "building should keep its old front while the rooms behind it are made larger and lighter for readers. "
)
PIECES = (
    "bob@example.com", "Ann.Lee+x@mail.co.uk", "x@y@z.com", "!#$@a.b-c.de-", "user@例え.jp", "4111 1111 1111 1111",
    "2223003122003222", "378282246310005", "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "192.168.10.55",
    "2001:db8::1", "::1", "fe80::1%eth0", "::ffff:1.2.3.4/24", "00-1A-2B-3C-4D-5E", "0012.3456.789A", "219-09-9999",
    "219099999", "912-70-1234", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    "https://www.example.com/a?b=c", '"http://x.org/y"', "'shop.co.uk'", "www3.foo.io", "os.path", "(212) 555-0123",
    "+44 20 7946 0958", "+49 30 123456 ext. 12", "030/123456", "2024-01-31T10:00:00Z", "1/2/2024", "5-JAN-2020",
    "943 476 5919", "A1234567", "BB1388568", "4d92200c-a95c-48b3-8be1-67b57c24d03b", "ſ12345678", "٢١٢٥٥٥٠١٢٣",
    "www.\u212aiwi.com/x", "４１１１", "http://http://c.net/d", "1/2/1/2/", "....", "@pytest.fixture", "ssn", "é", "😀",
)  # fmt: skip
ALPHABETS = (
    "0123456789-. /()+", "abc.@-_com/\"' 1", "aA1:. -f@", "wW3.hHtTpPs:/\"'comuk -",
    "0123456789٠١٢ſK\u212a.-@e\u0301İı",
    "[](){}<>,.!?:;'\"`~@#$%^&*-_=+|\\/ a1",
)  # fmt: skip


def rival() -> Find:  # noqa: C901 - an engine that does nothing has many methods
    """Presidio's analyzer over recognizers made the ordinary way."""
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, predefined_recognizers
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    class Nothing(NlpEngine):
        engine_name = "nothing"

        def load(self) -> None: ...

        def is_loaded(self) -> bool:
            return True

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            return NlpArtifacts([], [], [], [], self, language)

        def process_batch(self, texts: Sequence[str], language: str, **_: object) -> Iterator[tuple[str, NlpArtifacts]]:
            return ((text, self.process_text(text, language)) for text in texts)

        def is_stopword(self, word: str, language: str) -> bool:
            return False

        def is_punct(self, word: str, language: str) -> bool:
            return False

        def get_supported_entities(self) -> list[str]:
            return []

        def get_supported_languages(self) -> list[str]:
            return ["en"]

    ours = load().recognizers
    recognizers = []
    for known in ours.values():
        kind = getattr(predefined_recognizers, type(known).__name__)
        if kind.__name__ == "EmailRecognizer":
            kind = type("EmailRecognizer", (kind,), {"validate_result": type(known).validate_result})
        made = kind()
        if kind.__name__ == "CreditCardRecognizer":
            extra = known.patterns[-1]
            made.patterns = [*made.patterns, type(made.patterns[0])(extra.name, extra.regex, extra.score)]
        recognizers.append(made)
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    engine = AnalyzerEngine(registry=registry, nlp_engine=Nothing(), supported_languages=["en"])

    def find(text: str) -> list[Match]:
        results = engine.analyze(text, language="en", score_threshold=0)
        return distinct(Match(each.start, each.end, each.entity_type, each.score) for each in results)

    return find


def generated(count: int, seed: int) -> Iterator[str]:
    """Texts that mix values, look-alikes and noise."""
    draw = random.Random(seed)
    separators = (" ", "", ", ", ": ", "\n", "-", "/", ".", "@", "\u00a0")
    for i in range(count):
        if i % 4:
            yield "".join(draw.choice(PIECES) + draw.choice(separators) for _ in range(draw.randint(1, 12)))
        else:
            alphabet = draw.choice(ALPHABETS)
            yield "".join(draw.choice(alphabet) for _ in range(draw.randint(1, 160)))


def real(paths: Sequence[Path], count: int, seed: int) -> Iterator[str]:
    """Texts of files, of every length up to 8 KB."""
    texts = [json.loads(line)["text"][:8192] for path in paths for line in path.open(encoding="utf-8")]
    random.Random(seed).shuffle(texts)
    yield from texts[:count]


def tool_json(size: int, seed: int) -> str:
    """A page of orders as a tool returns it; a few fields are personal."""
    draw = random.Random(seed)
    rows: list[str] = []
    while sum(map(len, rows)) < size:
        rows.append(
            json.dumps(
                {
                    "order_id": f"ORD-{draw.randrange(10**8):08}", "created_at": f"2025-0{draw.randint(1, 9)}-12",
                    "status": draw.choice(["shipped", "open", "returned"]), "total": draw.randrange(10**6) / 100,
                    "sku": f"SKU-{draw.randrange(10**6):06}", "quantity": draw.randint(1, 9), "note": "left at door",
                    "customer": {"name": "J. Doe", "email": f"user{draw.randrange(999)}@example.com", "vip": False},
                    "trace": f"{draw.getrandbits(64):016x}", "warehouse": {"lat": 48.137154, "lon": 11.576124},
                }
            )
        )  # fmt: skip
    return f'{{"orders": [{", ".join(rows)}'[:size]


def compare(name: str, texts: Iterator[str], fast: Find, slow: Find, shown: int = 5) -> int:
    """Differences between the two; prints the first ones and the times."""
    count = findings = different = 0
    quick = plain = 0.0
    for text in texts:
        begin = time.perf_counter()
        ours = fast(text)
        middle = time.perf_counter()
        theirs = slow(text)
        plain += time.perf_counter() - middle
        quick += middle - begin
        count, findings = count + 1, findings + len(theirs)
        if ours != theirs:
            different += 1
            if different <= shown:
                print(
                    "different:",
                    repr(text),
                    "only ours:",
                    set(ours) - set(theirs),
                    "only theirs:",
                    set(theirs) - set(ours),
                )
    print(f"{name:10} {count:6} texts {findings:7} findings {different:4} differences; "
          f"{quick:7.2f} s against {plain:7.2f} s, {plain / quick:.1f} times as fast")  # fmt: skip
    return different


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", type=Path, nargs="*")
    parser.add_argument("--generated", type=int, default=20_000)
    parser.add_argument("--real", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    engine = Engine(PROFILES["strict"], ENTITIES)
    print(f"presidio-analyzer {metadata.version('presidio-analyzer')}, known: {engine.exact}")
    slow = rival()
    slow(PIECES[0])
    engine.load()
    different = 0
    for name, text, rounds in (
        ("clean 1 KB", (PROSE * 6)[:1024], 40), ("JSON 10 KB", tool_json(10_240, options.seed), 10),
    ):  # fmt: skip
        different += engine.matches(text) != slow(text)
        times = [[_timed(find, text) for _ in range(rounds)] for find in (engine.matches, slow)]
        quick, plain = map(statistics.median, times)
        print(f"{name}: {quick * 1e6:.0f} us against {plain * 1e6:.0f} us, {plain / quick:.1f} times as fast")
    different += compare("generated", generated(options.generated, options.seed), engine.matches, slow)
    if options.paths:
        different += compare("real", real(options.paths, options.real, options.seed), engine.matches, slow)
    return 1 if different else 0


def _timed(find: Find, text: str) -> float:
    begin = time.perf_counter()
    find(text)
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
