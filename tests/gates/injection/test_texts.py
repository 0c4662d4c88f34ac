r"""Attacks and harmless texts written for this project: the gate's errors in both directions, held within bounds.

A line is a text; ``\n`` in it is a line break; lines that begin with ``##`` are headings.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gates.injection.gate import InjectionGate
from guardrails_mw.verdict import Action

GATE = InjectionGate("injection")


def lines(name: str) -> list[str]:
    raw = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return [line.replace("\\n", "\n") for line in raw if line and not line.startswith("##")]


@pytest.mark.parametrize("stage", [Stage.INPUT, Stage.TOOL_RESULT])
def test_talk_that_uses_the_words_of_attacks_is_not_blocked(stage):
    """Security documents, code reviews, mails, role play and requests in many languages pass, every one of them."""
    texts = lines("harmless.txt")
    assert len(texts) > 180
    assert [text for text in texts if GATE.check(Event(stage, Content(text))).action is Action.BLOCK] == []


def test_most_ways_to_say_the_same_attack_are_blocked():
    """Override, new tasks, personas, requests for the prompt or a secret, forged turns: most lines, and never less."""
    texts = lines("attacks.txt")
    blocked = [text for text in texts if GATE.check(Event(Stage.INPUT, Content(text))).action is Action.BLOCK]
    assert len(texts) > 340
    assert len(blocked) >= 0.7 * len(texts)
