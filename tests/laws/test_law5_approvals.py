"""Law 5: an approval is bound to the call."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, Tools, decisions, in_turn, make_guard, run, spoke, thread, tool_messages, wants
from hosts import asking_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from guardrails_mw import Guard
from guardrails_mw.errors import AlreadyDecided
from guardrails_mw.event import Content, Event, Stage, ToolCall
from guardrails_mw.seam import ANYWHERE
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.wait import drive

ASKS = """
tools:
  look: {}
  wipe:
    ask: [{if: "args.path != '/tmp'", because: not-tmp}]
    block: [{if: "args.path == '/etc'", because: system-path}]
    approval: {within: 30m}
"""
ALLOWS = "tools: {look: {}, wipe: {}}"
BLOCKS = "default_tool: block"


class Agent:
    """An agent that wants to wipe a folder; another guard may take over its thread."""

    def __init__(self, tools: list[object], *replies: object) -> None:
        self.model = ScriptedModel(script=in_turn(*(replies or (wants("wipe", path="/home"), "Done."))))
        self.saver, self.tools = InMemorySaver(), tools

    def under(self, guard: Guard, seam: str = "middleware") -> object:
        return asking_agent(guard, seam, self.model, self.tools, self.saver)


GO = {"messages": [("user", "go")]}
SEAMS = ("middleware", "nodes", "callbacks")


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize(
    "value", ["yes", True, {"decisions": [{"type": "approve"}]}, {"state": "approved", "by": "ann"}]
)
def test_a_forged_resume_stays_paused(value: object, seam: str, tmp_path: Path) -> None:
    """What a resume brings along decides nothing: the same question is asked again, and the tool has not run."""
    tools = Tools()
    with make_guard(tmp_path, ASKS) as guard:
        agent = Agent(tools.all()).under(guard, seam)
        first = agent.invoke(GO, thread())["__interrupt__"][0].value
        for _ in range(3):
            again = agent.invoke(Command(resume=value), thread())["__interrupt__"][0].value
            assert again == first
        assert tools.done == []
        assert len(guard.approvals.list(None)) == 1


@pytest.mark.parametrize("seam", SEAMS)
def test_an_approved_call_runs_once(seam: str, tmp_path: Path) -> None:
    """After an answer on record any resume goes on; the effect happens once and the model is not asked twice."""
    tools, agent = Tools(), None
    with make_guard(tmp_path, ASKS) as guard:
        host = Agent(tools.all())
        agent = host.under(guard, seam)
        id_ = agent.invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann")
        state = agent.invoke(Command(resume="anything"), thread())
        assert state["messages"][-1].content == "Done."
        assert tools.done == [("wipe", "/home")]
        assert host.model.calls == 2
        assert guard.approvals.get(id_).state == "executed"


@pytest.mark.parametrize("seam", SEAMS)
@pytest.mark.parametrize("later", [ASKS, ALLOWS, BLOCKS], ids=["same", "allows", "blocks"])
@pytest.mark.parametrize("mode", ["invoke", "astream"])
def test_a_rejected_call_never_runs(mode: str, later: str, seam: str, tmp_path: Path) -> None:
    """A rejection stands, also when the policy that resumes would no longer ask."""
    tools = Tools()
    host = Agent(tools.all())
    with make_guard(tmp_path, ASKS) as guard:
        id_ = host.under(guard, seam).invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.reject(id_, by="ann", feedback="no")
    with make_guard(tmp_path, later) as guard:
        run(mode, host.under(guard, seam), [Command(resume="approve")], [thread()])
        assert tools.done == []
        assert [row for row in spoke(guard) if row[1] == "allow"] == []


@pytest.mark.parametrize("seam", SEAMS)
def test_an_approval_does_not_outlive_a_block(seam: str, tmp_path: Path) -> None:
    """A fresh block blocks, whoever approved before."""
    tools = Tools()
    host = Agent(tools.all())
    with make_guard(tmp_path, ASKS) as guard:
        id_ = host.under(guard, seam).invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann")
    with make_guard(tmp_path, BLOCKS) as guard:
        run("invoke", host.under(guard, seam), [Command(resume=1)], [thread()])
        assert tools.done == []


def test_a_new_reason_asks_again(tmp_path: Path) -> None:
    """An approval discharges the reasons it was asked for; one more reason is asked about again."""
    tools = Tools()
    host = Agent(tools.all())
    with make_guard(tmp_path, ASKS) as guard:
        id_ = host.under(guard).invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann")
    with make_guard(tmp_path, ASKS.replace("not-tmp", "other-reason")) as guard:
        state = host.under(guard).invoke(Command(resume=1), thread())
        assert "other-reason" in state["__interrupt__"][0].value["reason"]
        assert tools.done == []
        guard.approvals.approve(id_, by="bob")
        host.under(guard).invoke(Command(resume=1), thread())
        assert tools.done == [("wipe", "/home")]


def test_an_approval_does_not_fit_other_arguments(tmp_path: Path) -> None:
    """Arguments that were changed in the state while it was paused are another call, and asked about anew."""
    tools = Tools()
    with make_guard(tmp_path, ASKS) as guard:
        agent = Agent(tools.all()).under(guard)
        first = agent.invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(first, by="ann")
        message = agent.get_state(thread()).values["messages"][-1]
        other = message.model_copy(update={"tool_calls": [{**message.tool_calls[0], "args": {"path": "/everything"}}]})
        agent.update_state(thread(), {"messages": [other]}, as_node="model")
        state = agent.invoke(None, thread())
        assert state["__interrupt__"][0].value["id"] != first
        assert tools.done == []


def test_an_answer_fits_one_call_only(tmp_path: Path) -> None:
    """Under one and the same key, arguments that nobody was asked about are asked about."""

    class Paused(Exception):
        """Stands for the host's own."""

    def pause(payload: dict[str, object], *, earlier: bool = False) -> None:
        if not earlier:
            raise Paused

    def ruled(guard: Guard, path: str) -> object:
        call = ToolCall("wipe", {"path": path}, "c1")
        event = Event(Stage.TOOL_CALL, Content(call.args), call=call, key="one key")
        decision = guard.decide(event)
        return drive(guard.enforcer.answering(decision, ANYWHERE, pause))

    with make_guard(tmp_path, ASKS) as guard:
        with pytest.raises(Paused):
            ruled(guard, "/home")
        guard.approvals.approve(guard.approvals.list()[0].id, by="ann")
        assert not ruled(guard, "/home").blocked
        with pytest.raises(Paused):
            ruled(guard, "/everything")


