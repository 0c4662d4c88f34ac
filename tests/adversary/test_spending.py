"""Ways to spend more than a budget allows: approvals that open too much, answers without a limit, odd figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard, thread, wants
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from guardrails_mw import Guard
from guardrails_mw.account import Limits
from guardrails_mw.adapters.target import Target
from guardrails_mw.adapters.usage import outcome
from guardrails_mw.budget import Budget, Refused
from guardrails_mw.event import Content, Event, ModelCall, Stage, Where
from guardrails_mw.prices import Prices
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.verdict import Usage

DONE: list[str] = []
TWO = in_turn(wants("look", path="/a"), wants("look", "c2", path="/b"), "Done.")


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@tool
def look(path: str) -> str:
    """Look at a path."""
    DONE.append(path)
    return f"seen {path}"


def turns(guard: Guard, script: Callable[..., object]) -> tuple[ScriptedModel, Callable[..., dict[str, object]]]:
    """An agent's model, and its next turn in one thread."""
    model = ScriptedModel(script=script)
    agent = create_agent(model, [look], middleware=[guard.middleware()], checkpointer=InMemorySaver())

    def turn(value: object, actor: str = "") -> dict[str, object]:
        given = value if isinstance(value, Command) else {"messages": value}
        return agent.invoke(given, thread("1", actor=actor))

    return model, turn


def approve(guard: Guard, state: dict[str, object]) -> str:
    """Approve what a state asks, and say why it was asked."""
    question = state["__interrupt__"][0].value
    guard.approvals.approve(question["id"], by="ann")
    return str(question["reason"])


def test_an_approval_for_one_budget_opens_no_other(tmp_path: Path) -> None:
    """A tool call that a person allowed beyond one cap does not run where another budget is used up too."""
    policy = "budgets: {run: {tool_calls: 1, then: ask}, everybody: {of: global, tool_calls: 1}}\ndefault_tool: allow"
    with make_guard(tmp_path, policy) as guard:
        _, turn = turns(guard, TWO)
        assert approve(guard, turn("go")) == "budget:budget.run.tool_calls"
        state = turn(Command(resume=True))
        marks = state["messages"][-1].response_metadata["guardrails"]
        assert (DONE, marks["reason"]) == (["/a"], "budget.everybody.tool_calls")
        assert guard.store.used("everybody:all:tool_calls") == 1


def test_each_budget_of_a_tool_call_asks_for_itself(tmp_path: Path) -> None:
    """Two budgets that ask are asked about one after the other; the call then runs and counts in both."""
    each = "tool_calls: 1, then: ask"
    policy = f"budgets: {{run: {{{each}}}, everybody: {{of: global, {each}}}}}\ndefault_tool: allow"
    with make_guard(tmp_path, policy) as guard:
        _, turn = turns(guard, TWO)
        approve(guard, turn("go"))
        state = turn(Command(resume=True))
        assert DONE == ["/a"]
        assert "budget:budget.everybody.tool_calls" in approve(guard, state)
        assert turn(Command(resume=True))["messages"][-1].content == "Done."
        assert DONE == ["/a", "/b"]
        assert guard.store.used("everybody:all:tool_calls") == 2


def test_an_approval_raises_a_cap_by_itself_and_no_more(tmp_path: Path) -> None:
    """A call that costs more points than twice the cap stays out, though a person approved."""
    with make_guard(tmp_path, "budgets: {run: {risk: 2, then: ask}}\ntools: {look: {risk: 5}}") as guard:
        _, turn = turns(guard, in_turn(wants("look", path="/a"), "Done."))
        approve(guard, turn("go"))
        turn(Command(resume=True))
        assert DONE == []


def test_a_question_about_a_model_call_holds_nothing_itself(tmp_path: Path) -> None:
    """After an approval only calls are counted, not the question."""
    with make_guard(tmp_path, "budgets: {run: {model_calls: 2, then: ask}}") as guard:
        model, turn = turns(guard, in_turn(wants("look", path="/a"), wants("look", "c2", path="/b"), "Done."))
        approve(guard, turn("go"))
        turn(Command(resume=True))
        assert guard.store.used(f"run:{decisions(guard)[0]['run']}:model_calls") == model.calls == 3


def test_an_approval_for_one_actor_raises_no_others_cap(tmp_path: Path) -> None:
    """In a thread that two people use, each is asked about on their own."""
    with make_guard(tmp_path, "budgets: {actor: {model_calls: 1, then: ask}}") as guard:
        model, turn = turns(guard, in_turn("hi"))
        turn("1", "ann")
        approve(guard, turn("2", "ann"))  # and before it goes on:
        turn("3", "bob")
        assert "__interrupt__" in turn("4", "bob")
        assert model.calls == 2


