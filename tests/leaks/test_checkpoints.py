"""What an edit replaced is in no checkpoint: not in the first one, not in its blobs, not in a pending write."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, Tools, decisions, in_turn, make_guard, run, spoke, thread, wants
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt
from surfaces import STAGES, Tracer, events, hiding, kept, on_record, savers
from typing_extensions import TypedDict

from guardrails_mw.errors import GuardrailBlocked

MAIL = "ann.jones@example.org"
WORD = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {input: [word]}"
FORMS = {
    "text": MAIL,
    "tuple": ("user", MAIL),
    "pairs": [("user", MAIL)],
    "mappings": [{"role": "user", "content": MAIL}],
    "message": HumanMessage(MAIL),
    "blocks": [HumanMessage([{"type": "text", "text": MAIL}])],
    "beside": [HumanMessage("hi", name=MAIL, additional_kwargs={"from": MAIL})],
    "id": [HumanMessage("hi", id=MAIL)],
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_no_checkpoint_holds_the_input(kind: str, mode: str, tmp_path: Path) -> None:
    """An agent behind `guard.graph`: every byte of its checkpoints, of its tracer and of its streams is searched."""
    if kind == "sqlite" and mode.startswith("a"):
        pytest.skip("SqliteSaver is synchronous")
    model, tracer = ScriptedModel(script=in_turn(wants("look", q="x"), "Done.")), Tracer()
    with savers(kind, tmp_path) as saver, make_guard(tmp_path, hiding(*STAGES)) as guard:
        agent = create_agent(model, Tools().all(), middleware=[guard.middleware()], checkpointer=saver)
        config = {**thread(), "callbacks": [tracer]}
        [outcome] = run(mode, guard.graph(agent), [{"messages": f"I am {MAIL}"}], [config])
        assert "Done." in repr(outcome)
        assert MAIL not in repr(outcome)
        assert "[EMAIL_ADDRESS]" in kept(saver)
        assert MAIL not in kept(saver)
        assert tracer.of(MAIL) == []
        assert tracer.of("[EMAIL_ADDRESS]")
        assert MAIL not in on_record(guard, tmp_path)
        assert MAIL not in repr(model.asked)


@pytest.mark.parametrize("form", FORMS)
def test_messages_are_decided_in_every_form(form: str, tmp_path: Path) -> None:
    """Whatever form of messages LangGraph takes, it is decided, and the caller's own objects are left alone."""
    guard, saver = make_guard(tmp_path, hiding("input")), InMemorySaver()
    agent = create_agent(ScriptedModel(script=in_turn("ok")), [], middleware=[guard.middleware()], checkpointer=saver)
    guard.graph(agent).invoke({"messages": FORMS[form]}, thread())
    assert MAIL not in kept(saver)
    assert MAIL in repr(FORMS[form])


@pytest.mark.parametrize("mode", ["values", "updates", "messages", "tasks", "checkpoints", "debug"])
def test_no_stream_mode_shows_the_input(mode: str, tmp_path: Path) -> None:
    """No mode of `stream` shows what was replaced in the input."""
    guard = make_guard(tmp_path, hiding("input"))
    model = ScriptedModel(script=in_turn("ok"))
    agent = create_agent(model, [], middleware=[guard.middleware()], checkpointer=InMemorySaver())
    shown = list(guard.graph(agent).stream({"messages": MAIL}, thread(), stream_mode=mode, subgraphs=True))
    assert shown
    assert MAIL not in repr(shown)


@pytest.mark.parametrize("said", [MAIL, f"swordfish {MAIL}"])
def test_events_do_not_tell_the_input(said: str, tmp_path: Path) -> None:
    """`astream_events` of a guarded graph tells what was decided, also of what was blocked."""
    both = "gates: {pii: {type: pii}, word: {type: python, call: 'chat:codeword', cost: linear}}"
    guard = make_guard(tmp_path, both + "\nstages: {input: [pii, word]}")
    agent = create_agent(ScriptedModel(script=in_turn("ok")), [], middleware=[guard.middleware()])
    told = events(guard.graph(agent), {"messages": said}, {})
    assert ("[EMAIL_ADDRESS]" if said == MAIL else "[blocked: codeword]") in told
    assert MAIL not in told
    assert len(spoke(guard)) == 1


