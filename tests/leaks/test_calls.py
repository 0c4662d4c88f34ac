"""What an edit replaced in a tool call is gone from the message that proposes the call, wherever it repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, Tools, decisions, in_turn, make_guard, run, spoke, thread, wants
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from surfaces import Tracer, hiding, kept, on_record, savers

from guardrails_mw import Guard

MAIL = "ann.jones@example.org"
HIDDEN = "[EMAIL_ADDRESS]"


def _agent(guard: Guard, model: BaseChatModel, tools: Tools, saver: object) -> object:
    return create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=saver)


def _graph(guard: Guard, model: BaseChatModel, tools: Tools, saver: object) -> object:
    guarded = guard.model(model)
    builder = StateGraph(MessagesState)
    builder.add_node("tools", guard.tool_node(tools.all()))
    builder.add_node("agent", lambda state: {"messages": [guarded.invoke(state["messages"])]})
    builder.add_edge(START, "agent")
    builder.add_edge("tools", "agent")
    builder.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END, ["tools", END])
    return builder.compile(checkpointer=saver)


USE = {"type": "tool_use", "id": "c1", "name": "look"}
JSON = f'{{"q": "{MAIL}"}}'
HOSTS = {"middleware": _agent, "nodes": _graph}
SHAPES = {
    "plain": wants("look", q=MAIL),
    "tool_use": AIMessage(
        [{"type": "text", "text": "I will look"}, {**USE, "input": {"q": MAIL}}],
        tool_calls=[{"name": "look", "args": {"q": MAIL}, "id": "c1"}],
    ),
    "only tool_use": AIMessage(
        [{**USE, "input": {}, "partial_json": JSON, "index": 0}],
        tool_calls=[{"name": "look", "args": {"q": MAIL}, "id": "c1"}],
    ),
    "function_call": AIMessage(
        [{"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": JSON}],
        tool_calls=[{"name": "look", "args": {"q": MAIL}, "id": "c1"}],
    ),
    "beside": AIMessage(
        "",
        tool_calls=[{"name": "look", "args": {"q": MAIL}, "id": "c1"}],
        additional_kwargs={"tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": JSON}}]},
    ),
    "another that could not be parsed": AIMessage(
        "",
        tool_calls=[{"name": "look", "args": {"q": MAIL}, "id": "c1"}],
        invalid_tool_calls=[{"name": "look", "args": f'{{"q": {MAIL}', "id": "c2", "error": None}],
    ),
    "a lie": AIMessage(
        [{"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "nothing", "cc": MAIL}}],
        tool_calls=[{"name": "look", "args": {"q": MAIL}, "id": "c1"}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("mode", ["invoke", "astream"])
def test_edited_arguments_are_edited_in_the_state(mode: str, host: str, shape: str, tmp_path: Path) -> None:
    """State, checkpoints, streams and tracers hold the arguments that the tool got, in every shape of a message."""
    tools, tracer, saver = Tools(), Tracer(), InMemorySaver()
    model = ScriptedModel(script=in_turn(SHAPES[shape], "Done."))
    with make_guard(tmp_path, hiding("tool_call")) as guard:
        graph = HOSTS[host](guard, model, tools, saver)
        [outcome] = run(mode, graph, [{"messages": "go"}], [{**thread(), "callbacks": [tracer]}])
        assert "Done." in repr(outcome)
        assert tools.done == [("look", HIDDEN)]
        assert MAIL not in repr(outcome)
        assert MAIL not in kept(saver)
        assert MAIL not in on_record(guard, tmp_path)
        assert tracer.of(MAIL) == []
        proposed = graph.get_state(thread()).values["messages"][1]
        assert proposed.tool_calls[0]["args"] == {"q": HIDDEN}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_byte_of_a_checkpointer_holds_the_arguments(kind: str, tmp_path: Path) -> None:
    """Also in a file, with its pending writes, the arguments are what the tool got."""
    model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
    with savers(kind, tmp_path) as saver, make_guard(tmp_path, hiding("tool_call")) as guard:
        _agent(guard, model, Tools(), saver).invoke({"messages": "go"}, thread())
        assert HIDDEN in kept(saver)
        assert MAIL not in kept(saver)


def test_an_edit_ahead_is_on_record_and_counted_once(tmp_path: Path) -> None:
    """The edit is recorded before it is done; budgets, loops and rules see the call once, as it is run."""
    source = hiding("tool_call") + "\nbudgets: {run: {tool_calls: 1}}\nloops: {}\ntools: {look: {}}"
    model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
    with make_guard(tmp_path, source) as guard:
        state = _agent(guard, model, Tools(), None).invoke({"messages": "go"})
        assert state["messages"][2].status == "success"
        rows = [row for row in decisions(guard) if row["stage"] == "tool_call"]
        assert [row["edits"] for row in rows] == [1, 0]
        assert len(spoke(guard)) == 1


def test_in_shadow_nothing_is_edited_ahead(tmp_path: Path) -> None:
    """Shadow mode leaves the message alone, and says once what it would have done."""
    tools = Tools()
    model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
    with make_guard(tmp_path, "mode: shadow\n" + hiding("tool_call")) as guard:
        _agent(guard, model, tools, None).invoke({"messages": "go"})
        assert tools.done == [("look", MAIL)]
        assert len(spoke(guard)) == 1


@pytest.mark.parametrize("new", [None, {"q": "bob@example.org"}])
def test_an_approval_matches_the_edited_call(new: dict[str, object] | None, tmp_path: Path) -> None:
    """A person approves the call as it is kept; what a reviewer wrote instead is edited for tool and state."""
    ask = "\ntools: {look: {ask: [{if: 'True', because: always}]}}"
    tools, saver = Tools(), InMemorySaver()
    model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
    with make_guard(tmp_path, hiding("tool_call") + ask) as guard:
        agent = _agent(guard, model, tools, saver)
        agent.invoke({"messages": "go"}, thread())
        [question] = guard.approvals.list()
        assert question.args == {"q": HIDDEN}
        guard.approvals.approve(question.id, by="eve", args=new)
        agent.invoke(None, thread())
        assert tools.done == [("look", HIDDEN)]
        assert MAIL not in kept(saver)
        assert "bob@example.org" not in kept(saver)


@pytest.mark.parametrize("mode", MODES)
def test_calls_in_content_blocks_are_no_answer(mode: str, tmp_path: Path) -> None:
    """A message of nothing but `tool_use` blocks meets no gate for answers, and its call is decided as one."""
    shape = "gates: {form: {type: json_schema, schema: {type: object}}}\nstages: {output: [form]}"
    model = ScriptedModel(script=in_turn(SHAPES["only tool_use"], "{}"))
    with make_guard(tmp_path, shape) as guard:
        [state] = run(mode, _agent(guard, model, Tools(), None), [{"messages": "go"}], [{}])
        assert "schema.not_json" not in repr(state)
        assert "found nothing special" in repr(state)


def test_text_beside_a_call_is_edited_and_the_call_stays(tmp_path: Path) -> None:
    """Gates for answers read what is said around a call, and its block keeps its place."""
    said = AIMessage(
        [
            {"type": "text", "text": MAIL},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"q": "x"}},
            {"type": "text", "text": f"and {MAIL}"},
        ],
        tool_calls=[{"name": "look", "args": {"q": "x"}, "id": "c1"}],
        additional_kwargs={"note": MAIL},
    )
    answer = make_guard(tmp_path, hiding("output")).model(ScriptedModel(script=in_turn(said))).invoke("hi")
    assert [block["type"] for block in answer.content] == ["text", "tool_use", "text"]
    assert answer.content[1]["input"] == {"q": "x"}
    assert (answer.content[2]["text"], answer.additional_kwargs["note"]) == (f"and {HIDDEN}", HIDDEN)
    assert MAIL not in repr(answer)


def test_a_bad_call_is_sent_back_as_a_conversation(tmp_path: Path) -> None:
    """To ask again, the model gets its call and a result that says what is wrong; never an empty answer."""
    source = "tools: {look: {args_schema: {type: object, properties: {q: {type: string, maxLength: 3}}}}}"
    good, bad = wants("look", q="abc"), wants("look", q="abcdef")
    model = ScriptedModel(script=lambda messages: good if isinstance(messages[-1], ToolMessage) else bad)
    answer = make_guard(tmp_path, source).model(model).invoke([HumanMessage("go")])
    assert answer.tool_calls[0]["args"] == {"q": "abc"}
    asked: list[BaseMessage] = model.asked[1]
    assert [message.type for message in asked] == ["human", "ai", "tool"]
    assert asked[1].tool_calls[0]["id"] == asked[2].tool_call_id
    assert all(message.content or message.tool_calls for message in asked if isinstance(message, AIMessage))


@pytest.mark.parametrize("on_error", ["block", "flag"])
def test_a_gate_that_fails_ahead_is_no_leave_to_keep(on_error: str, tmp_path: Path) -> None:
    """Where nobody can say what an edit would replace, the call is not kept, unless the policy wants it."""
    source = f"gates: {{g: {{type: python, call: 'chat:raises', on_error: {on_error}}}}}\nstages: {{tool_call: [g]}}"
    tools, saver = Tools(), InMemorySaver()
    model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
    with make_guard(tmp_path, source) as guard:
        state = _agent(guard, model, tools, saver).invoke({"messages": "go"}, thread())
        if on_error == "block":
            assert state["messages"][-1].response_metadata["guardrails"]["reason"] == "error.gate_error"
            assert MAIL not in kept(saver)
        assert bool(tools.done) == (on_error == "flag")
