"""Placeholders: written once, known again however a model copies them, and never mistaken."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from guardrails_mw.event import Content
from guardrails_mw.placeholder import CHECK_LETTERS, Known, kind_of, placeholder, refilled
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.vault import Vault

KINDS = ("EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN", "IBAN_CODE", "CREDIT_CARD", "SECRET_AWS_ACCESS_KEY", "URL", "VALUE")
TEXTS = (
    "{}",
    "Write to {} today.",
    "order 7 step 3: {}, then {}!",
    '{{"to": "{}", "n": 12}}',
    "see 12 boxes\n- {}\n- {}\n",
    "Größe 漢字 {} 🙂",
)
Mangle = Callable[[random.Random, str, str], tuple[str, str]]
"""A placeholder without its brackets and the value, as a model writes the one and a user should read the other."""


def case(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    return rng.choice([f"[[{inner.lower()}]]", f"[[{inner.upper()}]]", f"[[{inner.title()}]]"]), value


def brackets(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    return rng.choice([f"[{inner}]", f"(({inner}))", f"{{{{{inner}}}}}", f"<<{inner}>>", f"【{inner}】"]), value


def bare(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    around = rng.choice(["x {}", "x ({}) y", "x <{}> y", "'{}'", '"{}"', "x {{{}}} y"])
    return around.format(inner), around.format(value)


def escaped(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    return rng.choice([rf"\[\[{inner}\]\]", rf"\[{inner}\]", rf"[\[{inner}\]]"]), value


def markdown(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    whole = f"[[{inner}]]"
    forms = [
        (f"**{whole}**", f"**{value}**"),
        (f"`{whole}`", f"`{value}`"),
        (f"[[**{inner}**]]", f"**{value}**"),
        (f"[{whole}](mailto:{whole})", f"[{value}](mailto:{value})"),
        (f"[{inner}](mailto:{inner})", f"[{value}](mailto:{value})"),
        (f"*{inner}*", f"*{value}*"),
        (f"_{whole}_", f"_{value}_"),
    ]
    return rng.choice(forms)


def spaces(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    gap = rng.choice([" ", "\u00a0", "\n", "\u200b"])
    return rng.choice([f"[[{gap}{inner}{gap}]]", f"[ [{inner}] ]", f"[[{inner.replace('_', ' _ ')}]]"]), value


def underscores(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    return f"[[{inner.replace('_', chr(92) + '_')}]]", value


def separators(rng: random.Random, inner: str, value: str) -> tuple[str, str]:
    separator = rng.choice([" ", "-", "\u2011", ""])
    return f"[[{inner.replace('_', separator)}]]", value


SIGNS = string.ascii_letters + string.digits
MANGLES: tuple[Mangle, ...] = (case, brackets, bare, escaped, markdown, spaces, underscores, separators)


def made(rng: random.Random) -> str:
    """A value, with signs that mean something to a placeholder or to Markdown."""
    letters = string.ascii_letters + string.digits + "@.+-_ /\\[](){}*äß漢"
    return "".join(rng.choices(letters, k=rng.randint(3, 30)))


def test_round_trips_are_exact() -> None:
    """10,000 round trips with 8 kinds of mangling, every third in lower case too: each gives back the very text."""
    rng, vault = random.Random(20), Vault(MemoryStore(), b"k" * 32)
    wrong = []
    for number in range(10_000):
        scope = f"thread-{number % 50}"
        value = made(rng)
        inner = vault.token(scope, rng.choice(KINDS), value)[2:-2]
        written, wanted = MANGLES[number % len(MANGLES)](rng, inner, value)
        if number % 3 == 0:
            written = written.replace(inner, inner.lower())
        text = rng.choice(TEXTS)
        found = vault.restore(scope, Content(text.format(*[written] * 2)))
        if found.content.value != text.format(*[wanted] * 2) or found.unresolved:
            wrong.append((text, written, found.content.value))
    assert wrong == []


def test_no_lookalike_is_restored() -> None:
    """Of 20,000 look-alikes (other threads, made-up checks, other kinds and numbers, mangled) none is restored."""
    rng, vault = random.Random(21), Vault(MemoryStore(), b"k" * 32)
    tokens = {t: [vault.token(t, k, f"{t}-{k}-{n}@x.org") for k in KINDS for n in range(5)] for t in ("mine", "other")}
    own, known = tokens["mine"], set(tokens["mine"])
    tried = restored = 0
    while tried < 20_000:
        kind, number, check = rng.choice(own)[2:-2].rsplit("_", 2)
        fake = rng.choice(
            [
                rng.choice(tokens["other"]),
                placeholder(kind, int(number), "".join(rng.choices(CHECK_LETTERS, k=6))),
                placeholder(rng.choice(KINDS), int(number), check),
                placeholder(kind, rng.randint(1, 99_999), check),
                placeholder(kind, int(number), "".join(rng.choices(SIGNS, k=rng.randint(4, 6)))),
                placeholder(kind, int(number), check[:-1] + rng.choice(CHECK_LETTERS)),
                placeholder(kind, int(number), check[::-1]),
            ]
        )
        if fake in known:
            continue
        tried += 1
        written, _ = rng.choice(MANGLES)(rng, fake[2:-2], "")
        restored += vault.restore("mine", Content(f"please repeat {written} to me")).restored
    assert restored == 0


@given(st.text(max_size=40), st.text(max_size=40))
@example("C:\\", "")
@example("[", "]")
@example("\\", "\\")
@example("order 5 ", "(work)")
@example("tel5", "_x")
@example("[[A_1_", "[[A_1_bcdfgh]]")
def test_a_faithful_copy_is_exact_in_any_text(before: str, after: str) -> None:
    """Whatever stands around an unchanged placeholder, it and nothing else is replaced."""
    known = {(1, "kvqdzw"): Known("EMAIL_ADDRESS", "bob@x.org")}
    found = refilled(f"{before}[[EMAIL_ADDRESS_1_kvqdzw]]{after}", lambda *key: known.get(key))
    assert (found.text, found.restored) == (f"{before}bob@x.org{after}", 1)


@given(st.text(alphabet="[](){}<>\\*_ -`EMAILmail1kvqdzwKVQDZW%5BD\u200b", max_size=60))
def test_what_does_not_verify_stays(text: str) -> None:
    """A text is left alone to the last character when no check in it is right."""
    found = refilled(text, lambda *_: None)
    assert (found.text, found.restored) == (text, 0)


def test_lookalikes_are_counted() -> None:
    """Look-alikes in brackets are counted, next to what is restored; ordinary text and code are not."""
    known = {(1, "kvqdzw"): Known("EMAIL", "bob@x.org")}

    def unresolved(text: str) -> int:
        return refilled(text, lambda *key: known.get(key)).unresolved

    assert unresolved("[[EMAIL_1_k7Qd]] and [[EMAIL_1_kvqdzw]], [email_2_kvqdzw], (US_SSN_1_abcd)") == 3
    assert unresolved("items[3] (step 2 done) x_1_abcdef {a: 1} [link](http://x) EMAIL_1_kvqdzw") == 0


def test_a_longer_word_is_not_a_placeholder() -> None:
    """Inside a longer word nothing is replaced."""
    known = {(1, "kvqdzw"): Known("EMAIL", "bob@x.org")}
    for text in ("XEMAIL_1_kvqdzw", "EMAIL_1_kvqdzwx", "MY_EMAIL_1_kvqdzw", "EMAIL_1_kvqdzw9"):
        assert refilled(text, lambda *key: known.get(key)).text == text


def test_a_pair_that_belongs_to_the_text_stays() -> None:
    """One round or angle pair is kept inside a sentence, and dropped where nothing else is said."""
    known = {(1, "kvqdzw"): Known("EMAIL", "bob@x.org")}
    for text, wanted in (
        ("Bob (EMAIL_1_kvqdzw)", "Bob (bob@x.org)"),
        ("Bob <EMAIL_1_kvqdzw>", "Bob <bob@x.org>"),
        ("([[EMAIL_1_kvqdzw]])", "(bob@x.org)"),
        (" (EMAIL_1_kvqdzw) ", " bob@x.org "),
        ("<EMAIL_1_kvqdzw>", "bob@x.org"),
    ):
        assert refilled(text, lambda *key: known.get(key)).text == wanted


@pytest.mark.parametrize(
    "unit", ["[[EMAIL_ADDRESS_1_bcdfgh]] ", "[", "1 ", "1_", "\\_", "[[A_", "1bcdfgh", "(((((*", "]]\u200b", "%5B"]
)
def test_time_is_linear(unit: str) -> None:
    """Sixteen times the text takes no more than forty times as long, for texts made to be slow."""

    def seconds(size: int) -> float:
        text, best = (unit * size)[:size], 1e9
        for _ in range(3):
            began = time.perf_counter()
            refilled(text, lambda *_: Known("EMAIL_ADDRESS", "x"))
            best = min(best, time.perf_counter() - began)
        return best

    small, large = seconds(8_000), seconds(128_000)
    assert large < 40 * small + 0.05


@given(st.text(max_size=60))
def test_a_kind_is_capitals_and_underscores(label: str) -> None:
    """Whatever a gate calls a value, its kind holds no digit and no other sign."""
    kind = kind_of(label)
    assert kind
    assert set(kind) <= set(string.ascii_uppercase + "_")
    assert kind == kind.strip("_")
    assert len(kind) <= 40
