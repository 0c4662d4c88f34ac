"""A guard's policy can change while it works: whole, on record, or not at all."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from chat import Failing, ScriptedModel, Tools, in_turn, make_guard, thread, tool_messages, wants
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command
from reloading import until

from guardrails_mw import Guard
from guardrails_mw.document import Document
from guardrails_mw.engine import Engine
from guardrails_mw.errors import GuardrailBlocked, PolicyError, StoreError
from guardrails_mw.event import Content, Event, ModelCall, Origin, Stage, Where
from guardrails_mw.gates.injection.gate import InjectionGate
from guardrails_mw.policy import Policy
from guardrails_mw.reload import _watch
from guardrails_mw.telemetry.boundary import Boundary
from guardrails_mw.verdict import Decision, Outcome, Usage

OPEN = "gates: {word: {type: python, call: 'reloading:says', with: {name: fine}}}\nstages: {input: [word]}\n"
SHUT = "gates: {word: {type: python, call: 'chat:codeword'}}\nstages: {input: [word]}\n"


RULES = """version: 1
words: {{}}
signatures:
- {{id: own.fish, family: own, weight: 1.0, pattern: {0}, reason: fish, example: {0}}}
"""


class Policies:
    """A policy file beside a SQLite store, written anew by tests."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "policy.yaml"

    def write(self, source: str) -> Path:
        store = "" if "store:" in source else "store: sqlite:///guard.db\n"
        self.path.write_text(f"version: 1\n{store}{source}")
        return self.path


@pytest.fixture
def policies(tmp_path: Path) -> Policies:
    return Policies(tmp_path)


def named(name: str, *calls: str, cost: str = "blocking", stage: str = "input") -> str:
    """A policy whose gates all say one name."""
    gates = "".join(
        f"  g{i}: {{type: python, call: 'reloading:{call}', cost: {cost}, with: {{name: {name}}}, deadline_ms: 9e4}}\n"
        for i, call in enumerate(calls)
    )
    return f"gates:\n{gates}stages: {{{stage}: [{', '.join(f'g{i}' for i in range(len(calls)))}]}}\n"


def changes(guard: Guard) -> list[dict[str, object]]:
    """What the ledger has about the guard's policy."""
    return [entry["body"] for entry in guard.ledger.read("guard")]


def said(decision: Decision) -> set[str]:
    """The names that the gates of a decision gave."""
    return {check.verdict.reason for check in decision.checks}


def engines() -> int:
    """How many engines there are."""
    gc.collect()
    return sum(type(each) is Engine for each in gc.get_objects())


# what a reload does


def test_a_reload_changes_what_is_decided(policies: Policies) -> None:
    """The new policy decides from the moment `reload` returns, and every decision carries its label."""
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        before = guard.check("swordfish")
        policy = guard.reload(policies.write(SHUT))
        after = guard.check("swordfish")
    assert not before.blocked
    assert after.blocked
    assert policy is guard.policy
    assert after.policy == policy.label != before.policy


def _run_model(guard: Guard, model: ScriptedModel) -> object:
    guarded = guard.model(model)
    return lambda: guarded.invoke("swordfish").content


def _run_agent(guard: Guard, model: ScriptedModel) -> object:
    agent = create_agent(model, [], middleware=[guard.middleware()])
    return lambda: agent.invoke({"messages": [("user", "swordfish")]})["messages"][-1].content


def _run_runnable(guard: Guard, model: ScriptedModel) -> object:
    chain = guard.runnable(model | StrOutputParser())
    return lambda: chain.invoke("swordfish")


def _run_nodes(guard: Guard, model: ScriptedModel) -> object:
    graph = StateGraph(MessagesState)
    graph.add_node("gate", guard.input_node(then="agent"))
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "gate")
    graph.add_edge("agent", END)
    compiled = graph.compile()
    return lambda: compiled.invoke({"messages": [("user", "swordfish")]})["messages"][-1].content


def _run_callbacks(guard: Guard, model: ScriptedModel) -> object:
    handlers = guard.callbacks()

    def once() -> str:
        try:
            return str(model.invoke("swordfish", config={"callbacks": handlers}).content)
        except GuardrailBlocked as block:
            return f"I can't help with that ({block.reason})."

    return once


