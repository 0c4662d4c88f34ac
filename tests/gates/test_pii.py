"""The pii gate: what it finds, that it finds what Presidio finds, and that hiding is final."""

from __future__ import annotations

import copy
import json
import logging
import random
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import DEADLINE, Cost, Site
from guardrails_mw.gates.pii.context import split_name
from guardrails_mw.gates.pii.countries import COUNTRIES
from guardrails_mw.gates.pii.disguise import read
from guardrails_mw.gates.pii.engine import Engine
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate
from guardrails_mw.gates.pii.matching import Match, distinct
from guardrails_mw.gates.pii.prefilter import Prefilter, relaxed
from guardrails_mw.gates.pii.presidio import Library, load, national
from guardrails_mw.gates.pii.profiles import ENTITIES, PROFILES
from guardrails_mw.gates.pii.replacement import Replacer, apply, hidden
from guardrails_mw.verdict import Action, Finding, Operator, Verdict

SECRET = b"k" * 32
CARD, CARD_2, SSN = "4111 1111 1111 1111", "2223003122003222", "219-09-9999"
CORPUS = [
    "write to bob@example.com or Ann.Lee+x@mail.co.uk.",
    f"card {CARD}, {CARD_2}, 378282246310005",
    "IBAN DE89 3704 0044 0532 0130 00 and GB82WEST12345698765432 3 days",
    "from 192.168.10.55, 2001:db8::1, ::1, fe80::1%eth0, ::ffff:1.2.3.4/24 and version 1.2.3.4",
    "mac 00-1A-2B-3C-4D-5E 0012.3456.789A c0:cf:23:63:55:0e",
    f"ssn {SSN}, 219099999, 219.09.9999, itin 912-70-1234",
    "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2 bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
    "see https://www.example.com/a?b=c, \"http://x.org/y\", 'shop.co.uk', www3.foo.io and os.path",
    "phone (212) 555-0123, +44 20 7946 0958, +49 30 123456 ext. 12, 030/123456",
    "2024-01-31T10:00:00Z 1/2/2024 31.12.99 5-JAN-2020 2024/3/4",
    "NHS 943 476 5919, licence A1234567, BB1388568, passport A12345678, account 12345678",
    "4d92200c-a95c-48b3-8be1-67b57c24d03b x@y@z.com !#$@a.b-c.de- user@例え.jp",
    "ſ12345678 www.\u212aiwi.com/x ٢١٢٥٥٥٠١٢٣ ４１１１ １１１１ １１１１ １１１１ httpſ://a.com",
    "www.www.com a..com -.com 'a.com/x' \"www.b.org' http://http://c.net/d \"https://d.e.fm\"",
    "@pytest.fixture\ndef f(x): return x@y.T",
]
PIECES = [
    *sorted({piece for text in CORPUS for piece in text.split(" ")}),
    "phone", "ssn", "card", "account", "number", "[EMAIL_ADDRESS]", "[PHONE_NUMBER]", "[US_SSN:12345678]", "****1111",
    "12", "1234", "555", "é", "😀",
]  # fmt: skip
SEPARATORS = [" ", "", ", ", ": ", "\n", "-", "/", ".", "@", "\u00a0"]
ALPHABETS = [
    "0123456789-. /()+",
    "abc.@-_com/\"' 1",
    "aA1:. -f@",
    "wW3.hHtTpPs:/\"'comuk -",
    "0123456789٠١٢ſK\u212a.-@ae\u0301İı",
    "[](){}<>,.!?:;'\"`~@#$%^&*-_=+|\\/ a1",
]
TEXTS = st.one_of(
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(SEPARATORS)))
    .map(lambda pairs: "".join(a + b for a, b in pairs)),
    *(st.text(alphabet, max_size=120) for alphabet in ALPHABETS),
    st.text(max_size=60),
)  # fmt: skip
SETTINGS = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def gate(**keys: object) -> PiiGate:
    return PiiGate.build(PiiConfig.model_validate({"type": "pii", **keys}), Site("pii", Path(), SECRET))


def check(pii: PiiGate, value: object, stage: Stage = Stage.INPUT) -> Verdict:
    return pii.check(Event(stage, Content(value)))


def scrub(pii: PiiGate, text: str) -> str:
    """The text with the gate's edits applied; fails when they overlap or lie outside."""
    result, end = [], 0
    for edit in sorted(check(pii, text).edits):
        assert end <= edit.start < edit.end <= len(text)
        result += [text[end : edit.start], edit.text]
        end = edit.end
    return "".join([*result, text[end:]])


AGENT, STRICT = gate(), gate(profile="strict")
ENGINE = Engine(PROFILES["strict"], ENTITIES)