class Meeting(SqliteStore):
    """A real store in which two that claim an answer meet at the claim."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.claims = threading.Barrier(2, timeout=10)

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        if new is not None and '"state": "executed"' in new:
            self.claims.wait()
        return super().swap(key, expected, new, due)


@pytest.mark.parametrize("seam", ["middleware", "nodes"])
def test_two_resumers_one_effect(seam: str, tmp_path: Path) -> None:
    """Two resumes of one thread that both saw the answer and claim it at the same moment: the tool runs once."""
    tools = Tools()
    with make_guard(tmp_path, ASKS, store=Meeting(tmp_path / "own.db")) as guard:
        agent = Agent(tools.all()).under(guard, seam)
        id_ = agent.invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann")
        threads = [threading.Thread(target=agent.invoke, args=(Command(resume=1), thread())) for _ in range(2)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert tools.done == [("wipe", "/home")]
        assert not guard.store.claims.broken


@pytest.mark.parametrize("seam", SEAMS)
def test_too_late(seam: str, tmp_path: Path) -> None:
    """A question whose time is over cannot be answered any more, and its call is blocked."""
    tools = Tools()
    with make_guard(tmp_path, ASKS.replace("30m", "50ms")) as guard:
        agent = Agent(tools.all()).under(guard, seam)
        id_ = agent.invoke(GO, thread())["__interrupt__"][0].value["id"]
        time.sleep(0.06)
        with pytest.raises(AlreadyDecided, match="clock"):
            guard.approvals.approve(id_, by="ann")
        run("invoke", agent, [Command(resume=1)], [thread()])
        assert tools.done == []
        assert guard.approvals.get(id_).state == "expired"


@pytest.mark.parametrize(
    ("path", "done", "reason"),
    [("/tmp", [("wipe", "/tmp")], ""), ("/opt", [("wipe", "/opt")], ""), ("/etc", [], "system-path")],
)
def test_edited_arguments_pass_every_gate(path: str, done: list[object], reason: str, tmp_path: Path) -> None:
    """A reviewer's own arguments are what runs, after all gates saw them; a reviewer cannot lift a block."""
    tools = Tools()
    with make_guard(tmp_path, ASKS) as guard:
        agent = Agent(tools.all()).under(guard)
        id_ = agent.invoke(GO, thread())["__interrupt__"][0].value["id"]
        guard.approvals.approve(id_, by="ann", args={"path": path})
        state = agent.invoke(Command(resume=1), thread())
        assert tools.done == done
        assert (reason in tool_messages(state)[0].text) is True