def test_a_v3_run_does_not_tell_the_input(tmp_path: Path) -> None:
    """The third version of events starts from what was decided too."""
    guard = make_guard(tmp_path, hiding("input"))
    agent = guard.graph(create_agent(ScriptedModel(script=in_turn("ok")), [], middleware=[guard.middleware()]))

    async def listen() -> tuple[list[object], object]:
        run = await agent.astream_events({"messages": MAIL}, version="v3")
        return [event async for event in run], await run.output()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told = repr(asyncio.run(listen()))
    assert "[EMAIL_ADDRESS]" in told
    assert MAIL not in told


def test_an_input_is_decided_once(tmp_path: Path) -> None:
    """What the wrapper decided, the middleware inside knows: one entry, in the run of the graph, also per thread."""
    for number, config in enumerate(({}, thread())):
        (tmp_path / str(number)).mkdir()
        with make_guard(tmp_path / str(number), hiding("input")) as guard:
            saver = InMemorySaver() if config else None
            model = ScriptedModel(script=in_turn("ok"))
            agent = guard.graph(create_agent(model, [], middleware=[guard.middleware()], checkpointer=saver))
            for text in (f"I am {MAIL}", "hello", "hello"):
                agent.invoke({"messages": text}, config)
            rows = [row for row in decisions(guard) if row["stage"] == "input"]
            assert [row["seam"] for row in rows] == ["graph"] * 3
            assert len(spoke(guard)) == 1
            assert len({row["run"] for row in decisions(guard)}) == 3
        if config:
            assert len(agent.get_state(config).values["messages"]) == 6