def plain(text: str) -> list[Match]:
    """What Presidio's recognizers find when they search their own way."""
    return distinct(
        Match(r.start, r.end, entity, r.score)
        for entity, recognizer in load().recognizers.items()
        for r in recognizer.analyze(text, [entity])
    )


@pytest.mark.parametrize("text", CORPUS)
def test_corpus_is_found_as_presidio_finds_it(text: str) -> None:
    """The fast search gives Presidio's own findings and scores on known hard texts."""
    assert ENGINE.matches(text) == plain(text)


@SETTINGS
@given(TEXTS)
def test_fast_search_equals_presidio(text: str) -> None:
    """The fast search, prefilter included, never differs from Presidio's recognizers."""
    assert ENGINE.matches(text) == plain(text)


def test_corpus_holds_every_entity() -> None:
    """The equality above is not vacuous: every recognizer finds something in the corpus."""
    assert {match.entity for text in CORPUS for match in ENGINE.matches(text)} == set(ENTITIES)


@SETTINGS
@given(TEXTS)
def test_profile_requirements_skip_nothing(text: str) -> None:
    """What a profile requires of a text before searching never hides a finding it would keep."""
    everything = copy.copy(AGENT.engine)
    everything._prefilter = Prefilter({key: [""] for key in everything._sources})
    assert AGENT.engine.find(text) == everything.find(text)


@pytest.mark.parametrize("style", ["remove", "mask", "hash"])
@pytest.mark.parametrize("profile", ["agent", "strict"])
def test_scrubbing_twice_changes_nothing(profile: str, style: str) -> None:
    """Replacements are not found again, and do not make their neighbours findable."""
    pii = gate(profile=profile, style=style)

    @settings(SETTINGS, max_examples=100)
    @given(TEXTS)
    def holds(text: str) -> None:
        once = scrub(pii, text)
        assert scrub(pii, once) == once

    holds()


@SETTINGS
@given(TEXTS)
def test_findings_are_spans_of_the_text(text: str) -> None:
    """Findings and edits pair up and lie inside the text, for characters beyond the BMP too."""
    verdict = check(STRICT, text)
    assert [(e.start, e.end) for e in verdict.edits] == [(f.start, f.end) for f in verdict.findings]
    assert all(0 <= f.start < f.end <= len(text) and 0 < f.score <= 1 for f in verdict.findings)


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("mail bob@example.com now", "mail [EMAIL_ADDRESS] now"),
        ("😀 bob@example.com", "😀 [EMAIL_ADDRESS]"),
        (f"pay {CARD}", "pay [CREDIT_CARD]"),
        (f"pay {CARD_2}", "pay [CREDIT_CARD]"),
        ("pay 2223003122003223", "pay 2223003122003223"),
        ("host 192.168.10.55", "host [IP_ADDRESS]"),
        ("version 1.2.3.4", "version 1.2.3.4"),
        ("std::vector", "std::vector"),
        ("section 1.2.3.4.5", "section 1.2.3.4.5"),
        ("IMEI 490154203237518", "IMEI 490154203237518"),
        (f"it is {SSN}", "it is [US_SSN]"),
        ("ssn 219099999", "ssn [US_SSN]"),
        ("order 219099999", "order 219099999"),
        ("os.path and self.settings", "os.path and self.settings"),
        ("see https://example.com/a.", "see [URL]"),
        ("phone 030/123456", "phone [PHONE_NUMBER]"),
        ("took 0.76492172 s on 04-18-2025", "took 0.76492172 s on 04-18-2025"),
        ("request 4d92200c-a95c-48b3-8be1-67b57c24d03b", "request 4d92200c-a95c-48b3-8be1-67b57c24d03b"),
        ("order number 2125550123, callback 2125550123", "order number 2125550123, callback 2125550123"),
        ("checkout 12345678, document 219099999", "checkout 12345678, document 219099999"),
        ("my cell is 2125550123", "my cell is [PHONE_NUMBER]"),
        ("it is 617.555.0127", "it is [PHONE_NUMBER]"),
        ("passport 219099999", "passport [US_PASSPORT]"),
        ("git@build.internal", "[EMAIL_ADDRESS]"),
        ("visa 4111/1111/1111/1111", "visa [CREDIT_CARD]"),
        ("rows 4111, 1111, 1111, 1111", "rows 4111, 1111, 1111, 1111"),
        ("visa 9999/4111/1111/1111/1111", "visa 9999/4111/1111/1111/1111"),
        ("ssn: 219/09/9999", "ssn: [US_SSN]"),
        ("on 219/09/9999", "on 219/09/9999"),
        ("de88370400440532013000", "de88370400440532013000"),
    ],
)
def test_agent_profile(text: str, scrubbed: str) -> None:
    """The profile for agents hides what is personal and leaves its look-alikes."""
    assert scrub(AGENT, text) == scrubbed


