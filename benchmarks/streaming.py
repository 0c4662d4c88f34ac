"""What a guard costs a stream: throughput, the wait for the first token, and how much is held back.

A server of its own process on loopback speaks the OpenAI protocol and sends one token every half millisecond;
`ChatOpenAI` reads it, alone and guarded.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from benchmarks.measure import Table
from guardrails_mw.document import Document
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.stream import Hold
from guardrails_mw.wait import drive

__all__ = ["table"]

RATE = 2000
"""Tokens that the server sends in a second."""
TOKENS = 2000
LONG = 1_000_000
SHARE, COST, HELD = 0.9, 50.0, 120
POLICY = """
version: 1
gates: {pii: {type: pii}, keys: {type: secrets}}
stages: {output: [keys, pii]}
"""
_SENTENCE = (
    "The parcel left our warehouse on Tuesday and should be with you by the end of the week; if it is not, please "
    "write to {mail} or call 212-555-0{number} and have the order number at hand. "
)


_LETTERS = str.maketrans("0123456789", "abcdefghij")


def tokens(count: int) -> list[str]:
    """An answer of so many tokens of four characters, with a mail address and a telephone number in every sentence."""
    number, text = 0, ""
    while len(text) < 4 * count:
        text += _SENTENCE.format(mail=f"agent{number}@example.com", number=100 + number % 900)
        number += 1
    return [text[start : start + 4] for start in range(0, 4 * count, 4)]


class _Tokens(BaseHTTPRequestHandler):
    """Answers every request with the same stream, at a steady rate."""

    def do_POST(self) -> None:
        """Stream the answer."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        began = time.perf_counter()
        for number, token in enumerate(tokens(TOKENS)):
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            self._send({"delta": {"role": "assistant", "content": token}, "index": 0, "finish_reason": None})
        self._send({"delta": {}, "index": 0, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, choice: dict[str, object]) -> None:
        body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "steady", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


def _serve(ready: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    ready.send(server.server_port)
    server.serve_forever()


@contextmanager
def _server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def _read(model: BaseChatModel) -> tuple[float, float]:
    """Seconds until the first text and until the end of one stream."""
    began, first = time.perf_counter(), 0.0
    for chunk in model.stream("Where is my parcel?"):
        if chunk.content and not first:
            first = time.perf_counter() - began
    return first, time.perf_counter() - began


def _through(guard: Guard, count: int) -> tuple[float, list[int]]:
    """Microseconds that a token costs, and the characters held back after each."""
    pieces = tokens(count)
    stream = guard.open(Event(Stage.OUTPUT, Content("")))
    began = time.perf_counter()
    for piece in pieces:
        stream.feed(piece)
    stream.close()
    cost = (time.perf_counter() - began) / count * 1e6
    hold, held = Hold(guard.engine, Event(Stage.OUTPUT, Content(""))), list[int]()
    for piece in pieces:
        _fed(hold, piece)
        held.append(hold.held)
    return cost, held


def _fed(hold: Hold, piece: str) -> str:
    return drive(hold.feeding(piece))


def _memory(guard: Guard, count: int) -> tuple[float, float]:
    """Megabytes that the process has grown by after a tenth and after all of a long stream that is held back."""
    hold, grown = Hold(guard.engine, Event(Stage.OUTPUT, Content(""))), list[float]()
    pieces = [piece.replace("@", " ").translate(_LETTERS) for piece in tokens(4096)]
    before = _resident()
    for number in range(count):
        _fed(hold, pieces[number % len(pieces)])
        if number + 1 in (count // 10, count):
            grown.append(_resident() - before)
    return grown[0], grown[1]


def _resident() -> float:
    """Megabytes of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def table(rounds: int) -> Table:
    """Measure: a stream read alone and guarded, by turns; then the hold by itself."""
    alone, guarded = list[tuple[float, float]](), list[tuple[float, float]]()
    with _server() as url, Guard(Policy.load(Document(POLICY))) as guard:
        make = partial(ChatOpenAI, model="steady", base_url=url, api_key=SecretStr("none"), max_retries=0)
        bare, safe = make(), guard.model(make())
        assert isinstance(safe, BaseChatModel)
        _read(bare), _read(safe)
        for _ in range(rounds):
            alone.append(_read(bare))
            guarded.append(_read(safe))
        runs = [_through(guard, TOKENS) for _ in range(5)]
        small, large = _memory(guard, LONG)
    rate = [TOKENS / statistics.median(total for _, total in each) for each in (alone, guarded)]
    first = [statistics.median(begin for begin, _ in each) * 1000 for each in (alone, guarded)]
    held = sorted(runs[0][1])
    middle, most, cost = statistics.median(held), held[int(len(held) * 0.95)], statistics.median(c for c, _ in runs)
    rows = [
        ["tokens a second", f"{rate[0]:.0f}", f"{rate[1]:.0f}", f"{rate[1] / rate[0]:.0%} (goal ≥ {SHARE:.0%})"],
        ["first text, ms", f"{first[0]:.1f}", f"{first[1]:.1f}", f"+{first[1] - first[0]:.1f}"],
        ["held back, characters: median, 95th percentile", "", f"{middle:.0f}, {most}", f"goal ≤ {HELD} in the middle"],
        ["µs per token, gates and decision at the end", "", f"{cost:.1f}", f"goal ≤ {COST:.0f}"],
        ["MB held after 100,000 and 1,000,000 tokens", "", f"{small:.2f}, {large:.2f}", "goal: flat"],
    ]
    about = (
        f"`ChatOpenAI` reads {TOKENS:,} tokens from a server on loopback that sends {RATE:,} a second; the gates are "
        "`pii` (profile `agent`) and `secrets`."
    )
    notes = ["The first text waits for what must follow it: 64 characters, and the end of a word."]
    return Table("A stream, guarded", ["", "alone", "guarded", ""], rows, about, notes)