@pytest.mark.parametrize("seam", [_run_model, _run_agent, _run_runnable, _run_nodes, _run_callbacks])
def test_seams_that_were_made_before_see_the_new_policy(seam: object, policies: Policies) -> None:
    """A model, a middleware, a chain, nodes and callbacks that were made under the old policy keep to the new one."""
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        go = seam(guard, ScriptedModel(script=in_turn("Fine.")))
        assert go() == "Fine."
        policies.write(SHUT)
        guard.reload()
        assert go() == "I can't help with that (codeword)."
        policies.write(OPEN)
        guard.reload()
        assert go() == "Fine."


def test_a_guarded_model_is_still_known_as_guarded(policies: Policies) -> None:
    """After a reload a model is not guarded twice, and callbacks of the same guard leave it alone."""
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        model = ScriptedModel(script=in_turn("Fine."))
        guarded, handlers = guard.model(model), guard.callbacks()
        guard.reload()
        assert guard.model(guarded) is guarded
        guarded.invoke("hello", config={"callbacks": handlers})
        runs = [each.run for each in guard.ledger.runs() if each.run != "guard"]
        assert [sum(entry["kind"] == "decision" for entry in guard.ledger.read(run)) for run in runs] == [1]


def test_a_guard_made_from_a_policy_takes_another(tmp_path: Path) -> None:
    """`reload(policy=...)` is for guards that have no file; each kind of guard refuses the other's way."""
    with make_guard(tmp_path, OPEN) as guard:
        source = f"version: 1\nstore: sqlite:///{tmp_path}/guard.db\n{SHUT}"
        guard.reload(policy=Policy.load(Document(source), base=tmp_path))
        assert guard.check("swordfish").blocked
        with pytest.raises(TypeError, match="policy="):
            guard.reload()
        with pytest.raises(TypeError):
            guard.reload(tmp_path / "policy.yaml")


def test_what_watches_decisions_goes_on_watching(policies: Policies) -> None:
    """Observers are told of decisions of the new policy, with its label."""
    seen: list[str] = []
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        guard.engine.observers.append(lambda decision: seen.append(decision.policy))
        guard.check("a")
        guard.reload(policies.write(SHUT))
        guard.check("a")
        assert seen == [seen[0], guard.policy.label]
        assert seen[0] != seen[1]


def test_traces_are_redacted_as_the_new_policy_says(policies: Policies) -> None:
    """What a text looks like in a trace follows the policy, also where the same text was sent before."""
    redacting = "record: {redact: [pii]}\ngates: {pii: {type: pii}}\nstages: {input: [pii]}\n"
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        boundary = Boundary(guard._seat.generation.redactor)
        assert boundary.text("I am amy@example.com") == "I am amy@example.com"
        guard.reload(policies.write(redacting))
        boundary.redact_by(guard._seat.generation.redactor)
        assert "amy@example.com" not in boundary.text("I am amy@example.com")


# on record


def test_a_reload_is_on_record(policies: Policies) -> None:
    """The ledger says which policy took over from which, and when only a file beside it changed."""
    schema = policies.path.with_name("answer.json")
    schema.write_text('{"type": "object"}')
    source = "gates: {shape: {type: json_schema, schema: answer.json}}\nstages: {output: [shape]}\n"
    with Guard.from_yaml(policies.write(source)) as guard:
        first = guard.policy
        schema.write_text('{"type": "array"}')
        guard.reload()
        guard.reload(policies.write(OPEN))
        rules, policy = changes(guard)
        assert guard.ledger.verify("guard") == []
    assert rules["result"] == policy["result"] == "loaded"
    assert (rules["before"], rules["policy"]) == (first.label, first.label)
    assert rules["before_files"] != rules["files"]
    assert (policy["before_hash"], policy["hash"]) == (first.hash, guard.policy.hash)
    assert policy["before_files"] == rules["files"]


def test_a_reload_of_the_same_is_on_record_as_the_same(policies: Policies) -> None:
    """Rules that come with the package are no files of a policy: what did not change has the digest it had."""
    source = "gates: {in: {type: injection}, keys: {type: secrets}}\nstages: {input: [in, keys]}\n"
    with Guard.from_yaml(policies.write(source)) as guard:
        guard.reload()
        (same,) = changes(guard)
        assert set(guard._reloading.tried) == {policies.path}
    assert (same["policy"], same["hash"], same["files"]) == (same["before"], same["before_hash"], same["before_files"])


