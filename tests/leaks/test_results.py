"""What an edit replaced in a tool's result is nowhere: not beside it, not in a state update, not in a tracer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from chat import ScriptedModel, in_turn, make_guard, run, spoke, thread, tool_messages, wants
from langchain.agents import AgentState, create_agent
from langchain_core.callbacks import CallbackManagerForToolRun
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import ParentCommand
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send
from surfaces import Tracer, events, hiding, kept

from guardrails_mw import Guard
from guardrails_mw.errors import GuardrailBlocked

MAIL = "ann.jones@example.org"
HIDDEN = "[EMAIL_ADDRESS]"
BOTH = """
gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}, word: {type: python, call: 'chat:codeword', cost: linear}}
stages: {tool_result: [pii, word]}
"""


def _raised(said: str, id_: str) -> object:
    """How a graph that a tool runs hands its command to the graph around, which knows itself by its step's name."""
    raise ParentCommand(Command(graph="tools", update={"messages": [ToolMessage(said, tool_call_id=id_)]}))


GIVE: dict[str, Callable[[str, str], object]] = {
    "text": lambda said, _: said,
    "data": lambda said, _: {"found": [said]},
    "blocks": lambda said, _: [{"type": "text", "text": said}],
    "message": lambda said, id_: ToolMessage(said, tool_call_id=id_),
    "artifact": lambda said, id_: ToolMessage("fine", tool_call_id=id_, artifact={"raw": [said]}),
    "kwargs": lambda said, id_: ToolMessage("fine", tool_call_id=id_, additional_kwargs={"raw": said}),
    "command": lambda said, id_: Command(update={"messages": [ToolMessage(said, tool_call_id=id_)]}),
    "raised": _raised,
    "list": lambda said, id_: [Command(update={"messages": [ToolMessage(said, tool_call_id=id_)]})],
    "answer": lambda said, id_: Command(
        update={"messages": [ToolMessage("fine", tool_call_id=id_), AIMessage(said, additional_kwargs={"why": said})]}
    ),
    "call": lambda said, id_: Command(
        update={
            "messages": [
                ToolMessage("fine", tool_call_id=id_),
                AIMessage("", tool_calls=[{"name": "look", "args": {"q": said}, "id": "c9"}]),
                ToolMessage("fine too", tool_call_id="c9"),
            ]
        }
    ),
    "human": lambda said, id_: Command(
        update={"messages": [ToolMessage("fine", tool_call_id=id_), HumanMessage([{"type": "text", "text": said}])]}
    ),
    "field": lambda said, id_: Command(
        update={"messages": [ToolMessage("fine", tool_call_id=id_)], "notes": {"deep": [said, 3, None]}}
    ),
}


class Notes(AgentState, total=False):
    """An agent's state with a field of its own."""

    notes: dict[str, object]


def _look(give: Callable[[str, str], object], said: str) -> BaseTool:
    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> object:
        """Look something up."""
        return give(said, call_id)

    return look


def _agent(guard: Guard, tools: list[BaseTool], saver: InMemorySaver | None = None, **more: object) -> object:
    model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
    return create_agent(
        model, tools, middleware=[*more.pop("outer", []), guard.middleware()], checkpointer=saver, state_schema=Notes
    )


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("form", GIVE)
def test_a_result_is_edited_in_every_form(form: str, mode: str, tmp_path: Path) -> None:
    """In whichever form and place a tool brings it: state, checkpoints, streams and tracers hold the edited value."""
    saver, tracer = InMemorySaver(), Tracer()
    with make_guard(tmp_path, hiding("tool_result")) as guard:
        agent = _agent(guard, [_look(GIVE[form], f"mail {MAIL}")], saver)
        [outcome] = run(mode, agent, [{"messages": "go"}], [{**thread(), "callbacks": [tracer]}])
        assert "Done." in repr(outcome)
        assert HIDDEN in kept(saver)
        assert MAIL not in repr(outcome)
        assert MAIL not in kept(saver)
        assert tracer.of(MAIL) == []
        assert len([row for row in spoke(guard) if row[4]]) >= 1


@pytest.mark.parametrize("form", GIVE)
def test_a_result_is_blocked_in_every_form(form: str, tmp_path: Path) -> None:
    """What is blocked leaves a code, a placeholder or nothing, and the agent goes on."""
    saver, tracer = InMemorySaver(), Tracer()
    with make_guard(tmp_path, BOTH) as guard:
        agent = _agent(guard, [_look(GIVE[form], "swordfish")], saver)
        state = agent.invoke({"messages": "go"}, {**thread(), "callbacks": [tracer]})
        assert state["messages"][-1].text == "Done."
        assert "swordfish" not in repr(state)
        assert "swordfish" not in kept(saver)
        assert tracer.of("swordfish") == []
        assert [row[3] for row in spoke(guard)] == ["codeword"]
        if form == "field":
            assert [message.content for message in tool_messages(state)] == ["blocked: codeword"]
            assert "notes" not in state


def test_events_do_not_tell_a_result(tmp_path: Path) -> None:
    """`astream_events` tells of a tool's end what was decided, and the edited arguments at its start."""
    with make_guard(tmp_path, hiding("tool_call", "tool_result")) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q=MAIL), "Done."))
        agent = create_agent(model, [_look(GIVE["text"], MAIL)], middleware=[guard.middleware()])
        told = events(agent, {"messages": "go"}, {})
        assert "on_tool_end" in told
        assert MAIL not in told


