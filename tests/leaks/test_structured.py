"""A structured answer is an answer: edited or blocked wherever it is kept, whichever way the model gives it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pytest
from chat import ScriptedModel, in_turn, make_guard, run, spoke, thread, wants
from langchain.agents import create_agent
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field
from surfaces import Tracer, hiding, kept

from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.testing.leaving import bytes_of
from guardrails_mw.testing.running import checkpoint_bytes

MAIL, CARD = "ann.jones@example.org", 4111111111111111
HIDDEN = "[EMAIL_ADDRESS]"
WORD = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {output: [word]}"


class Person(BaseModel):
    """Somebody."""

    mail: str


class Provider(ScriptedModel):
    """A model that keeps what it is bound with, as those of providers do."""

    def bind_tools(self, tools: Sequence[object], **kwargs: object) -> object:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)


class Nobody(BaseModel):
    """No one."""

    why: str


TITLED = {"title": "someone", "type": "object", "properties": {"mail": {"type": "string"}}}
FORMATS = {
    "tool": (ToolStrategy(Person), "Person"),
    "union": (ToolStrategy(Person | Nobody), "Person"),
    "named": (ToolStrategy(TITLED), "someone"),
    "auto": (AutoStrategy(Person), "Person"),
    "type": (Person, "Person"),
    "schema": (TITLED, "someone"),
    "provider": (ProviderStrategy(Person), ""),
}


def _answer(name: str, said: str) -> AIMessage:
    return wants(name, mail=said) if name else AIMessage(json.dumps({"mail": said}))


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_structured_response_is_edited(form: str, mode: str, tmp_path: Path) -> None:
    """In each of LangChain's strategies the value, its message and all that is kept of it are edited."""
    saver, tracer, (wanted, name) = InMemorySaver(), Tracer(), FORMATS[form]
    with make_guard(tmp_path, hiding("output")) as guard:
        model = ScriptedModel(script=in_turn(_answer(name, MAIL)))
        agent = create_agent(
            model, [], middleware=[guard.middleware()], response_format=wanted, checkpointer=saver
        )  # fmt: skip
        [outcome] = run(mode, agent, [{"messages": "go"}], [{**thread(), "callbacks": [tracer]}])
        answer = agent.get_state(thread()).values["structured_response"]
        assert (answer if isinstance(answer, dict) else answer.model_dump()) == {"mail": HIDDEN}
        assert MAIL not in repr(outcome)
        assert MAIL not in kept(saver)
        assert tracer.of(MAIL) == []


def test_a_schema_whose_tool_has_no_name_of_its_own_is_refused(tmp_path: Path) -> None:
    """A schema without a title gets a random name from LangChain: that is said, not passed by."""
    untitled = {"type": "object", "properties": {"mail": {"type": "string"}}}
    with make_guard(tmp_path, hiding("output")) as guard:
        model = ScriptedModel(script=in_turn("never"))
        agent = create_agent(model, [], middleware=[guard.middleware()], response_format=AutoStrategy(untitled))
        with pytest.raises(ValueError, match="title"):
            agent.invoke({"messages": "go"})


@pytest.mark.parametrize("form", ["tool", "type", "provider"])
def test_callbacks_alone_decide_an_agents_structured_answer(form: str, tmp_path: Path) -> None:
    """An agent without any other seam: the structured answer meets the gates for answers before it is kept."""
    saver, (wanted, name) = InMemorySaver(), FORMATS[form]
    for number, (source, said, reason) in enumerate(
        ((WORD, "swordfish", "codeword"), (hiding("output"), MAIL, "unenforceable"))
    ):
        (tmp_path / str(number)).mkdir()
        with make_guard(tmp_path / str(number), source) as guard:
            model = ScriptedModel(script=in_turn(_answer(name, said)))
            agent = create_agent(model, [], response_format=wanted, checkpointer=saver)
            with pytest.raises(GuardrailBlocked, match=reason):
                agent.invoke({"messages": "go"}, {**thread(str(number)), "callbacks": guard.callbacks()})
            assert said not in kept(saver)