def test_a_reload_that_cannot_be_recorded_does_not_happen(tmp_path: Path) -> None:
    """Law 4: a policy takes over only after the ledger says so."""
    store = Failing(tmp_path / "own.db")
    with make_guard(tmp_path, OPEN, store=store) as guard:
        before, store.broken = guard.policy, True
        with pytest.raises(StoreError):
            guard.reload(policy=Policy.load(Document("version: 1\n" + SHUT)))
        store.broken = False
        assert guard.policy is before
        assert guard.check("swordfish").policy == before.label
        guard.reload(policy=Policy.load(Document("version: 1\n" + SHUT)))
        assert guard.check("swordfish").blocked


# all or nothing

BROKEN = {
    "not yaml": ("gates: {secret-word: [\n", 4, ""),
    "unknown key": ("secret-word: 1\n" + OPEN, 3, "secret-word"),
    "unknown gate": (OPEN + "record: {redact: [secret-word]}\n", 5, "record.redact.0"),
    "no such function": (OPEN.replace("reloading:says", "reloading:secret_word"), 3, "gates.word.call"),
    "a bad pattern": (
        "gates: {word: {type: injection, signatures: {add: [rules.yaml]}}}\nstages: {input: [word]}\n",
        3,
        "gates.word",
    ),
    "a bad schema": (
        "gates: {shape: {type: json_schema, schema: bad.json}}\nstages: {output: [shape]}\n",
        1,
        "gates.shape",
    ),
    "no such file": (
        "gates: {shape: {type: json_schema, schema: none.json}}\nstages: {output: [shape]}\n",
        0,
        "gates.shape",
    ),
    "no such tool": (OPEN + "tools: {secret-word: {}}\n", 5, "tools.secret-word"),
    "another store": ("store: sqlite:///secret-word.db\n" + OPEN, 2, "store"),
    "another durability": (OPEN + "record: {durability: power}\n", 5, "record.durability"),
    "other traces": (OPEN + "traces: {otlp: [{endpoint: 'http://secret-word:1/v1/traces'}]}\n", 5, "traces"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_loaded_changes_nothing(case: str, policies: Policies) -> None:
    """A mistake names file, line and field; the old policy decides as before; the record holds a code, no content."""
    source, line, field = BROKEN[case]
    folder = policies.path.parent
    (folder / "rules.yaml").write_text(RULES.format("'(secret-word'"))
    (folder / "bad.json").write_text('{"type": secret-word')
    with Guard.from_yaml(policies.write(SHUT), tools=Tools().all()) as guard:
        before, engine = guard.policy, guard.engine
        policies.write(source)
        with pytest.raises(PolicyError) as caught:
            guard.reload()
        assert Path(caught.value.file).parent == folder
        assert caught.value.line == line or not line
        assert caught.value.field.startswith(field)
        assert guard.policy is before
        assert guard.engine is engine
        assert guard.check("swordfish").blocked
        (refused,) = changes(guard)
        assert (refused["result"], refused["reason"]) == ("refused", "policy.invalid")
        assert refused["policy"] == before.label
        assert "secret-word" not in json.dumps(refused)
        assert not (folder / "secret-word.db").exists()
        policies.write(OPEN)
        guard.reload()
        assert not guard.check("swordfish").blocked


def test_a_gate_that_does_not_get_ready_is_left_with_its_processes(policies: Policies) -> None:
    """Processes that were started for a policy that then fails are ended, and the error names the gate."""
    source = named("b", "says", cost="isolated") + "record: {redact: [z]}\n"
    source = source.replace("gates:\n", "gates:\n  z: {type: injection}\n")
    with Guard.from_yaml(policies.write(OPEN)) as guard, pytest.MonkeyPatch.context() as patch:
        store, engine = guard.ledger, guard.engine
        patch.setattr(InjectionGate, "warm", lambda self: 1 / 0)
        with pytest.raises(PolicyError, match="ZeroDivisionError") as caught:
            guard.reload(policies.write(source))
        assert caught.value.field == "gates.z"
        assert guard.engine is engine
        assert store is guard.ledger
        patch.undo()
        patch.setattr(type(store), "record", _no_record)  # after the process has started
        with pytest.raises(StoreError):
            guard.reload()
        assert until(lambda: not multiprocessing.active_children())


def _no_record(*_: object) -> None:
    raise StoreError("store.gone")


def test_tools_of_agents_are_checked_again(policies: Policies) -> None:
    """A policy that names a tool no attached agent has is refused, as it was when the agent was attached."""
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        agent = create_agent(ScriptedModel(script=in_turn("Hi.")), Tools().all(), middleware=[guard.middleware()])
        agent.invoke({"messages": [("user", "hi")]})
        policies.write(OPEN + "tools: {wype: {}}\n")
        with pytest.raises(PolicyError, match="did you mean 'wipe'"):
            guard.reload()
        policies.write(OPEN + "tools: {wipe: {}}\n")
        guard.reload()


def test_a_closed_guard_is_not_reloaded(policies: Policies) -> None:
    """Nothing is built for a guard that is closed."""
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        guard.reload()


# never half of each


def test_decisions_agree_with_their_policy_while_it_changes(policies: Policies) -> None:
    """Threads that decide all the time: label and every gate's answer are always those of one policy."""
    calls = ("says", "says_later", "says")
    labels: dict[str, str] = {}
    found: list[Decision] = []
    over = threading.Event()

    def hammer(guard: Guard) -> None:
        while not over.is_set():
            found.append(guard.check("x"))

    with Guard.from_yaml(policies.write(named("p0", *calls))) as guard:
        labels[guard.policy.label] = "p0"
        threads = [threading.Thread(target=hammer, args=(guard,)) for _ in range(4)]
        for each in threads:
            each.start()
        for number in range(1, 25):
            policy = guard.reload(policies.write(named(f"p{number}", *calls)))
            labels[policy.label] = f"p{number}"
            assert said(guard.check("x")) == {f"p{number}"}
        over.set()
        for each in threads:
            each.join()
    assert len(found) > 25
    assert [said(decision) for decision in found] == [{labels[decision.policy]} for decision in found]


async def _hammer_async(guard: Guard, policies: Policies) -> list[tuple[str, set[str]]]:
    found: list[tuple[str, set[str]]] = []

    async def decide() -> None:
        for _ in range(20):
            decision = await guard.adecide(Event(Stage.INPUT, Content("x")))
            found.append((decision.policy, said(decision)))

    tasks = [asyncio.create_task(decide()) for _ in range(5)]
    for number in range(1, 8):
        await asyncio.to_thread(guard.reload, policies.write(named(f"p{number}", "says_later", "says")))
    await asyncio.gather(*tasks)
    return found


def test_asynchronous_decisions_agree_with_their_policy(policies: Policies) -> None:
    """The same in an event loop, with gates that are awaited and gates in threads."""
    with Guard.from_yaml(policies.write(named("p0", "says_later", "says"))) as guard:
        first = guard.policy.label
        found = asyncio.run(_hammer_async(guard, policies))
        labels = {first: "p0"}
        labels |= {str(body["policy"]): f"p{number}" for number, body in enumerate(changes(guard), 1)}
    assert len(found) == 100
    assert [names for _, names in found] == [{labels[label]} for label, _ in found]


@pytest.mark.parametrize("cost", ["blocking", "isolated"])
def test_a_decision_under_way_ends_as_it_began(cost: str, policies: Policies) -> None:
    """A reload does not wait for a slow gate, the gate answers, and then the old engine and its process are gone."""
    folder, found = policies.path.parent, list[Decision]()
    slow = named("old", "waits", "says", cost=cost).replace("name: old}", f"name: old, folder: '{folder}'}}", 1)
    with Guard.from_yaml(policies.write(slow)) as guard:
        label = guard.policy.label
        deciding = threading.Thread(target=lambda: found.append(guard.check("wait")))
        deciding.start()
        assert until((folder / "begun").exists)
        guard.reload(policies.write(named("new", "says")))
        assert deciding.is_alive()
        assert said(guard.check("x")) == {"new"}
        (folder / "go").touch()
        deciding.join(20)
        assert (found[0].policy, said(found[0])) == (label, {"old"})
        assert until(lambda: gc.collect() >= 0 and not guard._seat._retired)
        assert until(lambda: not multiprocessing.active_children())


def test_a_stream_ends_under_the_policy_it_began_under(policies: Policies) -> None:
    """What was opened before a reload is decided by the old policy, in both worlds."""
    with Guard.from_yaml(policies.write(named("old", "says"))) as guard:
        streams = [guard.open(Event(Stage.INPUT, Content(""))) for _ in range(2)]
        for stream in streams:
            stream.feed("one ")
        guard.reload(policies.write(named("new", "says")))
        for stream in streams:
            stream.feed("two")
        assert said(streams[0].close()) == {"old"}
        assert said(asyncio.run(streams[1].aclose())) == {"old"}
        assert said(guard.open(Event(Stage.INPUT, Content(""))).close()) == {"new"}


WHOLE = """
gates:
  into: {{type: python, call: "reloading:says", with: {{name: {0}}}}}
  out: {{type: python, call: "reloading:says", with: {{name: {0}}}}}
stages: {{input: [into], output: [out], tool_result: [out]}}
tools: {{look: {{}}}}
"""


def _guarded(seam: str, guard: Guard, model: ScriptedModel) -> tuple[object, object, dict[str, object]]:
    """Something that calls a model under guard, what to give it, and its configuration."""
    if seam == "agent":
        return create_agent(model, [], middleware=[guard.middleware()]), {"messages": [("user", "hello")]}, {}
    if seam == "runnable":
        return guard.runnable(model | StrOutputParser()), "hello", {}
    if seam == "runnable of model":
        return guard.runnable(guard.model(model) | StrOutputParser()), "hello", {}
    if seam == "callbacks":
        return model, "hello", {"callbacks": guard.callbacks()}
    return guard.model(model), "hello", {}


def _call(mode: str, thing: object, given: object, config: dict[str, object]) -> None:
    if mode == "ainvoke":
        asyncio.run(thing.ainvoke(given, config))
    elif mode == "generate":
        thing.generate([[HumanMessage("hello")], [HumanMessage("hallo")]])
    elif mode == "stream":
        list(thing.stream(given, config))
    else:
        thing.invoke(given, config)


SEAMS = ("model", "agent", "runnable", "runnable of model")
CALLS = [(seam, mode) for seam in SEAMS for mode in ("invoke", "stream", "ainvoke")]


@pytest.mark.parametrize(
    ("seam", "mode"), [*CALLS, ("model", "generate"), ("callbacks", "invoke"), ("callbacks", "ainvoke")]
)
def test_a_model_call_ends_under_the_policy_it_began_under(seam: str, mode: str, policies: Policies) -> None:
    """The policy changes while the model answers: what went in and what comes out is decided by one and the same."""
    with Guard.from_yaml(policies.write(WHOLE.format("old"))) as guard:
        first, seen = guard.policy.label, list[Decision]()
        guard.engine.observers.append(seen.append)

        def answer(messages: object) -> str:
            policies.write(WHOLE.format("new"))
            guard.reload()
            return "Fine."

        thing, given, config = _guarded(seam, guard, ScriptedModel(script=answer))
        for expected in ("old", "new"):
            seen.clear()
            _call(mode, thing, given, config)
            assert {decision.stage for decision in seen} >= {Stage.INPUT, Stage.OUTPUT}
            assert [said(decision) for decision in seen] == [{expected}] * len(seen)
            assert {decision.policy == first for decision in seen} == {expected == "old"}


@pytest.mark.parametrize("seam", ["middleware", "nodes", "callbacks"])
def test_a_tool_call_ends_under_the_policy_it_began_under(seam: str, policies: Policies) -> None:
    """The policy changes while a tool runs: its result is decided by the policy that let it run, the rest is not."""
    with Guard.from_yaml(policies.write(WHOLE.format("old"))) as guard:
        seen: list[Decision] = []
        guard.engine.observers.append(seen.append)

        @tool
        def look(q: str) -> str:
            """Look something up."""
            policies.write(WHOLE.format("new"))
            guard.reload()
            return "found"

        model = ScriptedModel(script=in_turn(wants("look", q="a"), "Done."))
        if seam == "nodes":
            graph = StateGraph(MessagesState)
            graph.add_node("tools", guard.tool_node([look]))
            graph.add_edge(START, "tools")
            app, given = graph.compile(), {"messages": [wants("look", q="a")]}
        else:
            with_it = [guard.middleware()] if seam == "middleware" else []
            app, given = create_agent(model, [look], middleware=with_it), {"messages": [("user", "go")]}
        app.invoke(given, {"callbacks": guard.callbacks() if seam == "callbacks" else []})
        results = [decision for decision in seen if decision.stage is Stage.TOOL_RESULT]
        assert said(results[0]) >= {"old"}
        if seam != "nodes":
            assert said([decision for decision in seen if decision.stage is Stage.OUTPUT][-1]) == {"new"}


# what lasts

ASKS = OPEN + 'tools: {look: {}, wipe: {ask: [{if: "true", because: mine}], approval: {within: 30m}}}\n'.replace(
    '"true"', "\"args.path != '/tmp'\""
)
GO = {"messages": [("user", "go")]}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("after", "end"),
    [
        (OPEN + "tools: {look: {}, wipe: {}}\n", "runs"),
        (ASKS, "runs"),
        (OPEN + "tools: {look: {}, wipe: {block: [{if: \"args.path == '/home'\", because: never}]}}\n", "never"),
        (ASKS.replace("because: mine", "because: other"), "asks"),
    ],
    ids=["allows", "asks the same", "blocks", "asks for another reason"],
)
def test_a_run_that_waits_for_a_person_goes_on_under_the_new_policy(
    after: str, end: str, asynchronous: bool, policies: Policies
) -> None:
    """An approval discharges what the old policy asked; the call itself is decided by the new one, and runs once."""
    tools, saver = Tools(), InMemorySaver()

    def go(value: object) -> dict[str, object]:
        return asyncio.run(agent.ainvoke(value, thread())) if asynchronous else agent.invoke(value, thread())

    with Guard.from_yaml(policies.write(ASKS), tools=tools.all()) as guard:
        model = ScriptedModel(script=in_turn(wants("wipe", path="/home"), "Done."))
        agent = create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=saver)
        id_ = go(GO)["__interrupt__"][0].value["id"]
        guard.reload(policies.write(after))
        assert [approval.id for approval in guard.approvals.list()] == [id_]
        guard.approvals.approve(id_, by="ann")
        state = go(Command(resume=True))
        if end == "runs":
            assert tools.done == [("wipe", "/home")]
            assert guard.approvals.get(id_).state == "executed"
        elif end == "asks":
            assert "other" in state["__interrupt__"][0].value["reason"]
            assert tools.done == []
        else:
            assert tools.done == []
            assert tool_messages(state)[0].additional_kwargs["guardrails"]["reason"] == end