def test_an_artifact_that_nobody_can_read_is_dropped(tmp_path: Path) -> None:
    """The policy's `unchecked` verdict holds for artifacts: blocked they are dropped, allowed they stay."""
    for number, (unchecked, stays) in enumerate((("block", False), ("flag", True), ("allow", True))):
        (tmp_path / str(number)).mkdir()

        @tool(response_format="content_and_artifact")
        def look(q: str) -> tuple[str, object]:
            """Look something up."""
            return f"mail {MAIL}", object()

        with make_guard(tmp_path / str(number), f"unchecked: {unchecked}\n" + hiding("tool_result")) as guard:
            [message] = tool_messages(_agent(guard, [look]).invoke({"messages": "go"}))
            assert message.content == f"mail {HIDDEN}"
            assert (message.artifact is not None) == stays


def test_an_artifact_stays_where_nothing_in_it_is_edited(tmp_path: Path) -> None:
    """An artifact is kept as it is, the very object, when only the content was edited."""
    data = {"rows": [1, 2, 3]}

    @tool(response_format="content_and_artifact")
    async def look(q: str) -> tuple[str, object]:
        """Look something up."""
        return MAIL, data

    with make_guard(tmp_path, hiding("tool_result")) as guard:
        [state] = run("ainvoke", _agent(guard, [look]), [{"messages": "go"}], [{}])
        [message] = tool_messages(state)
        assert (message.content, message.artifact) == (HIDDEN, data)


def test_what_a_command_sends_and_removes(tmp_path: Path) -> None:
    """Arguments of a `Send` are decided; removals pass as they are."""

    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> object:
        """Look something up."""
        done = ToolMessage("fine", tool_call_id=call_id)
        return Command(update={"messages": [done, RemoveMessage("old")]}, goto=[Send("heard", {"messages": [MAIL]})])

    heard: list[object] = []
    saver = InMemorySaver()
    with make_guard(tmp_path, hiding("tool_result")) as guard:
        builder = StateGraph(MessagesState)
        builder.add_node("tools", guard.tool_node([look]))
        builder.add_node("heard", heard.append)
        builder.add_edge(START, "tools")
        state = builder.compile(checkpointer=saver).invoke(
            {"messages": [HumanMessage("x", id="old"), wants("look", q="x")]}, thread()
        )
        assert heard == [{"messages": [HIDDEN]}]
        assert "old" not in [message.id for message in state["messages"]]
        assert MAIL not in kept(saver)


def test_a_tools_own_interface_is_kept(tmp_path: Path) -> None:
    """Injected configuration, callbacks and a coroutine of its own reach the tool as without a guard."""
    seen: list[object] = []

    def sync(q: str, config: RunnableConfig, run_manager: CallbackManagerForToolRun | None = None) -> str:
        seen.append((config["tags"], run_manager is not None))
        return "sync"

    async def later(q: str, config: RunnableConfig) -> str:
        seen.append(config["tags"])
        return "later"

    look = StructuredTool.from_function(sync, later, name="look", description="Look something up.")
    with make_guard(tmp_path, hiding("tool_result")) as guard:
        for mode in ("invoke", "ainvoke"):
            [state] = run(mode, _agent(guard, [look]), [{"messages": "go"}], [{"tags": ["mine"]}])
            seen.append(tool_messages(state)[0].content)
    assert len(seen) == 4
    assert seen[1::2] == ["sync", "later"]


def test_messages_a_tool_writes_as_system_are_the_tools(tmp_path: Path) -> None:
    """A system message in a tool's update is decided as what it is, a tool's words."""

    def give(said: str, id_: str) -> object:
        return Command(update={"messages": [ToolMessage("fine", tool_call_id=id_), SystemMessage(said)]})

    with make_guard(tmp_path, BOTH) as guard:
        state = _agent(guard, [_look(give, "swordfish")]).invoke({"messages": "go"})
        assert state["messages"][3].content == "[blocked: codeword]"
        assert [row[0] for row in spoke(guard)] == ["tool_result"]


def test_callbacks_alone_block_an_artifact_that_would_be_edited(tmp_path: Path) -> None:
    """A callback cannot edit what stands beside a result, so it does not let it pass."""
    saver = InMemorySaver()
    with make_guard(tmp_path, hiding("tool_result")) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
        agent = create_agent(model, [_look(GIVE["artifact"], MAIL)], checkpointer=saver)
        with pytest.raises(GuardrailBlocked, match="unenforceable"):
            agent.invoke({"messages": "go"}, {**thread(), "callbacks": guard.callbacks()})
        assert MAIL not in kept(saver)


def test_callbacks_hear_what_a_tool_does_to_the_graph_around(tmp_path: Path) -> None:
    """A command that is raised is no failure: where callbacks alone look at results, it is blocked like one."""
    with make_guard(tmp_path, BOTH) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
        agent = create_agent(model, [_look(_raised, "swordfish")])
        with pytest.raises(GuardrailBlocked, match="codeword"):
            agent.invoke({"messages": "go"}, {"callbacks": guard.callbacks()})
