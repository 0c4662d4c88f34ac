"""Questions to people: what was asked about, what was answered, and what happens then are one and the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, in_turn, make_guard, run, spoke, thread, wants
from hosts import asking_agent
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from pydantic import BaseModel
from surfaces import on_record

from guardrails_mw import Actor, Content, Event, Guard, Stage
from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.event import ToolCall
from guardrails_mw.seam import ANYWHERE
from guardrails_mw.wait import drive


class Agent:
    """An agent with tools, under a guard at one of the seams that ask."""

    def __init__(self, tools: list[object], *replies: object) -> None:
        self.model, self.tools = ScriptedModel(script=in_turn(*replies)), tools

    def under(self, guard: Guard, seam: str) -> object:
        return asking_agent(guard, seam, self.model, self.tools, InMemorySaver())


ASKS = "tools: {wipe: {ask: [{if: 'True', because: always}]}}"
GO = {"messages": [("user", "go")]}


@pytest.mark.parametrize(("path", "done"), [("/opt", []), ("/home", [("wipe", "/home")])])
def test_a_callback_does_not_run_what_a_reviewer_changed(path: str, done: list[object], tmp_path: Path) -> None:
    """Callbacks cannot change a call: what the reviewer did not approve does not run, what he left as it was does."""
    tools, model = Tools(), ScriptedModel(script=in_turn(wants("wipe", path="/home"), "Done."))
    with make_guard(tmp_path, ASKS) as guard:
        agent = create_agent(model, tools.all(), checkpointer=InMemorySaver())
        config = {**thread(), "callbacks": guard.callbacks()}
        id_ = agent.invoke(GO, config)["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann", args={"path": path})
        if done:
            agent.invoke(Command(resume=1), config)
        else:
            with pytest.raises(GuardrailBlocked, match="unenforceable"):
                agent.invoke(Command(resume=1), config)
        assert tools.done == done


def test_a_message_is_not_let_through_as_it_was_when_its_reviewer_changed_it(tmp_path: Path) -> None:
    """Other words than those that were asked about are no approval of them."""
    source = "gates: {odd: {type: python, call: 'chat:odd'}}\nstages: {input: [odd], output: [odd]}"
    for node, said in (("input", ("user", "odd")), ("output", ("ai", "odd"))):
        reached: list[object] = []
        (folder := tmp_path / node).mkdir()
        with make_guard(folder, source) as guard:
            graph = StateGraph(MessagesState)
            graph.add_node("input", guard.input_node(then="end"), destinations=("end", END))
            graph.add_node("output", guard.output_node())
            graph.add_node("end", lambda state, r=reached: r.append(state["messages"][-1].content))
            graph.add_edge(START, node)
            graph.add_edge("output", "end")
            app = graph.compile(checkpointer=InMemorySaver())
            id_ = app.invoke({"messages": [said]}, thread())["__interrupt__"][0].value["id"]
            guard.approvals.approve(id_, by="ann", args={"text": "even"})
            app.invoke(Command(resume=1), thread())
            assert "odd" not in reached
            assert ("block", "seam", "unenforceable") in [row[1:4] for row in spoke(guard)]


def test_a_step_that_a_reviewer_changed_is_not_taken(tmp_path: Path) -> None:
    """A step of a graph happens with the state that was shown, or not at all."""

    class State(MessagesState):
        version: str

    taken: list[str] = []
    with make_guard(tmp_path, "default_tool: block") as guard:
        graph = StateGraph(State)
        graph.add_node("confirm", guard.approval_node("deploy", then="deploy"), destinations=("deploy", END))
        graph.add_node("deploy", lambda state: taken.append(state["version"]))
        graph.add_edge(START, "confirm")
        app = graph.compile(checkpointer=InMemorySaver())
        id_ = app.invoke({"messages": [], "version": "2"}, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann", args={"version": "1"})
        app.invoke(Command(resume=1), thread())
        assert taken == []


class Release(MessagesState):
    """What is to be released."""

    version: object


def confirmed(guard: Guard, taken: list[object], start: object = "confirm") -> StateGraph:
    """A graph of one step that a person has to confirm."""
    graph = StateGraph(Release)
    graph.add_node("confirm", guard.approval_node("deploy", then="deploy"), destinations=("deploy", END))
    graph.add_node("deploy", lambda state: taken.append(state["version"]))
    if isinstance(start, str):
        graph.add_edge(START, start)
    else:
        graph.add_conditional_edges(START, start, ["confirm"])
    return graph


def test_each_of_many_steps_has_its_own_answer(tmp_path: Path) -> None:
    """Steps that start at once are asked about one by one; the one that was approved is taken as it was shown."""
    taken: list[object] = []

    def each(state: Release) -> list[Send]:
        return [Send("confirm", {"messages": [], "version": version}) for version in state["version"]]

    with make_guard(tmp_path, "default_tool: block") as guard:
        app = confirmed(guard, taken, each).compile(checkpointer=InMemorySaver())
        state = app.invoke({"messages": [], "version": ["1", "2", "2", "3"]}, thread())
        questions = [pause.value for pause in state["__interrupt__"]]
        assert len({question["id"] for question in questions}) == 4
        for question in questions:
            answer = guard.approvals.approve if question["args"] == {"version": "3"} else guard.approvals.reject
            answer(question["id"], by="ann")
        while "__interrupt__" in state:
            state = app.invoke(Command(resume={pause.id: 1 for pause in state["__interrupt__"]}), thread())
        assert taken == ["3"]


def test_a_loop_asks_each_time(tmp_path: Path) -> None:
    """The answer to a step is none to the same step, with the same state, when it comes by again."""
    taken: list[object] = []
    with make_guard(tmp_path, "default_tool: block") as guard:
        graph = confirmed(guard, taken)
        graph.add_edge("deploy", "confirm")
        app = graph.compile(checkpointer=InMemorySaver())
        asked = set()
        state = app.invoke({"messages": [], "version": "1"}, thread())
        for turn in range(1, 4):
            asked.add(id_ := state["__interrupt__"][0].value["id"])
            guard.approvals.approve(id_, by="ann")
            state = app.invoke(Command(resume=1), thread())
            assert taken == ["1"] * turn
            assert guard.approvals.get(id_).state == "executed"
        assert len(asked) == 3


def test_one_answer_takes_a_step_once(tmp_path: Path) -> None:
    """A step that somebody else goes on with already is not taken a second time."""
    taken: list[object] = []
    with make_guard(tmp_path, "default_tool: block") as guard:
        app = confirmed(guard, taken).compile(checkpointer=InMemorySaver())
        id_ = app.invoke({"messages": [], "version": "1"}, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann")
        assert guard.approvals.claim(id_)
        app.invoke(Command(resume=1), thread())
        assert taken == []
        assert spoke(guard)[-1][3] == "approval.spent"


@dataclass
class Person:
    """Somebody who is no JSON."""

    mail: str


class Odd:
    """An object that says more of itself than it should."""

    def __repr__(self) -> str:
        return MAIL


class Contact(BaseModel):
    """A state that is a model."""

    version: object = None


MAIL = "ann.jones@example.org"


@pytest.mark.parametrize(
    "value",
    [Person(MAIL), [Contact(version=MAIL)], MAIL.encode(), {"m": HumanMessage(MAIL)}, {MAIL: {1: MAIL}}],
    ids=["dataclass", "model", "bytes", "message", "keys"],
)
@pytest.mark.parametrize("schema", [Release, Contact])
def test_no_object_shows_a_reviewer_what_is_redacted(schema: type, value: object, tmp_path: Path) -> None:
    """In a question, the checkpoint that holds it, the register and the ledger, objects say no more than texts do."""
    source = "gates: {pii: {type: pii}}\nrecord: {redact: [pii], content: redacted}\nstages: {output: [pii]}"
    with make_guard(tmp_path, source) as guard:
        graph = StateGraph(schema)
        graph.add_node("confirm", guard.approval_node("deploy", then=END))
        graph.add_edge(START, "confirm")
        state = graph.compile(checkpointer=InMemorySaver()).invoke({"version": value}, thread())
        assert MAIL not in repr(state["__interrupt__"])
        assert MAIL not in on_record(guard, tmp_path)


def test_no_object_among_a_calls_arguments_does(tmp_path: Path) -> None:
    """Arguments that code gives a tool are shown as little as those of a model."""
    source = f"gates: {{pii: {{type: pii}}}}\nrecord: {{redact: [pii]}}\nunchecked: allow\n{ASKS}"
    with make_guard(tmp_path, source) as guard:
        args = {"path": Odd(), "when": date(2030, 1, 2)}
        event = Event(Stage.TOOL_CALL, Content(args), key="k", call=ToolCall("wipe", args))
        shown: list[object] = []
        decision = guard.decide(event)
        with pytest.raises(GraphInterrupt):
            drive(guard.enforcer.answering(decision, ANYWHERE, lambda payload, **_: stop(shown, payload)))
        assert shown[0]["args"] == {"path": "<Odd>", "when": "2030-01-02"}
        assert MAIL not in on_record(guard, tmp_path)


def stop(shown: list[object], payload: dict[str, object]) -> None:
    """Pause as a graph does."""
    shown.append(payload)
    raise GraphInterrupt


@pytest.mark.parametrize("mode", ["invoke", "astream"])
@pytest.mark.parametrize("goto", ["deploy", Send("deploy", {"version": "9"}), ["deploy"]], ids=["name", "send", "list"])
def test_nobody_jumps_past_a_question(goto: object, mode: str, tmp_path: Path) -> None:
    """Whoever calls a wrapped graph cannot tell it where to go on; the question waits as before."""
    taken: list[object] = []
    with make_guard(tmp_path, "default_tool: block") as guard:
        app = guard.graph(confirmed(guard, taken).compile(checkpointer=InMemorySaver()))
        app.invoke({"messages": [], "version": "1"}, thread())
        [jumped] = run(mode, app, [Command(goto=goto, resume=1)], [thread()])
        assert isinstance(jumped, GuardrailBlocked)
        assert jumped.reason == "graph.goto"
        with pytest.raises(GuardrailBlocked):
            app.update_state(thread(), Command(goto=goto), as_node="confirm")
        assert taken == []
        assert "__interrupt__" in app.invoke(Command(resume=1), thread())


@pytest.mark.parametrize("value", ["swordfish", ["swordfish"], {"0" * 32: "swordfish"}])
def test_a_blocked_resume_raises_and_reaches_nobody(value: object, tmp_path: Path) -> None:
    """What a resume brings along is input like any other: the question that waits for it waits on."""
    told: list[object] = []
    source = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {input: [word]}"
    with make_guard(tmp_path, source) as guard:
        graph = StateGraph(MessagesState)
        graph.add_node("ask", lambda state: told.append(interrupt("why?")))
        graph.add_edge(START, "ask")
        app = guard.graph(graph.compile(checkpointer=InMemorySaver()))
        app.invoke(GO, thread())
        with pytest.raises(GuardrailBlocked, match="codeword"):
            app.invoke(Command(resume=value), thread())
        app.invoke(Command(resume="because"), thread())
        assert told == ["because"]


@pytest.mark.parametrize("seam", ["middleware", "nodes", "callbacks"])
@pytest.mark.parametrize("later", [Actor("eve"), Actor("ann", tenant="other")], ids=["person", "tenant"])
def test_an_answer_about_ones_budget_opens_no_others(later: Actor, seam: str, tmp_path: Path) -> None:
    """Who resumes what another began, with a budget of his own that is used up, is asked about himself."""
    tools = Tools()
    with make_guard(tmp_path, "budgets: {actor: {tool_calls: 1, then: ask}}\ndefault_tool: allow") as guard:
        calls = [wants("look", f"c{n}", q=str(n)) for n in (1, 2)]
        agent = Agent(tools.all(), *calls, "Done.").under(guard, seam)
        Agent(tools.all(), *calls, "Done.").under(guard, seam).invoke(GO, thread("0", actor=later))
        question = agent.invoke(GO, thread("1", actor=Actor("ann")))["__interrupt__"][0].value
        guard.approvals.approve(question["id"], by="bob")
        before = list(tools.done)
        paused = agent.invoke(Command(resume=1), thread("1", actor=later))
        assert paused["__interrupt__"][0].value["id"] == question["id"]
        assert tools.done == before
        asked = guard.approvals.get(question["id"])
        assert (asked.state, asked.actor, asked.tenant) == ("pending", later.id, later.tenant)
        guard.approvals.approve(question["id"], by="bob")
        agent.invoke(Command(resume=1), thread("1", actor=later))
        assert len(tools.done) == len(before) + 1