BUDGET = "budgets: {run: {tokens: 1000, model_calls: 10}}\n"


@pytest.mark.parametrize("after", [OPEN, OPEN + BUDGET.replace("1000", "500"), "mode: shadow\n" + OPEN + BUDGET])
def test_what_a_budget_holds_is_settled_by_the_policy_that_held_it(after: str, policies: Policies) -> None:
    """A permit of the old policy is settled with what was really used, whatever the new policy counts."""
    with Guard.from_yaml(policies.write(OPEN + BUDGET)) as guard:
        event = Event(
            Stage.MODEL, Content("x"), Origin.USER, where=Where(run="r"), call=ModelCall("m", 100, 300), key="k"
        )
        permit = guard.decide(event)
        scopes = _scopes(guard)
        assert any(guard.store.used(scope) == 400 for scope in scopes)
        guard.reload(policies.write(after))
        guard.settle(permit, Outcome("done", 0.1, Usage(7, 3)))
        assert [guard.store.used(scope) for scope in scopes if "tokens" in scope] == [10]


@pytest.mark.parametrize("seam", ["model", "agent", "runnable", "callbacks"])
def test_a_model_call_is_charged_by_the_policy_that_let_it_begin(seam: str, policies: Policies) -> None:
    """The new policy has no budget; a call that began under the old one is still charged what it used, not its hold."""
    with Guard.from_yaml(policies.write(OPEN + BUDGET.replace("1000", "9000"))) as guard:
        held: dict[str, int] = {}

        def answer(messages: object) -> str:
            held.update({name: guard.store.used(name) for name in _scopes(guard) if "tokens" in name})
            guard.reload(policies.write(OPEN))
            return "Fine."

        thing, given, config = _guarded(seam, guard, ScriptedModel(script=answer))
        _call("invoke", thing, given, config)
        ((scope, amount),) = held.items()
        assert amount > 1000
        assert 0 < guard.store.used(scope) < 100


