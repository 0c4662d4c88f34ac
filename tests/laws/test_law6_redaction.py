"""Law 6: nothing leaves unredacted, by any way that exists."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, in_turn, make_guard, run, thread, wants
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from guardrails_mw.errors import GuardrailBlocked

POLICY = """
gates: {pii: {type: pii}, secrets: {type: secrets}, words: {type: python, call: "chat:codeword", cost: linear}}
record: {redact: [pii, secrets]}
stages:
  input: [pii, secrets]
  tool_call: [pii, secrets]
  tool_result: [pii, secrets, words]
  output: [pii, secrets]
default_tool: allow
"""
MAIL, CARD = "ann.jones@example.org", "4111 1111 1111 1111"
RAW = (MAIL, "ann.jones", CARD, "swordfish")


class Recorder(BaseCallbackHandler):
    """A tracer that keeps everything it is told."""

    run_inline = True

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_chat_model_start(self, *args: object, **kwargs: object) -> None:
        self.heard.append(repr((args, kwargs)))

    on_llm_end = on_llm_new_token = on_tool_end = on_chat_model_start


@tool
def look(q: str) -> str:
    """Look somebody up."""
    return f"{q}: reach {MAIL}, card {CARD}"


@tool
def fails(q: str) -> str:
    """Fail with a secret in the exception."""
    raise ValueError(f"no account for {MAIL}")


SCRIPT = in_turn(wants("look", q=f"of {MAIL}"), f"Write to {MAIL} or charge {CARD}.")


def _clean(what: str, text: str) -> None:
    for raw in RAW:
        assert raw not in text, f"{raw} in {what}"


@pytest.mark.parametrize("mode", MODES)
def test_tracers_of_the_model_hear_guarded_text(mode: str, tmp_path: Path) -> None:
    """What a tracer hears of a guarded model's run, and what its caller gets, is edited, in every mode."""
    tracer = Recorder()
    with make_guard(tmp_path, POLICY) as guard:
        model = guard.model(ScriptedModel(script=in_turn(f"Write to {MAIL} or charge {CARD}.")))
        outcome = run(mode, model, [f"I am {MAIL}"], [{"callbacks": [tracer]}])
        _clean("the answer", repr(outcome))
        _clean("the trace", repr(tracer.heard))
        assert len(tracer.heard) >= 2


STREAMS = ["messages", "updates", "values", "tasks", "checkpoints", "debug", "custom"]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", STREAMS)
def test_streams_of_an_agent(mode: str, asynchronous: bool, tmp_path: Path) -> None:
    """No stream mode of an agent under the middleware shows what a model or a tool said before it was edited."""
    with make_guard(tmp_path, POLICY) as guard:

        async def later() -> list[object]:
            async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
                agent = create_agent(
                    ScriptedModel(script=SCRIPT), [look], middleware=[guard.middleware()], checkpointer=saver
                )
                return [piece async for piece in agent.astream({"messages": "go"}, thread(), stream_mode=mode)]

        if asynchronous:
            pieces = asyncio.run(later())
        else:
            with SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
                agent = create_agent(
                    ScriptedModel(script=SCRIPT), [look], middleware=[guard.middleware()], checkpointer=saver
                )
                pieces = list(agent.stream({"messages": "go"}, thread(), stream_mode=mode))
        # The model proposed the address; its call is edited where it is made, which is the tool's own stage.
        assert "reach " + MAIL not in repr(pieces)
        assert "Write to " + MAIL not in repr(pieces)
        assert CARD not in repr(pieces)


def test_state_and_checkpoints(tmp_path: Path) -> None:
    """The state at the end, every checkpoint and the raw bytes of the database hold no raw result or answer."""
    with make_guard(tmp_path, POLICY) as guard, SqliteSaver.from_conn_string(str(tmp_path / "graph.db")) as saver:
        model = ScriptedModel(script=in_turn(wants("look", q="somebody"), f"Write to {MAIL} or charge {CARD}."))
        agent = create_agent(model, [look], middleware=[guard.middleware()], checkpointer=saver)
        state = agent.invoke({"messages": "go"}, thread())
        _clean("the state", repr(state))
        _clean("the history", repr(list(agent.get_state_history(thread()))))
    rows = sqlite3.connect(tmp_path / "graph.db")
    raw = b"".join(
        bytes(str(row), "utf-8")
        for table in ("checkpoints", "writes")
        for row in rows.execute(f"select * from {table}")
    )
    rows.close()
    _clean("the database", raw.decode())