@pytest.mark.parametrize("where", ["context", "configurable"])
def test_who_asks_at_the_door_is_who_asks_inside(where: str, tmp_path: Path) -> None:
    """The actor is read from the runtime context or the configuration before the graph begins, too."""
    with make_guard(tmp_path, hiding("input")) as guard:
        model = ScriptedModel(script=in_turn("ok"))
        agent = guard.graph(create_agent(model, [], middleware=[guard.middleware()], context_schema=dict))
        told = {"context": {"actor": "lena"}} if where == "context" else {"config": thread(actor="lena")}
        agent.invoke({"messages": "hi"}, **told)
        assert [(row["stage"], row["actor"]) for row in decisions(guard)] == [("input", "lena")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("inside", [True, False])
def test_blocked_input_leaves_placeholder_and_refusal(inside: bool, mode: str, tmp_path: Path) -> None:
    """A blocked input runs no node, guarded inside or not; the history shows that something was refused."""
    model, saver = ScriptedModel(script=in_turn("ok")), InMemorySaver()
    with make_guard(tmp_path, WORD) as guard:
        agent = create_agent(model, [], middleware=[guard.middleware()] if inside else [], checkpointer=saver)
        graph = guard.graph(agent)
        [outcome] = run(mode, graph, [{"messages": "swordfish"}], [thread()])
        assert model.calls == 0
        assert "'reason': 'codeword'" in repr(outcome)
        said = graph.get_state(thread())
        assert said.values["messages"][0].text == "[blocked: codeword]"
        assert said.values["messages"][1].response_metadata["guardrails"]["stage"] == "input"
        assert said.next == ()
        assert "swordfish" not in kept(saver)
        run(mode, graph, [{"messages": "and now?"}], [thread()])
        assert [m.text for m in model.asked[0]][::2] == ["[blocked: codeword]", "and now?"]
        assert len(spoke(guard)) == 1


def test_blocked_input_raises_where_the_policy_says_so(tmp_path: Path) -> None:
    """With `on_block: raise` nothing at all is written down."""
    guard, saver = make_guard(tmp_path, "on_block: raise\n" + WORD), InMemorySaver()
    graph = guard.graph(create_agent(ScriptedModel(script=in_turn("ok")), [], checkpointer=saver))
    with pytest.raises(GuardrailBlocked, match="codeword") as raised:
        graph.invoke({"messages": "swordfish"}, thread())
    assert "swordfish" not in str(raised.value)
    assert list(saver.list(None)) == []


class Question(TypedDict, total=False):
    """A state without messages."""

    question: str
    more: dict[str, object]


def test_other_text_of_the_state_is_decided(tmp_path: Path) -> None:
    """Fields that are no messages are edited as well, deep down; a block there that has no placeholder raises."""
    saver, guard = InMemorySaver(), make_guard(tmp_path, hiding("input"))
    builder = StateGraph(Question)
    builder.add_node("echo", lambda state: {"question": state["question"] + "!"})
    builder.add_edge(START, "echo")
    graph = guard.graph(builder.compile(checkpointer=saver))
    result = graph.invoke({"question": MAIL, "more": {"deep": [MAIL, 3]}}, thread())
    assert result == {"question": "[EMAIL_ADDRESS]!", "more": {"deep": ["[EMAIL_ADDRESS]", 3]}}
    assert MAIL not in kept(saver)
    (tmp_path / "w").mkdir()
    strict = make_guard(tmp_path / "w", WORD).graph(builder.compile(checkpointer=saver))
    with pytest.raises(GuardrailBlocked):
        strict.invoke({"question": "swordfish"}, thread("t2"))
    assert "swordfish" not in kept(saver)


def _asking(saver: InMemorySaver) -> object:
    def ask(state: MessagesState) -> dict[str, object]:
        return {"messages": [AIMessage(f"heard {interrupt('who?')}")]}

    builder = StateGraph(MessagesState)
    builder.add_node("ask", ask)
    builder.add_edge(START, "ask")
    return builder.compile(checkpointer=saver)


def test_commands_and_updates_are_decided(tmp_path: Path) -> None:
    """What a resume, a command or `update_state` brings along is edited before it is written."""
    saver, guard = InMemorySaver(), make_guard(tmp_path, hiding("input"))
    graph = guard.graph(_asking(saver))
    graph.invoke({"messages": "hi"}, thread())
    graph.update_state(thread(), {"messages": [HumanMessage(MAIL)]}, as_node="__start__")
    asyncio.run(graph.aupdate_state(thread(), {"messages": [HumanMessage(MAIL)]}, as_node="__start__"))
    result = graph.invoke(Command(resume=MAIL, update={"messages": [HumanMessage(MAIL)]}), thread())
    assert result["messages"][-1].text == "heard [EMAIL_ADDRESS]"
    graph.invoke({"messages": "hi"}, thread("by id"))
    [pause] = graph.get_state(thread("by id")).interrupts
    result = graph.invoke(Command(resume={pause.id: MAIL}), thread("by id"))
    assert result["messages"][-1].text == "heard [EMAIL_ADDRESS]"
    assert MAIL not in kept(saver)
    (tmp_path / "w").mkdir()
    strict = make_guard(tmp_path / "w", WORD).graph(_asking(saver))
    for refused in (
        lambda: strict.update_state(thread(), {"messages": [HumanMessage("swordfish")]}),
        lambda: strict.invoke(Command(resume={"it": "swordfish"}), thread()),
    ):
        with pytest.raises(GuardrailBlocked):
            refused()
    assert "swordfish" not in kept(saver)


def test_a_guarded_graph_is_a_subgraph_like_any_other(tmp_path: Path) -> None:
    """As a node it shares its parent's checkpoints, streams as a subgraph, and is found by `get_subgraphs`."""
    saver, guard = InMemorySaver(), make_guard(tmp_path, WORD)
    inner = guard.graph(create_agent(ScriptedModel(script=in_turn("ok")), [], middleware=[guard.middleware()]))
    builder = StateGraph(MessagesState)
    builder.add_node("agent", inner)
    builder.add_edge(START, "agent")
    graph = builder.compile(checkpointer=saver)
    assert [name for name, _ in graph.get_subgraphs()] == ["agent"]
    assert graph.invoke({"messages": "hi"}, thread())["messages"][-1].text == "ok"
    shown = list(graph.stream({"messages": "swordfish"}, thread(), stream_mode="updates", subgraphs=True))
    assert any(place and "guardrails" in update for place, update in shown)
    texts = [message.text for message in graph.get_state(thread()).values["messages"]]
    assert texts[2] == "[blocked: codeword]"
    assert len({row["run"] for row in decisions(guard)}) == 2


def test_a_guarded_graph_can_be_copied_and_guarded_again(tmp_path: Path) -> None:
    """`with_config` and `copy`, which servers use, keep the guard; guarding twice changes nothing."""
    guard, saver = make_guard(tmp_path, hiding("input")), InMemorySaver()
    agent = create_agent(ScriptedModel(script=in_turn("ok")), [])
    graph = guard.graph(agent)
    assert guard.graph(graph) is graph
    served = graph.copy(update={"checkpointer": saver}).with_config(tags=["served"])
    served.invoke({"messages": MAIL}, thread())
    assert MAIL not in kept(saver)
    with pytest.raises(TypeError, match="compile it first"):
        guard.graph(StateGraph(MessagesState))


@pytest.mark.parametrize("role", [AIMessage, SystemMessage, ToolMessage])
def test_roles_of_a_clients_messages_are_not_believed(role: type, tmp_path: Path) -> None:
    """An answer, a system message or a tool result that a client made up is decided like what it says itself."""
    model, saver = ScriptedModel(script=in_turn("ok")), InMemorySaver()
    both = WORD.replace("input: [word]", "input: [word], tool_result: [word]")
    guard = make_guard(tmp_path, both)
    graph = guard.graph(create_agent(model, [], checkpointer=saver))
    forged = role("swordfish", **({"tool_call_id": "1"} if role is ToolMessage else {}))
    graph.invoke({"messages": [HumanMessage("a"), forged, AIMessage("Sure."), HumanMessage("go on")]}, thread())
    assert [message.text for message in model.asked[0]] == ["a", "[blocked: codeword]", "Sure.", "go on"]
    assert "swordfish" not in kept(saver)
    last = graph.invoke({"messages": [HumanMessage("b"), forged]}, thread("t2"))["messages"]
    assert last[1].text == "[blocked: codeword]"
    assert model.calls == (2 if role is ToolMessage else 1)


def test_a_forged_call_is_edited_in_all_its_copies(tmp_path: Path) -> None:
    """Arguments of a call that a client made up are decided with its message."""
    saver, guard = InMemorySaver(), make_guard(tmp_path, hiding("input", "tool_result"))
    graph = guard.graph(create_agent(ScriptedModel(script=in_turn("ok")), [], checkpointer=saver))
    use = {"type": "tool_use", "id": "1", "name": "look", "input": {"q": MAIL}}
    calls = [{"name": "look", "args": {"q": MAIL}, "id": "1"}]
    forged = [
        AIMessage([use], tool_calls=calls, additional_kwargs={"tool_calls": [{"arguments": MAIL}]}),
        ToolMessage("fine", tool_call_id="1", artifact={"raw": MAIL}),
    ]
    graph.invoke({"messages": [HumanMessage("hi"), *forged]}, thread())
    assert MAIL not in kept(saver)


def test_system_messages_in_an_agents_state_are_not_believed(tmp_path: Path) -> None:
    """The middleware alone decides a system message in the conversation, and leaves the agent's own prompt alone."""
    model, guard = ScriptedModel(script=in_turn("ok")), make_guard(tmp_path, WORD)
    agent = create_agent(model, [], system_prompt="never say swordfish", middleware=[guard.middleware()])
    assert agent.invoke({"messages": "hi"})["messages"][-1].text == "ok"
    agent.invoke({"messages": [SystemMessage("swordfish"), HumanMessage("hi")]})
    assert model.calls == 1


def test_a_model_of_another_middleware_is_warned_of(tmp_path: Path) -> None:
    """A middleware that calls a model of its own is named when the graph is guarded, unless that model is guarded."""
    from langchain.agents.middleware import SummarizationMiddleware

    guard, model = make_guard(tmp_path, WORD), ScriptedModel(script=in_turn("ok"))
    plain = create_agent(model, [], middleware=[SummarizationMiddleware(model)])
    with pytest.warns(UserWarning, match="SummarizationMiddleware"):
        guard.graph(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.graph(create_agent(model, [], middleware=[SummarizationMiddleware(guard.model(model))]))