def _scopes(guard: Guard) -> list[str]:
    """The scopes of which a store holds something."""
    with sqlite3.connect(guard.policy.base / "guard.db") as database:
        return [name for (name,) in database.execute("select distinct held.key from reservation, json_each(held) held")]


# nothing is left behind


def test_many_reloads_leave_nothing_behind(policies: Policies) -> None:
    """After 100 reloads, with work at each, there are as many threads and engines as after the first."""
    with Guard.from_yaml(policies.write(named("p", "says", "says_later"))) as guard:
        chain = guard.runnable(guard.model(ScriptedModel(script=in_turn("Fine."))))
        handlers = guard.callbacks()

        def once(number: int) -> None:
            guard.reload(policies.write(named(f"p{number}", "says", "says_later")))
            guard.check("x")
            chain.invoke("x")
            ScriptedModel(script=in_turn("Fine.")).invoke("x", config={"callbacks": handlers})

        once(0)
        assert until(lambda: not guard._seat._retired)
        threads, before = threading.active_count(), engines()
        for number in range(1, 101):
            once(number)
        assert until(lambda: threading.active_count() <= threads)
        assert until(lambda: engines() == before)


def test_reloads_end_the_processes_of_isolated_gates(policies: Policies) -> None:
    """One process for each isolated gate, however often the policy changes."""
    with Guard.from_yaml(policies.write(named("p", "says", cost="isolated"))) as guard:
        guard.check("x")
        pids = set()
        for number in range(4):
            guard.reload(policies.write(named(f"p{number}", "says", cost="isolated")))
            assert said(guard.check("x")) == {f"p{number}"}
            assert until(lambda: len(multiprocessing.active_children()) == 1)
            pids |= {child.pid for child in multiprocessing.active_children()}
        assert len(pids) == 4
    assert until(lambda: not multiprocessing.active_children())