def test_from_another_process(tmp_path: Path) -> None:
    """The answer may come from another process that has nothing but the policy file."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"version: 1\nstore: sqlite:///guard.db\n{ASKS}")
    tools = Tools()
    with Guard.from_yaml(policy) as guard:
        agent = Agent(tools.all()).under(guard)
        agent.invoke(GO, thread())
        code = (
            "import sys; from guardrails_mw import Guard; guard = Guard.from_yaml(sys.argv[1]); "
            "guard.approvals.approve(guard.approvals.list()[0].id, by='ann'); guard.close()"
        )
        subprocess.run([sys.executable, "-c", code, str(policy)], check=True, timeout=60)
        agent.invoke(Command(resume=1), thread())
        assert tools.done == [("wipe", "/home")]
        assert guard.ledger.verify(guard.ledger.runs()[0].run) == []


@pytest.mark.parametrize("seam", SEAMS)
def test_parallel_calls_each_have_their_own_answer(seam: str, tmp_path: Path) -> None:
    """Of two calls in one message one is approved and one rejected: exactly the approved one runs."""
    tools = Tools()
    calls = [{"name": "wipe", "args": {"path": f"/{n}"}, "id": f"c{n}"} for n in (1, 2)]
    with make_guard(tmp_path, ASKS) as guard:
        agent = Agent(tools.all(), AIMessage("", tool_calls=calls), "Done.").under(guard, seam)
        state = agent.invoke(GO, thread())
        for _ in range(4):
            for question in guard.approvals.list():
                answer = guard.approvals.approve if question.args == {"path": "/1"} else guard.approvals.reject
                answer(question.id, by="ann")
            if "__interrupt__" not in state:
                break
            resume = {each.id: "go on" for each in state["__interrupt__"]}
            try:
                state = agent.invoke(Command(resume=resume), thread())
            except RuntimeError:  # callbacks raise the rejection
                assert seam == "callbacks"
                break
        assert tools.done in ([("wipe", "/1")], [] if seam == "callbacks" else [("wipe", "/1")])


@pytest.mark.parametrize("seam", SEAMS)
def test_a_tools_own_question_gets_its_own_answer(seam: str, tmp_path: Path) -> None:
    """The resume that follows an approval does not answer what the tool itself asks afterwards."""
    done: list[object] = []

    @tool
    def wipe(path: str) -> str:
        """Remove a folder after asking for a reason."""
        done.append(interrupt("why?"))
        return "wiped"

    with make_guard(tmp_path, "tools: {wipe: {ask: [{if: 'args.path != 1', because: x}]}}") as guard:
        agent = Agent([wipe]).under(guard, seam)
        agent.invoke(GO, thread())
        agent.invoke(Command(resume="forged"), thread())
        guard.approvals.approve(guard.approvals.list()[0].id, by="ann")
        state = agent.invoke(Command(resume="after the approval"), thread())
        assert [each.value for each in state.get("__interrupt__", [])] == ["why?"]
        assert done == []
        state = agent.invoke(Command(resume="because"), thread())
        assert done == ["because"]
        assert state["messages"][-1].content == "Done."


def test_approval_node(tmp_path: Path) -> None:
    """A step of a graph waits for a person: forged resumes wait on, an answer leads to its own branch, once."""

    class State(MessagesState):
        version: str

    for answer, expected in (("approve", ["deploy"]), ("reject", ["plan"])):
        went: list[str] = []
        folder = tmp_path / answer
        folder.mkdir()
        with make_guard(folder, BLOCKS) as guard:
            graph = StateGraph(State)
            confirm = guard.approval_node(action="deploy", then="deploy", rejected="plan", expected="new version")
            graph.add_node("confirm", confirm, destinations=("deploy", "plan"))
            graph.add_node("deploy", lambda state, w=went: w.append("deploy"))
            graph.add_node("plan", lambda state, w=went: w.append("plan"))
            graph.add_edge(START, "confirm")
            app = graph.compile(checkpointer=InMemorySaver())
            question = app.invoke({"messages": [], "version": "2"}, thread())["__interrupt__"][0].value
            assert (question["action"], question["args"], question["expected"]) == (
                "deploy",
                {"version": "2"},
                "new version",
            )
            assert "__interrupt__" in app.invoke(Command(resume=True), thread())
            getattr(guard.approvals, answer)(question["id"], by="ann")
            app.invoke(Command(resume=1), thread())
            assert went == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seam", ["middleware", "callbacks"])
def test_without_a_checkpointer_nobody_can_be_asked(seam: str, mode: str, tmp_path: Path) -> None:
    """Where a pause could never be resumed, a question is a block that says so."""
    tools = Tools()
    with make_guard(tmp_path, ASKS) as guard:
        host = Agent(tools.all())
        host.saver = None
        run(mode, host.under(guard, seam), [GO], [thread()])
        assert spoke(guard) == [("tool_call", "block", "seam", "unenforceable", 0)]
        assert tools.done == []
        assert guard.approvals.list(None) == []


def test_reviewers_see_what_gates_left(tmp_path: Path) -> None:
    """Nobody who is asked sees what a redaction removed; the tool gets the edited arguments."""
    tools = Tools()
    source = "gates: {pii: {type: pii}}\nrecord: {redact: [pii]}\nstages: {tool_call: [pii]}\n" + ASKS
    with make_guard(tmp_path, source) as guard:
        host = Agent(tools.all(), wants("wipe", path="mail for ann.jones@example.org"), "Done.")
        agent = host.under(guard)
        question = agent.invoke(GO, thread())["__interrupt__"][0].value
        assert "ann.jones" not in repr(question)
        assert "ann.jones" not in repr([guard.store.get(key) for key in guard.store.keys("approval:")])
        guard.approvals.approve(question["id"], by="bob")
        agent.invoke(Command(resume=1), thread())
        assert "ann.jones" not in repr(tools.done)
        assert len(tools.done) == 1
        assert "ann.jones" not in repr(decisions(guard))
