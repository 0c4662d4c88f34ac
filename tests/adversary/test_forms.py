"""Values of any form that a guarded chain may be given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from chat import make_guard
from langchain_core.runnables import RunnableLambda

from guardrails_mw.errors import GuardrailBlocked

POLICY = """
unchecked: flag
gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}, word: {type: python, call: 'chat:codeword', cost: linear}}
stages: {input: [word, pii]}
"""


@dataclass(frozen=True)
class Question:
    text: str


@pytest.mark.parametrize(
    "wrap", [Question, lambda t: {"q": Question(t)}, lambda t: {"q": {t}}, lambda t: [Question(t)]]
)
def test_text_in_a_dataclass_or_a_set_is_read_and_edited(tmp_path: Path, wrap: type[Question]) -> None:
    """Text does not pass unread because it stands in a dataclass or a set, where a policy lets images pass."""
    seen: list[Question | Mapping[str, object]] = []
    guard = make_guard(tmp_path, POLICY)
    guard.warm()
    chain = guard.runnable(RunnableLambda(lambda value: seen.append(value) or "ok"))
    with pytest.raises(GuardrailBlocked, match="codeword"):
        chain.invoke(wrap("swordfish"))
    assert chain.invoke(wrap("I am amy@example.com")) == "ok"
    assert seen == [wrap("I am [EMAIL_ADDRESS]")]