def test_a_block_that_somebody_keeps_holds_no_engine(policies: Policies) -> None:
    """A handler that remembers a block, so as to raise it again, keeps nothing of the policy that made it."""
    model = ScriptedModel(script=in_turn("Fine."))
    with Guard.from_yaml(policies.write(SHUT)) as guard:
        handlers = guard.callbacks()
        with pytest.raises(GuardrailBlocked):
            model.invoke("swordfish", config={"callbacks": handlers})
        guard.reload(policies.write(OPEN))
        gc.collect()
        assert len(guard._seat._retired) == 0


# watching


def _watched(policies: Policies, source: str) -> Guard:
    return Guard.from_yaml(policies.write(source), watch=0.05)


def test_a_changed_file_is_reloaded(policies: Policies) -> None:
    """Written in place, and replaced by a rename as editors do it."""
    with _watched(policies, OPEN) as guard:
        policies.write(SHUT)
        assert until(lambda: guard.check("swordfish").blocked)
        other = Policies(policies.path.parent)
        other.path = policies.path.with_name("policy.yaml.tmp")
        os.replace(other.write(OPEN), policies.path)
        assert until(lambda: not guard.check("swordfish").blocked)
        assert [body["result"] for body in changes(guard)] == ["loaded", "loaded"]


def test_a_file_that_the_policy_names_is_watched(policies: Policies) -> None:
    """A schema and a rule file are part of the policy; one that is broken is tried again when it was mended."""
    folder = policies.path.parent
    schema, rules = folder / "answer.json", folder / "rules.yaml"
    schema.write_text('{"type": "object"}')
    rules.write_text(RULES.format("swordfish"))
    source = (
        "gates:\n  shape: {type: json_schema, schema: answer.json}\n"
        "  in: {type: injection, signatures: {add: [rules.yaml]}}\n"
        "stages: {input: [in], output: [shape]}\n"
    )
    with _watched(policies, source) as guard:
        assert not guard.check("{}", Stage.OUTPUT).blocked
        schema.write_text('{"type": ')
        assert until(lambda: len(changes(guard)) == 1)
        assert not guard.check("{}", Stage.OUTPUT).blocked
        schema.write_text('{"type": "array"}')
        assert until(lambda: guard.check("{}", Stage.OUTPUT).blocked)
        assert guard.check("swordfish").blocked
        rules.write_text(RULES.format("goldfish"))
        assert until(lambda: not guard.check("swordfish").blocked)
        assert guard.check("goldfish").blocked
        assert [body["result"] for body in changes(guard)] == ["refused", "loaded", "loaded"]


