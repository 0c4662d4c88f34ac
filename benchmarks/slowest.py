"""Search for a text that a gate is slow on: no 8 KB may take more than 20 ms.

    python benchmarks/slowest.py [--gate NAME] [--seconds 60] [--size 8192] [--seed 1]

Starts from hostile fragments (encodings within encodings, letters apart, half-finished escapes, words of signatures),
repeats, mixes and wraps them, and keeps changing the slowest texts so far. Prints the slowest, and how the time of its
pattern grows from a quarter of the size to four times of it. Exit code 1 when a text takes more than the limit.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import Gate, Site
from guardrails_mw.gates.injection.gate import InjectionGate
from guardrails_mw.gates.injection.signatures import default_signatures
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate
from guardrails_mw.gates.secrets import SecretsGate

LIMIT_MS = 20.0
DIGIT, HEX, LETTER = "\ue000", "\ue001", "\ue002"
"""In a fragment: any digit, hexadecimal digit or letter, drawn anew wherever it stands."""
DRAWN = {DIGIT: "0123456789", HEX: "0123456789abcdef", LETTER: "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"}
VALUES = tuple(
    each.replace("0", DIGIT).replace("f", HEX).replace("z", LETTER)
    for each in (
        *("0", "00", "000 ", "000-", "000.", "000/", "(000) 000-0000 ", "000-00-0000 ", "000000000 ", "0000000000,"),
        *("4000000000000000 ", "0000 0000 0000 0000 ", "+00000000000,", "+00 00 000000", "00 000 000 ", "0/0/2000 "),
        *("000.00.000.00 ", "ffff:ffff::ff ", "ff:ff:ff:ff:ff:ff ", "ff", "ffff-ffff ", "DE00 0000 0000 0000 0000 00 "),
        *("z00@z.com ", "zz@", "@zz.", "http://zzz.com/z ", "www.z.", "z.com", "Z0000000 ", "z", "zz ", "1zzzzzz"),
        *("ssn ", "phone ", "driver passport bank ", "visa", "iban", "\uff11\uff12", "0 0 0 ", '"0', '\\n0"', "0, "),
    )
)
"""Forms of personal values and pieces of them, for the ``pii`` gate."""
FRAGMENTS = (
    *("a ", "a.b.", "a. b- ", "i.g n_o ", "a·b·", "QUJD", "aWdub3Jl", "69 67 6e ", "6967", "0x41 ", "01101001 "),
    *("%69", "%25", "%2525", "&#105;", "&amp;", "&amp;#38;", "\\x69", "\\u0069", "\\n", "\\\\n", "&#", "%", "\\u{"),
    *(
        "<b>",
        "a<b>a",
        "<!--",
        "a<!-- a -->a",
        "</",
        "\U000e0069",
        "\u200b",
        "ａ",
        "１",
        "𝐚",
        "а",
        "аa",
        "1a",
        "a1",
        "4@",
    ),
    *(
        "eht uoy ",
        "gur lbh ",
        "teh yuo ",
        "previuos ",
        "instrutcions ",
        "ﷺ",
        "é",
        "e\u0301",
        "忽略",
        "指令",
        "\U0001f3f4",
    ),
    *(
        "ignore all ",
        "previous ",
        "print the your ",
        "you are now ",
        "the ",
        "never ",
        '"a" ',
        "! ",
        "[",
        "{",
        "(",
        "#",
    ),
    *(
        "4@",
        "\U0001f3f4",
        "(",
        "eyJ",
        "password=",
        "sk-",
        "://a:b@",
        "-----BEGIN ",
        "\x00",
        "\n",
        "\t",
        "7",
        ".",
        "-",
        "=",
        "'",
        "w1 ",
    ),
)
WRAPS: tuple[Callable[[str], str], ...] = (
    lambda text: base64.b64encode(text.encode()).decode(),
    lambda text: text.encode().hex(),
    lambda text: text.encode().hex(" "),
    quote,
    lambda text: "".join(f"&#{ord(char)};" for char in text),
    " ".join,
    ".".join,
    lambda text: text[::-1],
    lambda text: "".join(chr(0xE0000 + ord(char)) for char in text if 32 <= ord(char) < 127),
)
TEN = ["au", "ca", "de", "es", "in", "it", "pl", "sg", "uk", "us"]


def pii(**keys: object) -> Gate:
    """A ``pii`` gate with some keys of a policy."""
    gate = PiiGate.build(PiiConfig.model_validate({"type": "pii", **keys}), Site("pii", Path()))
    gate.warm()
    return gate


GATES: dict[str, Callable[[], Gate]] = {
    "injection": lambda: InjectionGate("injection"),
    "secrets": lambda: SecretsGate("secrets"),
    "pii": pii,
    "pii-strict": lambda: pii(profile="strict"),
    "pii-countries": lambda: pii(profile="strict", countries=TEN),
}

Recipe = tuple[tuple[str, ...], tuple[int, ...]]
"""Fragments to repeat, and wraps to put around them."""


def made(recipe: Recipe, size: int) -> str:
    """The text of a recipe."""
    unit, wraps = "".join(recipe[0]), recipe[1]
    text = unit * (size // len(unit) + 1)
    if any(each in unit for each in DRAWN):
        rng = random.Random(unit)
        text = "".join(rng.choice(DRAWN.get(char, char)) for char in text[:size])
    for index in wraps:
        text = WRAPS[index](text[:size])
    return text[:size]


def changed(recipe: Recipe, words: tuple[str, ...], rng: random.Random) -> Recipe:
    """A recipe with something added, replaced, taken away or shuffled."""
    pieces, wraps = list(recipe[0]), list(recipe[1])
    for _ in range(rng.randint(1, 3)):
        choice = rng.random()
        if choice < 0.4:
            pieces.insert(rng.randint(0, len(pieces)), rng.choice(words) * rng.choice((1, 1, 2, 8, 40)))
        elif choice < 0.7:
            pieces[rng.randrange(len(pieces))] = rng.choice(words)
        elif choice < 0.8 and len(pieces) > 1:
            pieces.pop(rng.randrange(len(pieces)))
        elif choice < 0.9:
            rng.shuffle(pieces)
        else:
            wraps = [rng.randrange(len(WRAPS)) for _ in range(rng.randint(0, 2))]
    return tuple(pieces[:60]), tuple(wraps)


def milliseconds(gate: Gate, text: str) -> float:
    """Processor time of the faster of two checks, so that what the machine does meanwhile counts less."""
    event, best = Event(Stage.TOOL_RESULT, Content(text)), float("inf")
    for _ in range(2):
        began = time.process_time()
        gate.check(event)
        best = min(best, (time.process_time() - began) * 1e3)
    return best


def search(gate: Gate, seconds: float, size: int, rng: random.Random) -> tuple[float, Recipe, int]:
    """The slowest recipe found in the time given, its milliseconds, and how many were tried."""
    examples = VALUES if isinstance(gate, PiiGate) else [f"{each.example} " for each in default_signatures().signatures]
    words = (*FRAGMENTS, *examples)
    slowest: list[tuple[float, Recipe]] = []
    end, tried = time.perf_counter() + seconds, 0
    queue: list[Recipe] = [((word,), ()) for word in words]
    queue += [((word,), (wrap,)) for word in FRAGMENTS[:30] for wrap in range(len(WRAPS))]
    while time.perf_counter() < end:
        if queue:
            recipe = queue.pop()
        elif rng.random() < 0.1:
            recipe = (tuple(rng.choices(words, k=rng.randint(1, 30))), ())
        else:
            recipe = changed(rng.choice(slowest)[1], words, rng)
        slowest.append((milliseconds(gate, made(recipe, size)), recipe))
        slowest = sorted(slowest, key=lambda entry: -entry[0])[:20]
        tried += 1
    return (*slowest[0], tried)


def main(argv: list[str]) -> int:
    """Search, print, and tell by the exit code whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--gate", choices=sorted(GATES), default="injection")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=8192, help="characters")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    gate = GATES[args.gate]()
    _, recipe, tried = search(gate, args.seconds, args.size, random.Random(args.seed))
    took = min(milliseconds(gate, made(recipe, args.size)) for _ in range(5))
    print(f"{args.gate}: {tried} texts of {args.size} characters, slowest {took:.2f} ms (limit {LIMIT_MS:g})")
    print("".join(recipe[0])[:200].encode("unicode_escape").decode(), recipe[1])
    for factor in (0.25, 1, 4, 12.5):
        size = int(args.size * factor)
        print(f"{size:>8} characters: {milliseconds(gate, made(recipe, size)):.2f} ms")
    return int(took > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