def test_callbacks_alone_let_a_clean_structured_answer_pass(tmp_path: Path) -> None:
    """What no gate minds is given back."""
    with make_guard(tmp_path, hiding("output")) as guard:
        model = ScriptedModel(script=in_turn(_answer("Person", "none")))
        agent = create_agent(model, [], response_format=ToolStrategy(Person))
        state = agent.invoke({"messages": "go"}, {"callbacks": guard.callbacks()})
        assert state["structured_response"] == Person(mail="none")


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "batch"])
def test_callbacks_alone_decide_with_structured_output(mode: str, tmp_path: Path) -> None:
    """The call that carries the answer of `with_structured_output` is decided as the answer."""
    with make_guard(tmp_path, WORD) as guard:
        model = Provider(script=in_turn(_answer("Person", "swordfish"))).with_structured_output(Person)
        [error] = run(mode, model, ["who?"], [{"callbacks": guard.callbacks()}])
        assert isinstance(error, GuardrailBlocked)
        assert [row[:4] for row in spoke(guard)] == [("output", "block", "word", "codeword")]


def test_a_guarded_model_gives_an_edited_structured_answer(tmp_path: Path) -> None:
    """`with_structured_output` of a guarded model parses what was decided, and keeps no raw copy."""
    with make_guard(tmp_path, hiding("output")) as guard:
        model = guard.model(ScriptedModel(script=in_turn(_answer("Person", MAIL))))
        found = model.with_structured_output(Person, include_raw=True).invoke("who?")
        assert found["parsed"] == Person(mail=HIDDEN)
        assert MAIL not in repr(found)


class Hidden(Person):
    """Somebody, with a field that is not dumped and a value that is worked out once."""

    note: str = Field(exclude=True)

    @cached_property
    def address(self) -> str:
        """Where letters go."""
        return f"to {self.mail}"


@pytest.mark.parametrize("mode", ["invoke", "stream"])
@pytest.mark.parametrize("field", ["additional_kwargs", "llm_output"])
def test_a_parsed_answer_beside_the_text_is_edited(field: str, mode: str, tmp_path: Path) -> None:
    """The object that OpenAI's models put beside their answer, and what a provider says of a call, are read.

    The object keeps its type; fields that are not dumped, and what it worked out of the old ones, are edited or gone.
    """
    parsed = Hidden(mail=MAIL, note=f"card {CARD}")
    assert MAIL in parsed.address
    told = {"parsed": parsed, "card": CARD, MAIL: True, "a_signature": MAIL, "rows": ({MAIL},)}

    class Telling(ScriptedModel):
        """A model whose provider says more of a call than its answer."""

        def _generate(self, *args: object, **kwargs: object) -> ChatResult:
            result = super()._generate(*args, **kwargs)
            return result.model_copy(update={"llm_output": told}) if field == "llm_output" else result

    saver, tracer = InMemorySaver(), Tracer()
    policy = hiding("output").replace("[EMAIL_ADDRESS]", "[EMAIL_ADDRESS, CREDIT_CARD]")
    with make_guard(tmp_path, policy) as guard:
        said = AIMessage("Here.", additional_kwargs=told if field == "additional_kwargs" else {})
        model = Telling(script=in_turn(said), disable_streaming=field == "llm_output")
        agent = create_agent(model, [], middleware=[guard.middleware()], checkpointer=saver)
        [outcome] = run(mode, agent, [{"messages": "go"}], [{**thread(), "callbacks": [tracer]}])
        answer = agent.get_state(thread()).values["messages"][-1]
    kept_in = answer.additional_kwargs if field == "additional_kwargs" else answer.response_metadata
    assert kept_in["card"] == "[CREDIT_CARD]"
    left = bytes_of([outcome, tracer.heard]) + checkpoint_bytes(saver)
    assert MAIL.encode() not in left
    assert str(CARD).encode() not in left
    if mode == "invoke" and field == "additional_kwargs":
        [message] = [each for each in outcome["messages"] if isinstance(each, AIMessage)]
        assert message.additional_kwargs["parsed"] == Hidden(mail=HIDDEN, note="card [CREDIT_CARD]")
