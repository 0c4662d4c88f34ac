"""Law 7: money is reserved before it is spent."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, decisions, in_turn, make_guard, thread, wants
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

from guardrails_mw import Content, Event, Outcome, Stage
from guardrails_mw.event import ToolCall, Where
from guardrails_mw.store import Claim

BUDGET = "budgets: {run: {model_calls: 3, tool_calls: 2}}\ndefault_tool: allow"


def test_parallel_calls_never_exceed(tmp_path: Path) -> None:
    """Eight branches of one run that call the model at the same moment: three calls are made, not one more."""
    with make_guard(tmp_path, BUDGET) as guard:
        together = threading.Barrier(8, timeout=20)
        model = ScriptedModel(script=in_turn("hi"))
        guarded = guard.model(model)

        def branch(state: dict[str, object]) -> dict[str, object]:
            together.wait()
            return {"messages": [guarded.invoke(f"branch {state['n']}")]}

        graph = StateGraph(MessagesState)
        graph.add_node("branch", branch)
        graph.add_conditional_edges(START, lambda _: [Send("branch", {"n": n}) for n in range(8)], ["branch"])
        graph.add_edge("branch", END)
        state = graph.compile().invoke({"messages": []}, {"max_concurrency": 8})
        assert model.calls == 3
        refused = [m for m in state["messages"] if m.response_metadata.get("guardrails")]
        assert {m.response_metadata["guardrails"]["reason"] for m in refused} == {"budget.run.model_calls"}
        assert len(refused) == 5


def test_parallel_tool_calls_never_exceed(tmp_path: Path) -> None:
    """Four tool calls in one message under a limit of two: two run."""
    tools = Tools()
    calls = [{"name": "look", "args": {"q": str(n)}, "id": f"c{n}"} for n in range(4)]
    with make_guard(tmp_path, BUDGET) as guard:
        model = ScriptedModel(script=in_turn(AIMessage("", tool_calls=calls), "Done."))
        create_agent(model, tools.all(), middleware=[guard.middleware()]).invoke({"messages": "go"})
        assert len(tools.done) == 2


def test_a_worst_case_that_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    """Tokens are held before the call: 1,000 assumed output tokens do not fit into 500."""
    model = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, "budgets: {run: {tokens: 500}}\nreserve: {output_tokens: 1000}") as guard:
        answer = guard.model(model).invoke("hello")
        assert answer.response_metadata["guardrails"]["reason"] == "budget.run.tokens"
        assert model.calls == 0


def test_what_was_used_is_charged_and_the_rest_freed(tmp_path: Path) -> None:
    """Each call holds 1,000 tokens and uses 15: many fit one after the other, and 15 each are charged."""
    model = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, "budgets: {run: {tokens: 1200}}\nreserve: {output_tokens: 1000}") as guard:
        guarded = guard.model(model)
        chain = RunnableLambda(lambda text: [guarded.invoke(text) for _ in range(10)])
        answers = chain.invoke("hello")
        assert [m.content for m in answers] == ["hi"] * 10
        run = decisions(guard)[0]["run"]
        assert guard.store.used(f"run:{run}:tokens") == 150


def test_an_unknown_price_is_a_verdict(tmp_path: Path) -> None:
    """A model without a price is not called under a limit in money."""
    model = ScriptedModel(script=in_turn("hi"))
    source = "budgets: {run: {usd: 1}}\nprices: {another-model: {input: 1, output: 2}}"
    with make_guard(tmp_path, source) as guard:
        assert guard.model(model).invoke("hello").response_metadata["guardrails"]["reason"] == "budget.unknown_price"
        assert model.calls == 0


def test_a_failed_call_is_charged(tmp_path: Path) -> None:
    """A call that raised may have cost money: three failures use up three calls."""
    model = ScriptedModel(script=in_turn(ConnectionError("down")))
    with make_guard(tmp_path, BUDGET) as guard:
        guarded = guard.model(model)

        def stubborn(text: str) -> object:
            for _ in range(5):
                try:
                    return guarded.invoke(text)
                except ConnectionError:
                    pass
            raise AssertionError("never refused")

        answer = RunnableLambda(stubborn).invoke("hello")
        assert answer.response_metadata["guardrails"]["reason"] == "budget.run.model_calls"
        assert model.calls == 3


def test_a_tool_that_outlasts_its_hold_is_charged_its_time(tmp_path: Path) -> None:
    """A slow tool whose hold is overdue before it ends, while others reserve, is charged what it took."""

    @tool
    def slow() -> str:
        """Take longer than any hold."""
        time.sleep(0.05)
        guard.store.reserve("meanwhile", [Claim("everybody:all:seconds", 1, 60_000)], time.time(), 60.0)
        return "done"

    call = {"name": "slow", "args": {}, "id": "c1"}
    policy = "budgets: {everybody: {of: global, seconds: 60}}\nreserve: {lasts: 1ms}\ndefault_tool: allow"
    with make_guard(tmp_path, policy) as guard:
        model = ScriptedModel(script=in_turn(AIMessage("", tool_calls=[call]), "Done."))
        create_agent(model, [slow], middleware=[guard.middleware()]).invoke({"messages": "go"})
        assert guard.store.used("everybody:all:seconds") >= 50


@pytest.mark.parametrize("then", ["end", "ask"])
def test_a_call_that_is_refused_gives_back_nothing_of_one_that_ran(tmp_path: Path, then: str) -> None:
    """A process dies in the middle of a call. Who takes it up again too late is refused, and the call stays charged."""
    policy = f"budgets: {{global: {{tool_calls: 3, wall: 200ms, then: {then}}}}}\ndefault_tool: allow"
    call = ToolCall("pay", {"much": 1})
    event = Event(Stage.TOOL_CALL, Content(call.args), call=call, key="call-1", where=Where(run="r"))
    with make_guard(tmp_path, policy) as guard:
        begun = guard.decide(event)
        assert not begun.blocked
        time.sleep(0.3)
        late = guard.decide(event)
        guard.settle(late, Outcome("released"))
        assert late.verdict.reason == "budget.global.wall"
        assert guard.store.used("global:all:tool_calls") == 1
        guard.settle(begun, Outcome("done"))
        assert guard.store.used("global:all:tool_calls") == 1


def test_who_gives_a_call_up_gives_back_nothing_of_one_that_ran(tmp_path: Path) -> None:
    """Who decides a call once more and gives it up leaves charged what goes on, or went, under the same key."""
    call = ToolCall("pay", {"much": 1})
    event = Event(Stage.TOOL_CALL, Content(call.args), call=call, key="call-1", where=Where(run="r"))
    with make_guard(tmp_path, "budgets: {everybody: {of: global, tool_calls: 3}}\ndefault_tool: allow") as guard:
        first, second = guard.decide(event), guard.decide(event)
        assert not second.blocked
        guard.settle(second, Outcome("released"))
        assert guard.store.used("everybody:all:tool_calls") == 1
        guard.settle(first, Outcome("done"))
        third = guard.decide(event)
        guard.settle(third, Outcome("released"))
        assert guard.store.used("everybody:all:tool_calls") == 1


def test_sub_agents_belong_to_the_run(tmp_path: Path) -> None:
    """An agent called inside a tool spends from the budget of the run that called it, in every way of guarding."""
    inner_model = ScriptedModel(script=in_turn("inner"))
    with make_guard(tmp_path, "budgets: {run: {model_calls: 2}}") as guard:
        inner = create_agent(inner_model, [], middleware=[guard.middleware()])

        @tool
        def delegate(q: str) -> str:
            """Ask another agent."""
            return inner.invoke({"messages": q})["messages"][-1].content

        outer_model = ScriptedModel(script=in_turn(wants("delegate", q="x"), "Done."))
        outer = create_agent(outer_model, [delegate], middleware=[guard.middleware()], checkpointer=InMemorySaver())
        state = outer.invoke({"messages": "go"}, thread())
        assert (outer_model.calls, inner_model.calls) == (1, 1)
        assert state["messages"][-1].response_metadata["guardrails"]["reason"] == "budget.run.model_calls"
        assert len({row["run"] for row in decisions(guard)}) == 1


def test_sub_agents_are_counted_by_callbacks(tmp_path: Path) -> None:
    """Callbacks on the outer agent count the inner agent's calls."""
    inner_model = ScriptedModel(script=in_turn("inner"))
    with make_guard(tmp_path, "budgets: {run: {model_calls: 2}}") as guard:
        inner = create_agent(inner_model, [])

        @tool
        def delegate(q: str) -> str:
            """Ask another agent."""
            return inner.invoke({"messages": q})["messages"][-1].content

        outer_model = ScriptedModel(script=in_turn(wants("delegate", q="x"), "Done."))
        outer = create_agent(outer_model, [delegate])
        with pytest.raises(RuntimeError, match=r"budget\.run\.model_calls"):
            outer.invoke({"messages": "go"}, {"callbacks": guard.callbacks()})
        assert (outer_model.calls, inner_model.calls) == (1, 1)