@pytest.mark.parametrize(
    ("value", "entity"),
    [
        ("bob＠example.com", "EMAIL_ADDRESS"),
        ("bob%40example.com", "EMAIL_ADDRESS"),
        ("b\u200bob@exam\u2060ple.com", "EMAIL_ADDRESS"),
        ("４１１１-１１１１-１１１１-１１１１", "CREDIT_CARD"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "CREDIT_CARD"),
        ("２１９-０９-９９９９", "US_SSN"),
        ("4111\u00a01111\u00a01111\u00a01111", "CREDIT_CARD"),
        ("4111\u20111111\u20111111\u20111111", "CREDIT_CARD"),
        ("219\u201109\u20119999", "US_SSN"),
        ("bob&#64;example.com", "EMAIL_ADDRESS"),
        ("bob&commat;example&period;com", "EMAIL_ADDRESS"),
        ("bob\\u0040example.com", "EMAIL_ADDRESS"),
        ("bob%2540example.com", "EMAIL_ADDRESS"),
        ("bob\\u0026#64;example.com", "EMAIL_ADDRESS"),
        ("bob\ufe6bexample\u3002com", "EMAIL_ADDRESS"),
        ("bob@example.\u0441\u043em", "EMAIL_ADDRESS"),
        ("bob@exa\U000e0041mple.com", "EMAIL_ADDRESS"),
        ("&#52;111111111111111", "CREDIT_CARD"),
        ("4111\ufe0f1111\ufe0f1111\ufe0f1111", "CREDIT_CARD"),
        ("4111.1111.1111.1111", "CREDIT_CARD"),
        ("4111_1111_1111_1111", "CREDIT_CARD"),
        ("4111\u00b71111\u00b71111\u00b71111", "CREDIT_CARD"),
        ("4111\u20131111\u20131111\u20131111", "CREDIT_CARD"),
        ("4111 - 1111 - 1111 - 1111", "CREDIT_CARD"),
        ("3782.822463.10005", "CREDIT_CARD"),
        ("219\u201309\u20139999", "US_SSN"),
        ("de89370400440532013000", "IBAN_CODE"),
        ("de89 3704 0044 0532 0130 00", "IBAN_CODE"),
        ("at61 1904 3002 3457 3201", "IBAN_CODE"),
        ("DE89.3704.0044.0532.0130.00", "IBAN_CODE"),
        ("DE89_3704_0044_0532_0130_00", "IBAN_CODE"),
        ("\U0001d403\U0001d404\U0001d7d6\U0001d7d7370400440532013000", "IBAN_CODE"),
    ],
)
def test_disguised_values(value: str, entity: str) -> None:
    """Values that only people still read are found whole, at their place in the original."""
    text = f"a\u200bb 😀 ok: {value}, and then"
    start = text.index(value)
    assert list(map(_span, check(AGENT, text).findings)) == [(entity, start, start + len(value))]


def _span(finding: Finding) -> tuple[str, int, int]:
    return finding.type, finding.start, finding.end


@SETTINGS
@given(TEXTS)
def test_undisguised_text_maps_back(text: str) -> None:
    """Every character of the plain text comes from its own, forward-moving piece of the original."""
    plain = read(text)
    if plain is None:
        return
    spans = [plain.span(i, i + 1) for i in range(len(plain.text))]
    for character, (start, end) in zip(plain.text, spans, strict=True):
        assert 0 <= start < end <= len(text)
        own = text[start:end]
        assert own == character or read(own) or read(f"0{own}0")  # some are read between digits only
    assert all(a[1] <= b[0] or a == b for a, b in pairwise(spans))  # an escape may stand for two characters


def test_what_one_finder_remembers_is_no_answer_for_another() -> None:
    """Within one check, numbers are remembered for those regions, that least length and that form only."""
    from guardrails_mw.gates.pii.phones import PhoneFinder, remembering

    text = "it is 2125550123"
    finders = [PhoneFinder(["US"]), PhoneFinder(["DE"]), PhoneFinder(["US"], 11), PhoneFinder(["US"], marked=True)]
    alone = [list(finder.spans(text)) for finder in finders]
    assert alone == [[(6, 16, 0.4)], [], [], []]
    for order in (finders, finders[::-1]):
        with remembering():
            found = {id(finder): list(finder.spans(text)) for finder in order}
        assert [found[id(finder)] for finder in finders] == alone