def test_proposed_arguments_do_not_stay_raw_in_state(tmp_path: Path) -> None:
    """What an edit takes out of a tool call's arguments the tool does not get."""
    got: list[str] = []

    @tool
    def note(q: str) -> str:
        """Write something down."""
        got.append(q)
        return "ok"

    with make_guard(tmp_path, POLICY) as guard:
        model = ScriptedModel(script=in_turn(wants("note", q=f"of {MAIL}"), "Done."))
        create_agent(model, [note], middleware=[guard.middleware()]).invoke({"messages": "go"})
        _clean("the tool's arguments", repr(got))
        assert len(got) == 1


def test_the_ledger_and_the_store(tmp_path: Path) -> None:
    """The whole store file holds nothing that `record.redact` gates find, of any stage, also of blocked contents."""
    with make_guard(tmp_path, POLICY.replace("input: [pii, secrets]", "input: [words]")) as guard:
        agent = create_agent(ScriptedModel(script=SCRIPT), [look], middleware=[guard.middleware()])
        agent.invoke({"messages": f"I am {MAIL}, card {CARD}"})
        agent.invoke({"messages": f"I am {MAIL}, a codeword follows, which blocks: swordfish"})
    raw = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (MAIL, CARD):
        assert secret.encode() not in raw
    assert b"[EMAIL_ADDRESS]" in raw


def test_the_model_reads_edited_results(tmp_path: Path) -> None:
    """The model behind the guard never reads what was removed from input or result, nor a blocked message."""
    model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
    with make_guard(tmp_path, POLICY) as guard:
        create_agent(model, [look], middleware=[guard.middleware()]).invoke({"messages": f"I am {MAIL}"})
        _clean("the conversation", repr(model.asked))
        assert model.calls == 2


@pytest.mark.parametrize("mode", MODES)
def test_exceptions_hold_codes_only(mode: str, tmp_path: Path) -> None:
    """A raised block names codes; neither its text nor its causes hold content."""
    source = POLICY.replace("[pii, secrets]\n  tool_call", "[words, pii]\n  tool_call") + "on_block: raise\n"
    with make_guard(tmp_path, source) as guard:
        model = guard.model(ScriptedModel(script=in_turn("hi")))
        (error,) = run(mode, model, [f"swordfish for {MAIL}"], [{}])
        assert isinstance(error, GuardrailBlocked)
        while error is not None:
            _clean("an exception", f"{error!r} {error} {vars(error)}")
            error = error.__cause__ or error.__context__


@pytest.mark.parametrize("seam", ["middleware", "nodes"])
def test_a_tools_exception_text_is_a_result(seam: str, tmp_path: Path) -> None:
    """Where the host turns a tool's exception into a message, that message is edited before anybody reads it."""
    from langchain.agents.middleware import ToolErrorMiddleware

    model = ScriptedModel(script=in_turn(wants("fails", q="x"), "Done."))
    with make_guard(tmp_path, POLICY) as guard:
        handler = ToolErrorMiddleware(on_error=lambda error, request: f"Failed: {error}")
        agent = create_agent(model, [fails], middleware=[guard.middleware(), handler])
        state = agent.invoke({"messages": "go"})
        _clean("the state", repr(state))
        assert "Failed: no account for [EMAIL_ADDRESS]" in repr(state)


def test_artifacts_do_not_carry_what_was_removed(tmp_path: Path) -> None:
    """A result that was edited loses its artifact, which holds the raw value."""

    @tool(response_format="content_and_artifact")
    def find(q: str) -> tuple[str, dict[str, str]]:
        """Find somebody."""
        return f"reach {MAIL}", {"raw": MAIL}

    model = ScriptedModel(script=in_turn(wants("find", q="x"), "Done."))
    with make_guard(tmp_path, POLICY) as guard:
        state = create_agent(model, [find], middleware=[guard.middleware()]).invoke({"messages": "go"})
        _clean("the state", repr(state))