def test_two_seams_count_once(tmp_path: Path) -> None:
    """Middleware and callbacks of one guard on one agent: each call is decided and charged once."""
    tools = Tools()
    model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
    with make_guard(tmp_path, BUDGET) as guard:
        agent = create_agent(model, tools.all(), middleware=[guard.middleware()], checkpointer=InMemorySaver())
        agent.invoke({"messages": "go"}, {**thread(), "callbacks": guard.callbacks()})
        stages = [row["stage"] for row in decisions(guard)]
        assert (stages.count("model"), stages.count("tool_call"), stages.count("tool_result")) == (2, 1, 1)


def test_guarding_twice_is_noticed(tmp_path: Path) -> None:
    """A model guarded twice, also below bound tools or by the middleware, is asked and charged once."""
    model = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, BUDGET) as guard:
        once = guard.model(model)
        assert guard.model(once) is once
        bound = once.bind_tools(Tools().all())
        guard.model(bound).invoke("hello")
        create_agent(guard.model(model), [], middleware=[guard.middleware()]).invoke({"messages": "hello"})
        assert [row["stage"] for row in decisions(guard)].count("model") == 2
        assert model.calls == 2


def test_threads_of_different_runs_do_not_share(tmp_path: Path) -> None:
    """Each top-level run has its own budget, also when they run at the same time."""
    model = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, "budgets: {run: {model_calls: 1}}") as guard:
        guarded = guard.model(model)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(guarded.invoke, ["a", "b", "c", "d"]))
        assert [m.content for m in answers] == ["hi"] * 4
