"""Texts that need no download: made by a seeded generator or taken from the standard library's own source."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import logging
import random
import textwrap
from collections.abc import Callable, Mapping

__all__ = ["KINDS", "MAIL", "SIZES", "cut", "fingerprint", "text", "with_mail"]

SIZES: Mapping[str, int] = {"200 B": 200, "1 KB": 1024, "10 KB": 10_240, "100 KB": 102_400}
"""Bytes in UTF-8; a text is cut at the last whole character."""

MAIL = "bob.miller@example.com"

_WHO = ("the committee", "our supplier", "a customer", "the new driver", "her brother", "the library", "my manager")
_DID = ("asked about", "changed", "returned", "could not find", "wrote down", "talked over", "paid for", "ordered")
_WHAT = ("the second parcel", "a table for six", "the minutes", "an old invoice", "the red bicycle", "two tickets")
_WHEN = ("on Tuesday", "before lunch", "in the spring of 2024", "at 10:30", "last week", "after the long meeting")
_WHY = (
    "because the form was not clear", "so that everybody could read it on the train", "and forgot the receipt",
    "although nobody had expected it", "for about 45 euros", "which made the rest of the day much easier",
)  # fmt: skip
_SENTENCES = (
    "Der Zug nach Leipzig fährt heute zwölf Minuten später ab, weil die Strecke gesperrt war. ",
    "La réunion a été déplacée à jeudi, et personne n'a encore prévenu les autres équipes. ",
    "El pedido llegó ayer por la tarde, pero faltaba una de las dos cajas. ",
    "Собрание перенесли на четверг, а зал ещё не готов. ",
    "会议改到星期四下午三点，请把文件带来。",
    "注文した本はまだ届いていませんが、来週には着くそうです。",
    "تم تأجيل الاجتماع إلى يوم الخميس بسبب العطلة. ",
    "회의는 목요일로 옮겨졌고 자료는 내일 보내겠습니다. ",
    "बैठक गुरुवार को होगी और सभी को सूचना दे दी गई है। ",
    "Spotkanie przełożono na czwartek, a sala będzie gotowa o dziesiątej. ",
    "The meeting was moved to Thursday and the room will be ready by ten. ",
)


def _english(rng: random.Random, size: int) -> str:
    pieces, length = [], 0
    while length < size:
        words = [rng.choice(group) for group in (_WHO, _DID, _WHAT, _WHEN, _WHY)]
        sentence = " ".join(words[: rng.randint(3, 5)]).capitalize() + rng.choice((". ", ". ", ". ", "? ", ".\n\n"))
        pieces.append(sentence)
        length += len(sentence)
    return "".join(pieces)


def _mixed(rng: random.Random, size: int) -> str:
    pieces, length = [], 0
    while length < size:
        pieces.append(rng.choice(_SENTENCES))
        length += len(pieces[-1].encode())
    return "".join(pieces)


def _tool_json(rng: random.Random, size: int) -> str:
    rows: list[dict[str, object]] = []
    length = 0
    while length < size:
        row: dict[str, object] = {
            "id": rng.randint(10_000, 99_999),
            "uuid": f"{rng.getrandbits(128):032x}",
            "status": rng.choice(("open", "paid", "shipped", "returned")),
            "total": round(rng.uniform(1, 900), 2),
            "created_at": f"2025-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:17:05Z",
            "items": [{"sku": f"A-{rng.randint(100, 999)}", "count": rng.randint(1, 5)} for _ in range(2)],
            "note": rng.choice(_WHAT) if rng.random() < 0.5 else None,
        }
        rows.append(row)
        length += len(json.dumps(row)) + 2
    return json.dumps({"orders": rows})


def _source(_rng: random.Random, size: int) -> str:
    whole = "".join(inspect.getsource(module) for module in (textwrap, argparse, logging))
    return whole * (size // len(whole) + 1)


KINDS: Mapping[str, Callable[[random.Random, int], str]] = {
    "English": _english,
    "mixed languages": _mixed,
    "tool JSON": _tool_json,
    "source code": _source,
}


def text(kind: str, size: int, variant: int = 0) -> str:
    """A harmless text of a kind, the same at every call; each variant is another."""
    begin = 977 * variant if kind == "source code" else 0  # nothing is drawn there: a variant begins further on
    rng = random.Random(f"{kind} {size} {variant}" if variant else f"{kind} {size}")
    return cut(KINDS[kind](rng, size + begin)[begin:], size)


def cut(raw: str, size: int) -> str:
    """The beginning of a text, so many bytes in UTF-8."""
    return raw.encode()[:size].decode(errors="ignore")


def with_mail(clean: str) -> str:
    """The same text with one mailbox in its middle."""
    middle = clean.find(" ", len(clean) // 2)
    middle = middle if middle >= 0 else len(clean) // 2
    return f"{clean[:middle]} {MAIL} {clean[middle:]}"


def fingerprint() -> str:
    """SHA-256 of the whole corpus: figures compare only where it is the same."""
    digest = hashlib.sha256()
    for kind in KINDS:
        for size in SIZES.values():
            digest.update(text(kind, size).encode())
    return digest.hexdigest()
