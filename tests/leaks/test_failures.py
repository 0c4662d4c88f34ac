"""What a tool's or model's exception says is decided before anybody hears it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from chat import ScriptedModel, in_turn, make_guard, run, thread, tool_messages, wants
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware, ToolRetryMiddleware
from langchain_core.tools import BaseTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel
from surfaces import Tracer, hiding, kept, on_record

MAIL = "ann.jones@example.org"
HIDDEN = "[EMAIL_ADDRESS]"
WORD = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {tool_result: [word]}"


class Odd(Exception):
    """Says nothing in its text and everything in its form."""

    def __init__(self, hidden: str) -> None:
        self.hidden = hidden
        super().__init__()

    def __repr__(self) -> str:
        return f"Odd({self.hidden})"


def _chained(said: str) -> BaseException:
    try:
        try:
            raise KeyError(said)
        except KeyError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as error:
        return error


def _noted(said: str) -> BaseException:
    error = ValueError("see the note")
    error.add_note(said)
    return error


def _long(said: str) -> BaseException:
    error: BaseException = ValueError(said)
    for number in range(12):
        after = RuntimeError(f"step {number}")
        after.__cause__, error = error, after
    return error


def _grouped(said: str) -> BaseException:
    return ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [_chained(said), _noted(said)])])


class Mute(Exception):
    """Cannot say what it is, and has a note."""

    def __init__(self, said: str) -> None:
        self.add_note(said)

    def __str__(self) -> str:
        raise ValueError("no words")


RAISES = {
    "plain": ValueError, "tool": ToolException, "odd": Odd, "chained": _chained, "noted": _noted, "long": _long,
    "grouped": _grouped, "mute": Mute,
}  # fmt: skip


def _look(error: BaseException, **options: object) -> BaseTool:
    @tool
    def look(q: str) -> str:
        """Look something up."""
        raise error

    return look.model_copy(update=options)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("kind", RAISES)
def test_an_exception_that_propagates_is_edited(
    kind: str, mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller, tracers, the pending error in the checkpoint, logs and the ledger get the edited words."""
    saver, tracer = InMemorySaver(), Tracer()
    caplog.set_level(logging.DEBUG)
    with make_guard(tmp_path, hiding("tool_result")) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
        look = _look(RAISES[kind](f"no {MAIL} here"))
        agent = create_agent(model, [look], middleware=[guard.middleware()], checkpointer=saver)
        [error] = run(mode, agent, [{"messages": "go"}], [{**thread(), "callbacks": [tracer]}])
        assert isinstance(error, ToolException)
        assert MAIL not in repr(error) + repr(error.__cause__) + repr(error.__context__)
        assert MAIL not in kept(saver)
        assert tracer.of(MAIL) == []
        assert "on_tool_error" in {hook for hook, _ in tracer.heard}
        assert MAIL not in caplog.text
        assert MAIL not in on_record(guard, tmp_path)


def test_an_exception_with_nothing_to_hide_stays_itself(tmp_path: Path) -> None:
    """The very exception goes on, so that retries by its type work."""
    mine = ConnectionError("no route")
    with make_guard(tmp_path, hiding("tool_result")) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
        agent = create_agent(model, [_look(mine)], middleware=[guard.middleware()])
        [error] = run("invoke", agent, [{"messages": "go"}], [{}])
        assert error is mine


@pytest.mark.parametrize("said", [MAIL, "swordfish"])
@pytest.mark.parametrize("handled", ["retry", "tool node", "tool"])
def test_an_exception_that_becomes_a_message_is_decided(handled: str, said: str, tmp_path: Path) -> None:
    """Whoever makes a message of an exception makes it of decided words, at the first checkpoint too."""
    saver, tracer = InMemorySaver(), Tracer()
    source = hiding("tool_result") if said == MAIL else WORD
    with make_guard(tmp_path, source) as guard:
        look = _look(ToolException(said), **({"handle_tool_error": True} if handled == "tool" else {}))
        if handled == "tool node":
            node = guard.tool_node([look])
            builder = StateGraph(MessagesState)
            builder.add_node("tools", node)
            builder.add_edge(START, "tools")
            graph = builder.compile(checkpointer=saver)
            value: object = {"messages": [wants("look", q="x")]}
        else:
            outer = [ToolRetryMiddleware(max_retries=0)] if handled == "retry" else []
            model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
            graph = create_agent(model, [look], middleware=[*outer, guard.middleware()], checkpointer=saver)
            value = {"messages": "go"}
        [outcome] = run("invoke", graph, [value], [{**thread(), "callbacks": [tracer]}])
        assert said not in repr(outcome)
        assert said not in kept(saver)
        assert tracer.of(said) == []
        if handled != "tool node":
            [message] = tool_messages(outcome)
            assert (HIDDEN if said == MAIL else "blocked: codeword") in str(message.content)


def test_arguments_that_do_not_fit_are_not_repeated(tmp_path: Path) -> None:
    """A tool's complaint about its arguments shows those that were decided, to the model and to tracers."""

    class Form(BaseModel):
        """What the tool takes."""

        q: int

    @tool(args_schema=Form)
    def look(q: int) -> str:
        """Look something up."""
        return "never"

    tracer, saver = Tracer(), InMemorySaver()
    with make_guard(tmp_path, hiding("tool_call", "tool_result")) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
        agent = create_agent(model, [look], middleware=[guard.middleware()], checkpointer=saver)
        state = agent.invoke({"messages": "go"}, {**thread(), "callbacks": [tracer]})
        assert "valid integer" in tool_messages(state)[0].content
        assert MAIL not in kept(saver)
        assert tracer.of(MAIL) == []


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("retried", [True, False])
def test_a_models_exception_is_edited(retried: bool, mode: str, tmp_path: Path) -> None:
    """What a provider repeats of a conversation in its error reaches neither the state nor a tracer."""
    saver, tracer = InMemorySaver(), Tracer()
    model = ScriptedModel(script=lambda _: ValueError(f"bad request: {MAIL}"))
    with make_guard(tmp_path, hiding("output")) as guard:
        outer = [ModelRetryMiddleware(max_retries=0)] if retried else []
        agent = create_agent(model, [], middleware=[*outer, guard.middleware()], checkpointer=saver)
        [outcome] = run(mode, agent, [{"messages": "go"}], [{**thread(), "callbacks": [tracer]}])
        assert isinstance(outcome, Exception) != retried
        assert HIDDEN in repr(outcome)
        assert MAIL not in repr(outcome)
        assert MAIL not in kept(saver)
        assert tracer.of(MAIL) == []


def test_a_models_own_exception_stays_itself(tmp_path: Path) -> None:
    """A rate limit is a rate limit: what has nothing to hide keeps its type, and no gate for answers is asked of it."""
    mine = ConnectionError("slow down")
    shape = "gates: {form: {type: json_schema, schema: {type: object}}}\nstages: {output: [form]}"
    with make_guard(tmp_path, shape) as guard, pytest.raises(ConnectionError) as raised:
        guard.model(ScriptedModel(script=lambda _: mine)).invoke("hi")
    assert raised.value is mine