def test_keys_are_context() -> None:
    """The key over a value, split into words, says what bare digits are; another key does not."""
    assert [f.type for f in check(AGENT, {"customerSsn": "219099999"}).findings] == ["US_SSN"]
    assert check(AGENT, {"orderId": "219099999"}).findings == ()
    assert split_name("customerSSNNumber_no") == ["customer", "ssn", "number", "no"]


def test_every_part_is_looked_at() -> None:
    """Nested values, keys and long numbers are parts of their own with their own offsets."""
    content = Content({"a": [{"b": "to bob@example.com"}], "bob@example.com": 1, "card": int(CARD_2)})
    verdict = AGENT.check(Event(Stage.TOOL_RESULT, content))
    found = {content.parts[f.part].text[f.start : f.end] for f in verdict.findings}
    assert found == {"bob@example.com", CARD_2}
    assert len(verdict.findings) == 3


@pytest.mark.parametrize(
    ("action", "expected"),
    [("edit", Action.ALLOW), ("flag", Action.FLAG), ("ask", Action.ASK), ("block", Action.BLOCK)],
)
def test_actions(action: str, expected: Action) -> None:
    """Each action gives its verdict, with edits, and nothing found is a plain allow."""
    verdict = check(gate(action=action), "bob@example.com")
    assert (verdict.action, verdict.reason, len(verdict.edits)) == (expected, "pii", 1)
    assert check(gate(action=action), "nothing here") == Verdict.allow()


def test_styles() -> None:
    """Masks keep a tail of long values only; hashes tell equal values by site and normal form."""
    assert scrub(gate(style="mask"), f"{CARD} {SSN} 1.2.3.4") == "**** **** **** 1111 ***-**-9999 *.*.*.*"
    pii = gate(style="hash")
    first, second = scrub(pii, "bob@example.com"), scrub(pii, "BOB@example.com")
    assert first == second
    assert first != "[EMAIL_ADDRESS]"
    assert Replacer("hash", b"other")("EMAIL_ADDRESS", "bob@example.com") != first
    assert check(pii, "bob@example.com").edits[0].operator is Operator.HASH


def test_hiding_reveals_nothing() -> None:
    """A value that only becomes findable when its neighbour is hidden is hidden too."""

    def find(text: str) -> list[Match]:
        at = text.find("aa")
        if at >= 0:
            return [Match(at, at + 2, "A", 1.0)]
        at = text.find("]b")
        return [Match(at + 1, at + 2, "B", 1.0)] if at >= 0 else []

    replace = Replacer("remove")
    assert apply("xaab", hidden("xaab", find, replace)) == "x[A][B]"


def test_explicit_entities() -> None:
    """Only the listed entities are looked for."""
    assert scrub(gate(entities=["US_SSN"]), f"bob@example.com {SSN}") == "bob@example.com [US_SSN]"
    assert scrub(gate(entities=["UUID"]), "4d92200c-a95c-48b3-8be1-67b57c24d03b") == "[UUID]"


def test_min_score() -> None:
    """A least score replaces the profile's own."""
    assert check(gate(entities=["US_SSN"], min_score=0.9), f"it is {SSN}").findings == ()
    assert check(gate(entities=["US_SSN"], min_score=0.01), "219099999").findings


def test_unknown_entity() -> None:
    """A misspelt entity is a policy error with the nearest spelling and its place."""
    with pytest.raises(PolicyError, match=r"gates\.pii\.entities: unknown entity 'EMAIL_ADRESS'.*'EMAIL_ADDRESS'"):
        gate(entities=["EMAIL_ADRESS"])


def test_model_entity() -> None:
    """An entity that only a language model finds is refused, not silently never found."""
    with pytest.raises(PolicyError, match="needs a named-entity model"):
        gate(entities=["PERSON"])


@pytest.mark.parametrize("keys", [{"profil": "agent"}, {"profile": "lax"}, {"entities": []}, {"style": "encrypt"}])
def test_wrong_keys(keys: dict[str, object]) -> None:
    """Unknown keys and values, and an empty list, are refused."""
    with pytest.raises(ValidationError):
        gate(**keys)