def test_a_half_written_and_a_deleted_file_change_nothing(policies: Policies, caplog: pytest.LogCaptureFixture) -> None:
    """The old policy stays, one warning and one record say so for each, and the next good file is loaded."""
    with _watched(policies, SHUT) as guard:
        policies.path.write_text("version: 1\nstore: sqlite:///guard.db\ngates: {secret-word: {ty")
        assert until(lambda: len(changes(guard)) == 1)
        policies.path.unlink()
        assert until(lambda: len(changes(guard)) == 2)
        assert not until(lambda: len(changes(guard)) > 2, seconds=0.5)
        assert guard.check("swordfish").blocked
        warnings = [record.getMessage() for record in caplog.records if record.name == "guardrails_mw"]
        assert len(warnings) == 2
        assert f"policy.invalid at {policies.path}:3" in warnings[0]
        assert "secret-word" not in "".join(warnings) + json.dumps(changes(guard))
        policies.write(OPEN)
        assert until(lambda: not guard.check("swordfish").blocked)


class Looks:
    """In place of the pause between two looks of a watch: what happens to the file meanwhile."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        self.meanwhile = list(meanwhile)

    def wait(self, seconds: float) -> bool:
        """Do the next thing; True when there is none."""
        if not self.meanwhile:
            return True
        self.meanwhile.pop(0)()
        return False


def test_a_file_is_left_alone_while_it_is_written(policies: Policies) -> None:
    """Only what two looks found alike is loaded: pieces in between, or that it was gone, are not."""
    text = policies.write(SHUT).read_text()
    seen: list[int] = []
    with Guard.from_yaml(policies.write(OPEN)) as guard:
        pieces = [partial(policies.path.write_text, text[:end]) for end in (5, 40, 90)]
        looks = Looks(*pieces, policies.path.unlink, partial(policies.path.write_text, text))
        looks.meanwhile += [lambda: seen.append(len(changes(guard)))] * 3
        _watch(weakref.ref(guard._reloading), looks, 1.0)
        assert seen == [0, 1, 1]
        assert [body["result"] for body in changes(guard)] == ["loaded"]
        assert guard.check("swordfish").blocked


def test_a_file_that_is_only_touched_is_not_reloaded(policies: Policies) -> None:
    """What counts is what is in it."""
    with _watched(policies, OPEN) as guard:
        os.utime(policies.path, (1, 1))
        policies.write(OPEN)
        assert not until(lambda: changes(guard), seconds=0.5)


def test_a_failed_reload_by_hand_is_not_repeated_by_the_watch(policies: Policies) -> None:
    """Both try a version of the file once between them, and another file that failed is not watched."""
    with _watched(policies, OPEN) as guard:
        stray = policies.path.with_name("other.yaml")
        with pytest.raises(PolicyError):
            guard.reload(stray)
        policies.write(SHUT)
        assert until(lambda: guard.check("swordfish").blocked)


def test_a_forked_process_watches_too(policies: Policies) -> None:
    """A guard that was made before a server forked its workers is reloaded in each of them."""

    def child() -> None:
        (policies.path.parent / "begun").touch()
        os._exit(0 if until(lambda: guard.check("swordfish").blocked) else 1)

    with _watched(policies, OPEN) as guard:
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        assert until((policies.path.parent / "begun").exists)
        policies.write(SHUT)
        process.join(30)
        assert process.exitcode == 0
        assert until(lambda: guard.check("swordfish").blocked)


async def _left_behind(guard: Guard, policies: Policies) -> set[str]:
    """What a task says that was begun inside a wrapped chain and outlives it."""
    tasks: list[asyncio.Task[Decision]] = []
    over = asyncio.Event()

    async def later() -> set[str]:
        await over.wait()
        decided: list[Decision] = []
        guard.engine.observers.append(decided.append)
        await guard.model(ScriptedModel(script=in_turn("Fine."))).ainvoke("x")
        return {name for decision in decided for name in said(decision)}

    async def chain(text: str) -> str:
        tasks.append(asyncio.create_task(later()))
        return text

    await guard.runnable(RunnableLambda(chain)).ainvoke("x")
    guard.reload(policies.write(WHOLE.format("new")))
    over.set()
    return await tasks[0]


def test_what_outlives_a_chain_is_under_the_new_policy(policies: Policies) -> None:
    """A chain holds a policy to its end and no longer: a task that it leaves behind is decided by the new one."""
    with Guard.from_yaml(policies.write(WHOLE.format("old"))) as guard:
        assert asyncio.run(_left_behind(guard, policies)) == {"new"}


def test_watching_ends_with_the_guard(policies: Policies) -> None:
    """`close` ends the thread; so does letting go of a guard that was never closed."""

    def watching() -> int:
        gc.collect()
        return sum(each.name == "guardrails-mw-watch" for each in threading.enumerate())

    guard = _watched(policies, OPEN)
    assert watching() == 1
    guard.close()
    assert watching() == 0
    guard = _watched(policies, OPEN)
    assert watching() == 1
    del guard
    assert until(lambda: watching() == 0)


@pytest.mark.parametrize("seconds", [0, -1, 0.0])
def test_a_watch_without_a_pause_is_refused(seconds: float, policies: Policies) -> None:
    """Nobody polls without sleeping."""
    with pytest.raises(ValueError, match="above 0"):
        Guard.from_yaml(policies.write(OPEN), watch=seconds)