def test_each_run_of_a_thread_asks_anew(tmp_path: Path) -> None:
    """An approval in one run of a conversation neither allows nor spoils that of the next run."""

    def script(messages: list[BaseMessage]) -> AIMessage:
        asked = isinstance(messages[-1], HumanMessage)
        return wants("look", f"c{len(messages)}", path="/a") if asked else AIMessage("Done.")

    with make_guard(tmp_path, "budgets: {run: {model_calls: 1, then: ask}}") as guard:
        model, turn = turns(guard, script)
        for number in range(1, 3):
            approve(guard, turn("go"))
            assert turn(Command(resume=True))["messages"][-1].content == "Done."
            assert model.calls == 2 * number


@pytest.mark.parametrize("limits", ["tool_calls: 5", "tool_calls: 1, then: ask"])
def test_who_comes_second_does_not_release_what_the_first_holds(limits: str, tmp_path: Path) -> None:
    """An approved call that is under way stays counted when another process resumes the same question."""
    policy = (
        f"budgets: {{everybody: {{of: global, {limits}}}}}\ntiers: {{write: ask}}\ntools: {{look: {{tier: write}}}}"
    )
    seen: list[int] = []

    @tool("look")
    def slow(path: str) -> str:
        """Look, while somebody else resumes too."""
        DONE.append(path)
        if len(DONE) == 1:
            other.invoke(Command(resume=True), thread("1"))
            seen.append(guard.store.used("everybody:all:tool_calls"))
        return path

    with make_guard(tmp_path, policy) as guard:
        saver = InMemorySaver()
        first, other = (
            create_agent(
                ScriptedModel(script=in_turn(wants("look", path="/a"), "Done.")),
                [slow],
                middleware=[guard.middleware()],
                checkpointer=saver,
            )
            for _ in range(2)
        )
        approve(guard, first.invoke({"messages": "go"}, thread("1")))
        first.invoke(Command(resume=True), thread("1"))
        assert (DONE, seen, guard.store.used("everybody:all:tool_calls")) == (["/a"], [1], 1)


def test_time_on_the_wall_asks_each_time_about_another_cap() -> None:
    """What was raised shows in the figures, so that the next question is another one."""
    budget = Budget(MemoryStore(), [Limits("run", wall=10, then="ask")], Prices({}))

    def event(key: str) -> Event:
        return Event(Stage.MODEL, Content(None), where=Where(run="r"), call=ModelCall("m", 1, 1), key=key)

    budget.reserve(event("1"), 0.0)
    first = budget.reserve(event("2"), 11.0)
    assert isinstance(first, Refused)
    budget.grant(event("2"), first.code, "x", 11.0)
    second = budget.reserve(event("3"), 21.0)
    assert isinstance(second, Refused)
    assert (first.cap, second.cap) == (10_000, 20_000)


class Open(GenericFakeChatModel):
    """A model whose answers have a length, and of which it may give several."""

    messages: object = iter(())
    max_tokens: int | None = None
    n: int = 1


@pytest.mark.parametrize("nothing", [None, 0, -1, -(10**9), "much"])
def test_what_is_no_limit_counts_as_none(nothing: object) -> None:
    """A call whose limit is no limit is limited, whatever the model's own setting would have been."""
    target = Target(Open(max_tokens=50), kwargs={"max_tokens": nothing})
    assert target.asked([]).max_tokens == 0
    assert target.limited(99).kwargs["max_tokens"] == 99
    assert Target(Open(max_tokens=-1)).asked([]).max_tokens == 0


@pytest.mark.parametrize("kwargs", [{}, {"n": 5}])
def test_several_answers_are_held_for_and_limited_together(kwargs: dict[str, object]) -> None:
    """Of five answers each may have a fifth."""
    target = Target(Open(max_tokens=50, n=1 if kwargs else 5), kwargs=kwargs)
    assert target.asked([]).max_tokens == 250
    assert cast("Open", target.limited(100).model).max_tokens == 20


@pytest.mark.parametrize(
    "told",
    [
        {"input_tokens": -5000, "output_tokens": 6000, "total_tokens": 1000},
        {"input_tokens": 10, "output_tokens": None, "total_tokens": 10},
        {"input_tokens": "10", "output_tokens": "5", "total_tokens": "15"},
        {"input_tokens": 10**30, "output_tokens": 5, "total_tokens": 5},
        {"total_tokens": 50},
    ],
)
def test_figures_that_cannot_be_are_estimates(told: dict[str, object]) -> None:
    """A provider that reports nonsense neither ends the call nor gives money back."""
    answer = AIMessage("hello world")
    answer.usage_metadata = cast("UsageMetadata", told)
    assert outcome([answer], 7, 0.1).usage == Usage(7, 7, estimated=True)


def test_a_negative_detail_gives_no_money_back() -> None:
    """Parts of a sum are not negative."""
    told = {
        "input_tokens": 10,
        "output_tokens": 5,
        "total_tokens": 15,
        "input_token_details": {"cache_creation": -1000},
    }
    answer = AIMessage("hello world", usage_metadata=cast("UsageMetadata", told))
    assert outcome([answer], 7, 0.1).usage == Usage(10, 5)