@pytest.mark.parametrize("value", ["bob@example.com", CARD, "+44 20 7946 0958", "https://example.com/" + "a" * 3000])
@pytest.mark.parametrize("at", [7000, 8180, 8191, 12280, 14000, 20000])
def test_window_boundaries(value: str, at: int) -> None:
    """In a long text a value is found whole, once, wherever the windows are cut."""
    text = ("word " * 8000)[:at] + " " + value + " " + "word " * 2000
    findings = check(AGENT, text).findings
    assert "".join(text[f.start : f.end] for f in findings) == value
    assert len(findings) == -(-len(value) // 1024)


def test_windows_do_not_invent_edges() -> None:
    """A run of digits that a window cuts is not taken for a shorter number."""
    text = "x" * 8000 + " " + "4111111111111111" * 40 + " " + "y" * 9000
    assert check(gate(entities=["CREDIT_CARD"]), text).findings == ()


@pytest.mark.parametrize(
    "piece", [".", "a.a.", "1.2.3.", "www.", "a!a!@", "a@", "!", "::", "1 1 1 ", "http://a.", "1a", "é.", "\u0130."]
)
@pytest.mark.parametrize("pii", [AGENT, STRICT], ids=["agent", "strict"])
def test_hostile_texts(pii: PiiGate, piece: str) -> None:
    """Texts on which Presidio takes ten seconds, four times as long, end within a generous bound."""
    begin = time.perf_counter()
    check(pii, (piece * 32_768)[:32_768])
    assert time.perf_counter() - begin < 20


@pytest.mark.parametrize("unit", ["digits", "1.2.3.", "a@", "(212) 555-0123 ", "ssn 219099999 ", '"\\n1"', "\uff11-"])
@pytest.mark.parametrize("pii", [AGENT, STRICT], ids=["agent", "strict"])
def test_work_grows_linearly(pii: PiiGate, unit: str) -> None:
    """Four times the text takes about four times the calls up to 100 KB, also for hostile texts."""
    draw = random.Random(1)
    whole = "".join(draw.choices("0123456789 -./()+", k=100_000)) if unit == "digits" else unit * (100_000 // len(unit))

    def work(text: str) -> int:
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        sys.setprofile(count)
        try:
            check(pii, text)
        finally:
            sys.setprofile(None)
        return calls

    small, large = work(whole[: len(whole) // 4]), work(whole)
    assert large <= 4.6 * small + 2_000


def test_a_chain_of_values_goes_together() -> None:
    """Values that come out only when their neighbour is hidden do not take a search each, and none is left."""
    searches = 0

    def find(text: str) -> list[Match]:
        nonlocal searches
        searches += 1
        at = text.find("]1") + 1 if "]1" in text else text.find("1")
        return [Match(at, at + 1, "A_B", 1.0)] if at >= 0 else []

    text = "x" + "1" * 500 + " word 1"
    assert "1" not in apply(text, hidden(text, find, Replacer("remove")))
    assert searches <= 8


def test_base64_then_address() -> None:
    """The address behind 200 KB without a space is found; Presidio alone times out and skips it."""
    text = "QUJD" * 50_000 + " contact bob@example.com"
    assert [text[f.start : f.end] for f in check(AGENT, text).findings] == ["bob@example.com"]


def test_deadline_is_an_error() -> None:
    """When the gate's time is over it says so and does not answer without having looked."""
    token = DEADLINE.set(time.perf_counter() - 1)
    try:
        with pytest.raises(GateError, match="deadline"):
            check(AGENT, f"card {CARD}")
    finally:
        DEADLINE.reset(token)


def test_pattern_timeout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern that runs out of time is a gate error, not a skipped recognizer."""
    monkeypatch.setattr("guardrails_mw.gates.pii.engine._TIMEOUT", 1e-9)
    with pytest.raises(GateError, match=r"pii\.timeout"):
        check(AGENT, "1a" * 4000)


def test_unknown_presidio_runs_plainly() -> None:
    """With recognizers it does not know, the gate leaves the search to them and declares the cost."""
    engine = Engine(PROFILES["agent"], PROFILES["agent"].entities, Library(load().recognizers, known=False))
    pii = PiiGate("pii", engine, Replacer("remove"))
    assert (engine.exact, pii.cost, AGENT.engine.exact, AGENT.cost) == (False, Cost.BLOCKING, True, Cost.LINEAR)
    for text in CORPUS:
        assert scrub(pii, text) == scrub(AGENT, text)


def test_skipped_pattern_in_plain_search_is_an_error() -> None:
    """Presidio only logs that it skipped a pattern; the gate turns that line into an error."""

    class Skipping:
        context = ()

        def analyze(self, text: str, entities: list[str]) -> list[object]:
            logging.getLogger("presidio-analyzer").warning("Regex pattern '%s' timed out after %s seconds", "x", 60)
            return []

    engine = Engine(PROFILES["agent"], ["URL"], Library({"URL": Skipping()}, known=False))
    with pytest.raises(GateError, match=r"pii\.timeout"):
        engine.find("x")


def test_prefilter_runs_everything_without_proof() -> None:
    """Letters that fold into ASCII, other digits and patterns RE2 refuses prove nothing."""
    prefilter = Prefilter({"a": ["[k]x"], "b": ["(?=z)"]})
    assert prefilter.hits("nothing") == {"b"}
    assert prefilter.hits("\u212ax") == prefilter.hits("٣") == {"a", "b"}
    assert Prefilter({"a": ["kx"]}).hits("") == frozenset()
    with pytest.raises(ValueError, match="superset"):
        relaxed(r"\w+@")


def test_prefilter_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """When RE2 gives up, which looks like no match, every recognizer runs."""
    monkeypatch.setattr("guardrails_mw.gates.pii.prefilter._MEMORY", 20_000)
    prefilter = Prefilter({"a": ["(?:x.{200}y|z.{300}w)"], "b": ["q"]})
    assert prefilter.hits("xzxz" * 500) == {"a", "b"}


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither building nor the first address found opens a connection."""

    def refuse(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load.cache_clear()
    pii = gate(profile="strict")
    pii.warm()
    assert scrub(pii, "bob@example.co.uk") == "[EMAIL_ADDRESS]"


def test_no_language_model_is_imported() -> None:
    """The gate works without importing spaCy, torch or Presidio's package, and leaves no trace of it."""
    code = (
        "import sys; from pathlib import Path; from guardrails_mw.gate import Site;"
        "from guardrails_mw.gates.pii.gate import PiiGate, PiiConfig;"
        "assert 'tldextract' not in sys.modules and 'phonenumbers' not in sys.modules;"
        "PiiGate.build(PiiConfig(type='pii'), Site('pii', Path())).warm();"
        "print([m for m in ('spacy', 'torch', 'transformers', 'presidio_analyzer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_presidio_proper_has_the_same_recognizers() -> None:
    """The recognizers loaded without the package are those that an ordinary import gives."""
    from presidio_analyzer import predefined_recognizers

    for entity, recognizer in load().recognizers.items():
        name = type(recognizer).__name__
        proper = getattr(predefined_recognizers, name)()
        assert proper.supported_entities == recognizer.supported_entities == [entity]
        assert proper.context == recognizer.context
        if entity not in ("PHONE_NUMBER", "CREDIT_CARD"):
            assert [(p.regex, p.score) for p in proper.patterns] == [(p.regex, p.score) for p in recognizer.patterns]


def test_shared_phone_search_equals_matchers() -> None:
    """One pass over all regions finds what phonenumbers' matchers find, region by region."""
    import phonenumbers
    from phonenumbers import PhoneNumberMatcher

    from guardrails_mw.gates.pii.phones import PhoneFinder

    regions = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")
    kinds = range(11)
    known = [phonenumbers.example_number_for_type(r, k) for r in phonenumbers.SUPPORTED_REGIONS for k in kinds]
    written = sorted({phonenumbers.format_number(n, f) for n in known if n for f in range(4)})
    noise = st.text("0123456789 -/.()+x~#,", max_size=8)
    texts = st.one_of(
        st.lists(st.tuples(st.sampled_from(written), noise), max_size=5).map(lambda p: "".join(a + b for a, b in p)),
        st.text("0123456789 -/.()+", max_size=90),
        st.text("0123456789 0123456789x~#,ext. -/()[]٣５+", max_size=60),
    )
    finder = PhoneFinder(regions)

    @settings(SETTINGS, max_examples=300)
    @given(texts)
    def holds(text: str) -> None:
        expected = [Match(m.start, m.end, "P", 0.4) for r in regions for m in PhoneNumberMatcher(text, r, leniency=1)]
        assert distinct(Match(*span[:2], "P", 0.4) for span in finder.spans(text)) == distinct(expected)

    holds()


@pytest.mark.parametrize("country", sorted(COUNTRIES))
def test_country_recognizers_equal_presidio(country: str) -> None:
    """A country's recognizers find through the prefilter what they find by themselves."""
    library = national(country)
    engine = Engine(PROFILES["strict"], library.recognizers, library)
    values = [
        "AB123456C", "12345678Z", "65929970489", "ABCPK1234F", "DE 136,695 976", "B-AB 123", "M ÄB 12 E", "44051401359",
        "RSSMRA85T10A562S", "SW1A 1AA", "131052-308T", "830705-1234567", "8001015009087", "51 824 753 556",
        "046-454-286", "S1234567A", "10000000146", "1-1025-00001-23-4", "claim number: AB-12345", "Rx #1234567",
        "HRB 12345", "é12345678", "\u00a0",
    ]  # fmt: skip
    parts = st.one_of(st.sampled_from(values), st.text("0123456789ABCDEKZabc -./ÄÜ\u00a0", max_size=14))

    @settings(SETTINGS, max_examples=60)
    @given(st.lists(st.tuples(parts, st.sampled_from([" ", ", ", "\n", "", ": "])), max_size=5))
    def holds(pairs: list[tuple[str, str]]) -> None:
        text = "".join(a + b for a, b in pairs)
        expected = distinct(
            Match(r.start, r.end, entity, r.score)
            for entity, recognizer in library.recognizers.items()
            for r in recognizer.analyze(text, [entity])
        )
        assert engine.matches(text) == expected

    holds()


@pytest.mark.parametrize(
    ("countries", "text", "scrubbed"),
    [
        (["uk"], "nino AB123456C", "nino [UK_NINO]"),
        (["es"], "DNI 12345678Z", "DNI [ES_NIF]"),
        (["in"], "PAN ABCPK1234F", "PAN [IN_PAN]"),
        (["pl"], "PESEL 44051401359", "PESEL [PL_PESEL]"),
        ([], "nino AB123456C", "nino AB123456C"),
    ],
)
def test_countries(countries: list[str], text: str, scrubbed: str) -> None:
    """Identifiers of the countries that a policy names are found, and of no other."""
    assert scrub(gate(countries=countries), text) == scrubbed


class Badge:
    """A recognizer with Presidio's interface."""

    supported_entities = ("BADGE",)
    context = ("badge",)

    def analyze(self, text: str, entities: list[str], nlp_artifacts: None = None) -> list[object]:
        at = text.find("B-7")
        return [type("Result", (), {"start": at, "end": at + 3, "score": 0.6})] if at >= 0 else []


def test_own_recognizers() -> None:
    """Patterns, lists of words and classes that a policy adds are found beside the built-in ones."""
    own = [
        {"entity": "EMPLOYEE_ID", "pattern": r"EMP-\d{5}", "max_span": 9},
        {"entity": "PROJECT", "deny": ["Blue Moon", "zeus", "C++"]},
        {"entity": "LOCKER", "pattern": r"\d{3}", "max_span": 3, "context": ["locker"], "needs_context": True},
    ]
    text = "EMP-00412 (bob@example.com) on blue moon, zeuss or Zeus, Zeus; xzeus C++"
    assert scrub(gate(recognizers=own), text) == (
        "[EMPLOYEE_ID] ([EMAIL_ADDRESS]) on [PROJECT], zeuss or [PROJECT], [PROJECT]; xzeus [PROJECT]"
    )
    assert scrub(gate(recognizers=own), "room 412, locker 413") == "room 412, locker [LOCKER]"
    assert scrub(gate(recognizers=own, entities=["PROJECT"]), "EMP-00412 zeus") == "EMP-00412 [PROJECT]"


def test_recognizer_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class with Presidio's interface is used by its import path, in a worker thread."""
    monkeypatch.setitem(sys.modules, "my_badges", type(sys)("my_badges"))
    sys.modules["my_badges"].Badge = Badge  # type: ignore[attr-defined]
    pii = gate(recognizers=[{"use": "my_badges:Badge", "max_span": 3}])
    assert scrub(pii, "his B-7 is lost") == "his [BADGE] is lost"
    assert pii.cost is Cost.BLOCKING
    with pytest.raises(PolicyError, match=r"recognizers\.0\.use: my_badges has no 'Badges'; did you mean 'Badge'"):
        gate(recognizers=[{"use": "my_badges:Badges", "max_span": 3}])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"countries": ["uu"]}, "unknown country 'uu'.*allowed: au, ca, de"),
        ({"entities": ["UK_NINO"]}, r"belongs to a country; add countries: \[uk\]"),
        (
            {"recognizers": [{"entity": "X_Y", "pattern": "(?=a)", "max_span": 3}]},
            r"recognizers\.0\.pattern: not an RE2",
        ),
        ({"recognizers": [{"entity": "X_Y", "pattern": "a*", "max_span": 3}]}, "matches an empty text"),
    ],
)
def test_policy_errors(keys: dict[str, object], told: str) -> None:
    """What cannot be found or used is refused with its place and what is allowed."""
    with pytest.raises(PolicyError, match=told):
        gate(**keys)


@pytest.mark.parametrize(
    "keys", [{"pattern": "a"}, {"deny": ["a"], "pattern": "b"}, {"use": "a:b"}, {"pattern": "a", "max_span": 0}]
)
def test_incomplete_recognizers(keys: dict[str, object]) -> None:
    """A recognizer without a kind, with two, or without its longest span is refused."""
    with pytest.raises(ValidationError):
        gate(recognizers=[{"entity": "X_Y", **keys}])


@pytest.mark.parametrize("style", ["remove", "mask", "hash"])
def test_json_in_text_stays_json(style: str) -> None:
    """Values behind escapes are found whole, and what is left of a JSON text is JSON."""
    pii = gate(style=style)
    leaf = st.one_of(
        st.integers(0, 10**17), st.booleans(), st.floats(allow_nan=False, allow_infinity=False),
        st.lists(st.sampled_from(["bob@example.com", "\n", "\t", '"', "\\", "/", "é", "😀", "a", CARD, SSN, " ", "https://x.org/a"]),
                 max_size=6).map("".join),
    )  # fmt: skip
    values = st.recursive(
        leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(["ssn", "to", "n"]), v, max_size=3)
    )

    @settings(SETTINGS, max_examples=150)
    @given(st.dictionaries(st.sampled_from(["ssn", "phone", "m"]), values, min_size=1), st.booleans(), st.booleans())
    def holds(value: dict[str, object], ascii_only: bool, nested: bool) -> None:
        text = json.dumps(value, ensure_ascii=ascii_only)
        text = json.dumps({"body": text}) if nested else text
        once = scrub(pii, text)
        json.loads(once)
        assert scrub(pii, once) == once

    holds()


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (r'{"m":"call\n212-555-5555\nbob@example.com"}', r'{"m":"call\n[PHONE_NUMBER]\n[EMAIL_ADDRESS]"}'),
        (r'{"m":"bob\u0040example.com"}', '{"m":"[EMAIL_ADDRESS]"}'),
        ('{"ssn": 219099999, "n": 1}', '{"ssn": "[US_SSN]", "n": 1}'),
        ('{"link": "https://x.org/a"}', '{"link": "[URL]"}'),
        (r'{"b":"{\"e\":\"x\\nbob@e.com\"}"}', r'{"b":"{\"e\":\"x\\n[EMAIL_ADDRESS]\"}"}'),
        (r'Result: {"m": "hi\nbob@e.com"} ok', r'Result: {"m": "hi\n[EMAIL_ADDRESS]"} ok'),
        ("it is 2 1 9 0 9 9 8 7 6", "it is [US_SSN]"),
        ("row 1 0 0 1 0 1 1 0 1", "row 1 0 0 1 0 1 1 0 1"),
        ("see http://intranet.example:8443/x?y=1", "see [URL]"),
        ("see www.shop.biz/a?b=c and www.kasa.museum", "see [URL] and [URL]"),
        ("see https://x.org/path_(y)/z (or https://y.org/a)", "see [URL] (or [URL])"),
        ("to BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4 now", "to [CRYPTO] now"),
        ("to BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T5 now", "to BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T5 now"),
        ("pay 4000 0000 0000 0000 006", "pay [CREDIT_CARD]"),
        ("id 4000000000000000006, visa 4000000000000000006", "id 4000000000000000006, visa [CREDIT_CARD]"),
        ("ISBN 0-306-40615-2, serial no. 0532-6178-5879", "ISBN 0-306-40615-2, serial no. 0532-6178-5879"),
        ("+49 30 123456,+49 30 654321", "[PHONE_NUMBER],[PHONE_NUMBER]"),
        ("an BR18 0036 0305 0000 1000 9795 493C 1.", "an [IBAN_CODE]."),
        ("mail a@gov.pl or b@shop.biz", "mail [EMAIL_ADDRESS] or [EMAIL_ADDRESS]"),
        ("+61 2 5550 1234", "[PHONE_NUMBER]"),
        ("score 0.4111111111111111", "score 0.4111111111111111"),
    ],
)
def test_forms(text: str, scrubbed: str) -> None:
    """Escapes, numbers in JSON, spelled-out digits and forms that Presidio leaves out."""
    assert scrub(AGENT, text) == scrubbed


def test_numbers_under_a_key() -> None:
    """Bare numbers and texts in structured values are known by their key, however it is spelt."""
    for key in ("ssn", "customerSsn", "social_security_number", "SSN"):
        assert [f.type for f in check(AGENT, {key: "219099999"}).findings] == ["US_SSN"]
        assert [f.type for f in check(AGENT, {key: 219099999}).findings] == ["US_SSN"]
    assert [f.type for f in check(AGENT, {"contactPhone": "21 23 96 85"}).findings] == ["PHONE_NUMBER"]


def test_one_disguise_does_not_change_how_another_is_read() -> None:
    """Full-width digits are read as digits only, whether or not something else in the text is undone too."""
    card = "\uff14\uff11\uff11\uff11 1111 1111 1111 192.168.10.20"
    alone, beside = scrub(gate(), card), scrub(gate(), f"{card} and then bob%40example.com")
    assert beside == f"{alone} and then [EMAIL_ADDRESS]"
