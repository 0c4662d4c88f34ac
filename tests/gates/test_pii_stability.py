"""What the pii gate promises a stream: what was found does not change when more text arrives."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import Site
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate

PIECES = [
    "phone 2125550123", "ssn 219099999", "219-09-9999", "bob@example.com", "DE89 3704 0044 0532 0130 00",
    "+49 30 123456", "4111 1111 1111 1111", "http://example.com/a?b=c", "1.2.3.4", "2001:db8::1", "the",
    "call\\n212-555-5555", '"', "{", "\\", "%40", "1 2 3 4 5 6 7 8 9", "2125550123", "1", "22-", "EMP-123",
    "passport", "12345678", "word " * 30, "7" * 90, "\n", "a" * 700, "@example.com", "\u200b", "\uff11", "zeus",
]  # fmt: skip
TEXTS = st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from([" ", "", ", ", ": ", "\n"])), max_size=60).map(
    lambda pairs: "".join(a + b for a, b in pairs)
)
OWN = [{"entity": "EMPLOYEE_ID", "pattern": r"EMP-\d{3}", "max_span": 7}, {"entity": "GOD", "deny": ["zeus"]}]
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def gate(**keys: object) -> PiiGate:
    return PiiGate.build(PiiConfig.model_validate({"type": "pii", **keys}), Site("pii", Path(), b"k" * 32))


def spans(pii: PiiGate, text: str) -> list[tuple[int, int, str]]:
    return [(f.start, f.end, f.type) for f in pii.check(Event(Stage.OUTPUT, Content(text))).findings]


GATES = {
    "agent": gate(), "strict": gate(profile="strict"), "own": gate(recognizers=OWN),
    "countries": gate(profile="strict", countries=["uk", "de"]), "mask": gate(style="mask"),
}  # fmt: skip


@pytest.mark.parametrize("name", GATES)
def test_findings_stay_when_text_is_appended(name: str) -> None:
    """Findings that end more than `max_span` before the end of a text are those of every longer text."""
    pii = GATES[name]
    assert pii.max_span is not None

    @SETTINGS
    @given(TEXTS, TEXTS, st.sampled_from([0, 20, 230]))
    def holds(text: str, more: str, rest: int) -> None:
        assume(text.lstrip()[:1] not in ("{", "["))
        text = text[:5800] + " word" * rest
        safe = len(text) - pii.max_span
        early = [each for each in spans(pii, text) if each[1] <= safe]
        assert early == [each for each in spans(pii, text + more) if each[1] <= safe]

    holds()


@pytest.mark.parametrize("name", GATES)
def test_no_finding_is_longer_than_declared(name: str) -> None:
    """Nothing is longer than `max_span`."""
    pii = GATES[name]
    assert pii.max_span is not None

    @SETTINGS
    @given(TEXTS)
    def holds(text: str) -> None:
        assert all(end - start <= pii.max_span for start, end, _ in spans(pii, text[:7000]))

    holds()


@pytest.mark.parametrize("name", GATES)
def test_words_further_back_than_declared_have_no_say(name: str) -> None:
    """What stands `look_back` or more before a value does not change whether it counts."""
    pii = GATES[name]
    assert pii.look_back is not None
    for word in ("ssn", "phone", "passport", "driver"):
        gap = "1. " * (pii.look_back // 3 + 1)
        for value in ("219099999", "2125550123", "A1234567"):
            tail = gap + value
            far = spans(pii, tail)
            shifted = [(s - len(word) - 1, e - len(word) - 1, t) for s, e, t in spans(pii, f"{word} {tail}")]
            assert [each for each in shifted if each[0] > len(gap) - 2] == [
                each for each in far if each[0] > len(gap) - 2
            ]


def test_declared_reach() -> None:
    """A long word to deny lengthens what is declared; nothing is declared short of what is built in."""
    assert gate(recognizers=[{"entity": "LONG_WORD", "deny": ["x" * 3000]}]).max_span == 3000
    assert gate(recognizers=OWN).max_span == gate().max_span == 1024
    assert gate().look_back == 400


def test_long_mailbox_is_cut_at_the_declared_length() -> None:
    """A mailbox without end, which no mail server takes, is hidden as far back as declared."""
    text = "a" * 3000 + "@example.com"
    assert spans(gate(), text) == [(len(text) - 1024, len(text), "EMAIL_ADDRESS")]


@pytest.mark.parametrize(
    ("profile", "head", "tail"),
    [("agent", "http://example.com/", "a"), ("strict", "www.example.com/", "1"), ("agent", "fe80::1%", "e")],
)
def test_what_has_no_longest_form_is_hidden_in_pieces(profile: str, head: str, tail: str) -> None:
    """An address without end is hidden whole, no piece is too long, and early pieces stay."""
    pii = gate(profile=profile)
    found = [spans(pii, head + tail * count) for count in (3000, 5000)]
    for count, each in zip((3000, 5000), found, strict=True):
        assert each[-1][1] == len(head) + count
        assert all(left[1] == right[0] for left, right in pairwise(each))
        assert all(end - start <= 1024 for start, end, _ in each)
    assert found[0][:2] == found[1][:2]


def test_own_pattern_longer_than_declared_is_cut() -> None:
    """A pattern that goes on further than its author said is hidden no further back than the gate declares."""
    own = [{"entity": "LONG_ONE", "pattern": "b+c", "max_span": 9}]
    text = "b" * 3000 + "c"
    assert spans(gate(recognizers=own), text) == [(len(text) - 1024, len(text), "LONG_ONE")]
