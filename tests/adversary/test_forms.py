"""Values of any form that a guarded chain may be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from chat import ScriptedModel, in_turn, make_guard
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

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


class Part(BaseModel):
    """A part of an answer."""

    number: int = 1


class Told(Part):
    """A part that says something."""

    note: str = ""


class Answer(BaseModel):
    """An answer whose dump says less than it holds."""

    part: Part = Part()
    hidden: str = Field("", exclude=True, alias="secret")
    messages: list[BaseMessage] = []


class Pair(NamedTuple):
    """Two texts."""

    name: str
    mail: str


RAW = "amy@example.com"
FORMS = [
    lambda text: Answer(part=Told(note=text)),
    lambda text: Answer(secret=text),
    lambda text: Answer(messages=[AIMessage("", tool_calls=[{"name": "look", "args": {"q": text}, "id": "c1"}])]),
    lambda text: {"parsed": Pair("Amy", text)},
]


@pytest.mark.parametrize("form", FORMS, ids=["subclass", "excluded", "messages", "pair"])
def test_text_that_a_dump_leaves_out_is_read_and_edited(form: Callable[[str], object], tmp_path: Path) -> None:
    """Fields of a subclass further in, fields left out of dumps and calls of messages in a model: all that it holds."""
    guard = make_guard(tmp_path, "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {output: [pii]}")
    value = form(RAW)
    assert guard.runnable(RunnableLambda(lambda _: value)).invoke("hi") == form("[EMAIL_ADDRESS]")
    assert value == form(RAW)


def test_what_a_provider_parsed_is_decided_with_the_text(tmp_path: Path) -> None:
    """What a provider parsed stands beside the text, as a model: it is read like the text, and stays a model."""
    guard = make_guard(tmp_path, "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {output: [pii]}")
    answer = AIMessage(f'{{"note": "{RAW}"}}', additional_kwargs={"parsed": Told(note=RAW)})
    said = guard.model(ScriptedModel(script=in_turn(answer))).invoke("hi")
    assert said.additional_kwargs == {"parsed": Told(number=1, note="[EMAIL_ADDRESS]")}
