"""A stream shows what the decision on the whole text leaves, however the text was cut into pieces."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from guardrails_mw import Guard, Policy
from guardrails_mw.document import Document
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.verdict import Action, Decision

GATES = {
    "pii": "gates: {pii: {type: pii}}\nstages: {output: [pii]}",
    "strict": "gates: {pii: {type: pii, profile: strict, style: mask}}\nstages: {output: [pii]}",
    "secrets": "gates: {keys: {type: secrets}}\nstages: {output: [keys]}",
    "both": "gates: {keys: {type: secrets, style: mask}, pii: {type: pii, style: hash}}\nstages: {output: [keys, pii]}",
    "mask": "gates: {pii: {type: pii, style: mask}}\nstages: {output: [pii]}",
    "flag": "gates: {pii: {type: pii, action: flag}}\nstages: {output: [pii]}",
    "word": (
        "gates: {word: {type: python, call: 'chat:codeword', cost: linear, max_span: 9}, pii: {type: pii}}\n"
        "stages: {output: [pii, word]}"
    ),
}
WORDS = [
    "the",
    "report",
    "is",
    "ready",
    "and",
    "we",
    "will",
    "send",
    "it",
    "to",
    "you",
    "when",
    "the",
    "number",
    "of",
    "open",
    "points",
    "is",
    "low",
    "enough",
    "for",
    "all",
    "please",
    "call",
    "my",
    "phone",
    "ssn",
    "card",
    "account",
    "bank",
    "IBAN",
    "transfer",
    "to",
    "or",
    "email",
    "password",
    "is",
    "token",
    "for",
    "key:",
    "secret,",
    "Mr.",
    "Jones",
    "said",
    '"it',
    "is",
    'fine"',
    "(see",
    "below)",
    "-",
    "and",
    "then...",
    "nothing!",
    "passport",
    "driver",
    "license",
    "date",
    "of",
    "birth",
]
VALUES = [
    "bob@example.com", "bob.jones+tag@mail.example.co.uk", "4111 1111 1111 1111", "4111-1111-1111-1111", "212-555-0123",
    "(212) 555-0123", "+49 30 901820", "DE89 3704 0044 0532 0130 00", "GB82 WEST 1234 5698 7654 32", "219-09-9999",
    "https://example.com/a/b?c=d", "www.example.org", "192.168.10.20", "2001:db8::8a2e:370:7334", "2 1 9 0 9 9 8 7 6",
    "hunter2-Xy9!", "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD", "AKIAIOSFODNN7EXAMPLQ", "bob%40example.com",
    "b\u200bob@example.com", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "00:1B:44:11:3A:B7", "12345678", "A1234567",
    "[1, 2]",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "postgres://me:hunter2-Xy9@db.example.com/x", "{\"a\": 1}",
    "swordfish-",
    "\"call\\nbob@example.com\\t212-555-0123\"", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n",
    "-----END PRIVATE KEY-----", "\uff14\uff11\uff11\uff11 1111 1111 1111", "ext. 42", "x" * 90,
]  # fmt: skip
GAPS = [" "] * 12 + ["\n", "\n\n", ", ", ": ", "  ", "\t", "; ", " - ", "\u00a0"]


NAMES = [
    "password", "api_key", "clientSecret", "AUTH_TOKEN", "db_pwd", "token_id", "max_tokens", "next_page_token", "user",
    "phone", "customer_ssn", "mobile", "account", "card", "driver_license", "callback_url", "checking", "passport_no",
]  # fmt: skip
CODE = [
    "def load(path):", "    return os.environ['TOKEN']", "token = get_token(user)", "curl -s -u me:Zq9-hunter2x https://x.io",
    "mysql login root password Zq9-hunter2x", "ENV DB_PASSWORD Zq9-hunter2x", "tool --api-key Zq9-hunter2x --verbose",
    "Authorization: Bearer abcDEF123456.ghi", "if x == 10: y = [1, 2, 3]", "password: password: Zq9-hunter2x",
    *("Zq9!token: " * times for times in (40, 41, 95)), "password: " * 77 + "Zq9-hunter2x", "phone",
    "secret = \"s3cr!t-Value9\"  # not in git", "'value': 'Zq9-hunter2x',",
    "{'name': 'password', 'value': 'Zq9-hunter2x'}", "curl -u me:Zq9-hunter2x a.io -u you:Zq9-hunter3x b.io",
    "my password for db-1 is aB3dE5fG7hJ9kL1m", "print('\\n' + \"a\\tb\")", "a.b.c(d, e)[0].f = 'x'", "version 1.2.3.4",
    "-----BEGIN PRIVATE KEY----- is how it begins", "ARN arn:aws:sns:us-east-1:123456789012:topic",
]  # fmt: skip
WRITTEN = [
    lambda char: char + "\u200b",
    lambda char: "\u00ad\ufe0f" + char,
    lambda char: f"&#{ord(char)};",
    lambda char: f"%{ord(char):02X}",
    lambda char: f"\\u{ord(char):04x}",
    lambda char: chr(ord(char) + 0xFEE0),
    lambda char: char + "\u200c" * 30,
    lambda char: char + "\x00",
]
SIGNS = [" "] * 4 + [", ", "\t", "\n", "-", ".", "/", " - ", "; ", ":", " x", "+", " (", ") "]


def text_of(seed: int, length: int) -> str:
    """A text of one or several passages: prose with values in it, rows of numbers, files of settings, code."""
    rng = random.Random(seed)
    kinds = rng.choice(([prose], [prose], [rows, prose], [named, prose], [code, prose], [prose, rows, named, code]))
    passages = []
    while length > 0:
        size = min(length, rng.randint(1, 300))
        passages.append(rng.choice(kinds)(rng, size))
        length -= size
    return "".join(passages)


def disguised(text: str, seed: int) -> str:
    """The same with some of its words written otherwise, character by character or here and there."""
    rng, words = random.Random(seed), []
    often, share = rng.choice((0.1, 0.5, 1.0)), rng.choice((0.1, 0.4, 1.0))
    for word in text.split(" "):
        write = rng.choice(WRITTEN) if rng.random() < often else str
        words.append("".join(write(each) if "!" <= each <= "~" and rng.random() < share else each for each in word))
    return " ".join(words)


def prose(rng: random.Random, length: int) -> str:
    """Words, values and what stands between them."""
    density = rng.choice((0.0, 0.05, 0.2, 0.6))
    pieces = []
    for _ in range(length):
        pieces += [rng.choice(VALUES) if rng.random() < density else rng.choice(WORDS), rng.choice(GAPS)]
    return "".join(pieces)


def rows(rng: random.Random, length: int) -> str:
    """Values and groups of digits side by side, mostly with one sign between them, a word now and then."""
    usual, share = rng.choice(SIGNS), rng.choice((0.0, 0.2, 0.9))
    pieces = []
    for _ in range(length):
        number = "".join(rng.choices("0123456789", k=rng.choice((1, 2, 3, 3, 4, 4, 4, 5, 8, 9, 10, 16))))
        other = rng.choice((rng.choice(VALUES), rng.choice(WORDS), "\n", number))
        pieces += [rng.choice(VALUES[:18]) if rng.random() < share else number]
        pieces += [usual if rng.random() < 0.8 else rng.choice(SIGNS), other if rng.random() < 0.1 else ""]
    return "".join([*pieces, "\n"])


def named(rng: random.Random, length: int) -> str:
    """Lines of a name and a value, as in settings and answers in YAML, quoted or not."""
    lines = []
    for _ in range(max(1, length // 3)):
        name, value, quote = rng.choice(NAMES), rng.choice(VALUES), rng.choice(("", "", '"', "'", "`", "**"))
        sign = rng.choice(("=", ": ", " = ", " is ", " := ", ","))
        lines.append(f"{quote}{name}{quote}{sign}{quote}{value}{quote}{rng.choice(GAPS)}")
    return "".join([*lines, "\n"])


def code(rng: random.Random, length: int) -> str:
    """Lines of code and of a shell."""
    return "\n".join([*(rng.choice(CODE) for _ in range(max(1, length // 4))), ""])


def pieces_of(text: str, seed: int) -> list[str]:
    rng, pieces = random.Random(seed), []
    most, start = rng.choice((1, 4, 12, 80, 3000)), 0
    while start < len(text):
        size = rng.randint(1, most)
        pieces.append(text[start : start + size])
        start += size
    return pieces


@pytest.fixture(scope="module", params=GATES)
def guard(request: pytest.FixtureRequest) -> Guard:
    with Guard(Policy.load(Document("version: 1\ndeadline_ms: 60000\n" + GATES[request.param]))) as made:
        yield made


def streamed(guard: Guard, pieces: list[str]) -> tuple[str, Decision]:
    stream = guard.open(Event(Stage.OUTPUT, Content("")))
    shown = ""
    for piece in pieces:
        shown += stream.feed(piece)
        if stream.stopped:
            break
    decision = stream.close()
    assert stream.shown == len(shown) == decision.shown
    return shown + stream.rest(decision), decision


def same(guard: Guard, text: str, cuts: int) -> None:
    """What the stream gives is what the whole gives."""
    whole = guard.check(text, Stage.OUTPUT)
    shown, decision = streamed(guard, pieces_of(text, cuts))
    assert (decision.action, decision.verdict.reason) == (whole.action, whole.verdict.reason)
    if whole.action is Action.BLOCK:
        assert "swordfish" not in shown
        return
    assert shown == whole.content.value
    assert decision.verdict == whole.verdict


@pytest.mark.parametrize("share", range(3))  # each takes part of the examples, so that all cores have some
@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(0, 300), cuts=st.integers(0, 2**32))
@example(seed=60697953, length=207, cuts=0)  # numbers that come out one after the other, back over words
def test_a_stream_is_what_the_whole_text_gives(guard: Guard, share: int, seed: int, length: int, cuts: int) -> None:
    """Text, action, reason, findings and edits of a stream are those of the whole text, for every chunking."""
    same(guard, text_of(seed, length), cuts)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(0, 60), cuts=st.integers(0, 2**32))
@example(seed=13, length=6, cuts=41288)  # digits apart, some of them escaped, in front of a mailbox
def test_disguise_makes_no_difference(guard: Guard, seed: int, length: int, cuts: int) -> None:
    """The same holds where names and values are written with invisible characters, escapes and wide letters."""
    same(guard, disguised(text_of(seed, length), cuts), cuts)
