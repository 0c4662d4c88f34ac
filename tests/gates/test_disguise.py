"""What a disguise hides is read, and led back to where it stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gates.disguise import plainly, undisguised
from guardrails_mw.gates.secrets import SecretsGate
from guardrails_mw.redaction import apply

KEY = "AKIA2Q7ZRKV5LWBN3XYT"
PASSWORD = "Tr0ub4dor&3xQ-v7"
SIGNS = "a1A -%&#;\\u0041x\u200b\u00ad\ufe0f\u0301\uff21\U0001d7ce\u0410\u2011\u00a0\x00\x1b[m\u3002"


def wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) for char in text)


def mathematical(text: str) -> str:
    return "".join(chr(0x1D400 + ord(c) - 65) if c.isupper() else chr(0x1D7CE + int(c)) for c in text)


DISGUISES = {
    "zero width": KEY[:2] + "\u200b" + KEY[2:],
    "between all": "\u2060".join(KEY),
    "soft hyphen": KEY[:9] + "\u00ad" + KEY[9:],
    "variation": KEY[:9] + "\ufe0f\U000e0101" + KEY[9:],
    "tag characters": KEY[:9] + "\U000e0041" + KEY[9:],
    "filler": KEY[:9] + "\u3164" + KEY[9:],
    "controls": KEY[:9] + "\x00\x07" + KEY[9:],
    "colours": KEY[:9] + "\x1b[1;31m" + KEY[9:],
    "underlined": "\u0332".join(KEY),
    "wide": wide(KEY),
    "mathematical": mathematical(KEY),
    "references": "".join(f"&#{ord(char)};" for char in KEY),
    "hexadecimal": "".join(f"&#x{ord(char):x};" for char in KEY),
    "percent": "".join(f"%{ord(char):x}" for char in KEY),
    "percent twice": "%2541" + KEY[1:],
    "percent in reference": "&#37;41" + KEY[1:],
    "backslashes": "".join(f"\\u{ord(char):04x}" for char in KEY),
    "backslash x": "\\x41" + KEY[1:],
    "look-alikes": "\u0410\u041a\u0406\u0410" + KEY[4:],
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_secret_is_found_in_disguise_and_goes_as_a_whole(name: str) -> None:
    """Whatever a key is written with, an edit takes out all of it and nothing around it."""
    event = Event(Stage.OUTPUT, Content(f"see {DISGUISES[name]} opens it"))
    verdict = SecretsGate("secrets").check(event)
    assert apply(event.content, verdict.edits).value == "see [SECRET:aws_access_key] opens it"


@pytest.mark.parametrize(
    "name",
    [
        "pass\u200bword=", "pass\u00adword: ", "p\u0430ssword=", wide("password="), "password\uff1a", "pass\\u0077ord=",
        "password&#61;", "password%3D", "mot de passe\u00a0= ", "password\u00a0=\u00a0",
    ],
)  # fmt: skip
def test_a_telling_name_tells_in_disguise(name: str) -> None:
    """The name before a password may be disguised, and what stands between the two."""
    event = Event(Stage.OUTPUT, Content(f"{name}{PASSWORD} it is"))
    verdict = SecretsGate("secrets").check(event)
    assert apply(event.content, verdict.edits).value == f"{name}[SECRET:generic] it is"


def test_a_key_of_an_argument_tells_in_disguise() -> None:
    """So may the key over it."""
    verdict = SecretsGate("secrets").check(Event(Stage.TOOL_CALL, Content({"pass\u200bword": PASSWORD})))
    assert [edit.text for edit in verdict.edits] == ["[SECRET:generic]"]


def test_a_secret_behind_an_escaped_line_break_is_found() -> None:
    r"""Text of a program holds ``\n`` for a line break: the letter before a key is none of its own."""
    event = Event(Stage.TOOL_RESULT, Content(r'{"file": "A=1\n' + KEY + r'\nB=2"}'))
    verdict = SecretsGate("secrets").check(event)
    assert apply(event.content, verdict.edits).value == r'{"file": "A=1\n[SECRET:aws_access_key]\nB=2"}'


@pytest.mark.parametrize(
    "text",
    [
        "Well done \u2764\ufe0f", "\U0001f469\u200d\U0001f4bb works", "caf\u00e9", "C:\\windows",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "100 % of it", "R&D and Q&A; more",
    ],
)  # fmt: skip
def test_ordinary_text_is_as_it_reads(text: str) -> None:
    """Emoji, scripts that need joiners, signs by themselves: nothing to undo, nothing to pay for."""
    assert undisguised(text) is None


@given(st.text(SIGNS, max_size=40))
def test_every_character_leads_back_to_its_own_disguise(text: str) -> None:
    """Spans of a plain text lead to spans of the original in order, and undo to the same again."""
    plain = undisguised(text)
    if plain is None:
        return
    end = 0
    for index in range(len(plain.text)):
        start, stop = plain.span(index, index + 1)
        assert end <= start < stop <= len(text) or (start, stop) == plain.span(index - 1, index)
        assert plain.origin(index) == start
        assert plain.place(start) <= index
        end = stop
    assert [plain.place(at) for at in range(len(text) + 1)] == sorted(plain.place(at) for at in range(len(text) + 1))
    assert plainly(text) == plain.text
