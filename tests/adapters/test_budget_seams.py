"""Budgets in the seams: shorter answers, a person who allows more, a cheaper model, what was said so far."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, decisions, in_turn, make_guard, run, thread, wants
from hosts import asking_agent
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import PrivateAttr

from guardrails_mw.errors import GuardrailBlocked

SEEN: list[tuple[str, object]] = []


class LimitedModel(ScriptedModel):
    """A model whose answers can be limited, as a setting or as an argument; it notes what it was called with."""

    label: str = "dear"
    max_tokens: int | None = None
    _limits: list[object] = PrivateAttr(default_factory=list)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: object) -> dict[str, object]:
        return {"ls_provider": "scripted", "ls_model_name": self.label, "ls_model_type": "chat"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        SEEN.append((self.label, kwargs.get("max_tokens", self.max_tokens)))
        return super()._generate(messages, stop, run_manager, **kwargs)

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        SEEN.append((self.label, kwargs.get("max_tokens", self.max_tokens)))
        return await super()._agenerate(messages, stop, run_manager, **kwargs)

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        SEEN.append((self.label, kwargs.get("max_tokens", self.max_tokens)))
        yield from super()._stream(messages, stop, run_manager, **kwargs)

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        SEEN.append((self.label, kwargs.get("max_tokens", self.max_tokens)))
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            yield chunk


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


@tool
def look(path: str) -> str:
    """Look at something."""
    return f"{path} is there"


@pytest.mark.parametrize("mode", MODES)
def test_an_answer_is_limited_in_every_mode(mode: str, tmp_path: Path) -> None:
    """A model without a limit gets what is held for it; where less is left, it gets that."""
    with make_guard(
        tmp_path, "budgets: {run: {tokens: 200}}\nreserve: {output_tokens: 500, least_output_tokens: 8}"
    ) as g:
        run(mode, g.model(LimitedModel(script=in_turn("hi"))), ["hello"], [{}])
        [(_, limit)] = SEEN
        assert isinstance(limit, int)
        assert 150 < limit < 200
    with make_guard(tmp_path, "budgets: {run: {tokens: 20000}}\nreserve: {output_tokens: 500}") as g:
        run(mode, g.model(LimitedModel(script=in_turn("hi"))), ["hello"], [{}])
    assert SEEN[1:] == [("dear", 500)]


def test_a_limit_of_ones_own_stays_unless_it_is_too_long(tmp_path: Path) -> None:
    """Settings and arguments of the caller are kept, or shortened where they are; the caller's model is left alone."""
    with make_guard(tmp_path, "budgets: {run: {tokens: 200}}\nreserve: {least_output_tokens: 8}") as g:
        mine = LimitedModel(script=in_turn("hi"), max_tokens=90)
        g.model(mine).invoke("hello")
        g.model(mine).bind(max_tokens=70).invoke("hello")
        g.model(mine).bind(max_tokens=7000).invoke("hello")
        assert [limit for _, limit in SEEN[:2]] == [90, 70]
        assert 150 < SEEN[2][1] < 200
        assert mine.max_tokens == 90


def test_without_a_cap_on_tokens_nobody_is_limited(tmp_path: Path) -> None:
    """Counting calls does not change them."""
    with make_guard(tmp_path, "budgets: {run: {model_calls: 3}}") as g:
        g.model(LimitedModel(script=in_turn("hi"))).invoke("hello")
    assert SEEN == [("dear", None)]


def test_callbacks_refuse_what_they_cannot_shorten(tmp_path: Path) -> None:
    """Where the answer cannot be limited, a worst case that does not fit is not begun."""
    guard = make_guard(tmp_path, "budgets: {run: {tokens: 200}}\nreserve: {output_tokens: 500}")
    with guard as g, pytest.raises(GuardrailBlocked, match=r"budget\.run\.tokens"):
        LimitedModel(script=in_turn("hi")).invoke("hello", {"callbacks": g.callbacks()})
    assert SEEN == []


def test_a_person_allows_more(tmp_path: Path) -> None:
    """An agent whose calls are used up waits; each approval raises the cap by itself once, and a rejection ends it."""
    policy = "store: sqlite:///g.db\nbudgets: {run: {model_calls: 1, then: ask}}\napproval: {ask: lead, within: 1h}"
    model = LimitedModel(script=in_turn(wants("look", path="/a"), wants("look", "c2", path="/b"), "Done."))
    with make_guard(tmp_path, policy) as g:
        agent = create_agent(model, [look], middleware=[g.middleware()], checkpointer=InMemorySaver())
        for number in range(2):
            state = agent.invoke({"messages": "go"} if number == 0 else Command(resume=True), thread("1"))
            question = state["__interrupt__"][0].value
            assert question["reason"] == "budget:budget.run.model_calls"
            assert question["args"] == {"limit": "budget.run.model_calls", "cap": number + 1}
            assert model.calls == number + 1
            assert "__interrupt__" in agent.invoke(Command(resume=True), thread("1"))  # a resume is no answer
            g.approvals.approve(question["id"], by="ann")
        state = agent.invoke(Command(resume=True), thread("1"))
        assert state["messages"][-1].content == "Done."
        assert model.calls == 3
        assert g.store.used(f"run:{decisions(g)[0]['run']}:model_calls") == 3

        state = agent.invoke({"messages": "again"}, thread("2"))
        g.approvals.reject(state["__interrupt__"][0].value["id"], by="bob")
        state = agent.invoke(Command(resume=True), thread("2"))
        assert state["messages"][-1].response_metadata["guardrails"]["reason"] == "approval.rejected"
        assert model.calls == 4


def test_a_person_allows_one_more_tool_call(tmp_path: Path) -> None:
    """A tool call beyond the cap waits for a person, runs once approved, and is counted."""
    policy = "budgets: {run: {tool_calls: 1, then: ask}}\ndefault_tool: allow"
    model = ScriptedModel(script=in_turn(wants("look", path="/a"), wants("look", "c2", path="/b"), "Done."))
    with make_guard(tmp_path, policy) as g:
        agent = create_agent(model, [look], middleware=[g.middleware()], checkpointer=InMemorySaver())
        question = agent.invoke({"messages": "go"}, thread("1"))["__interrupt__"][0].value
        assert (question["action"], question["args"]) == ("look", {"path": "/b"})
        g.approvals.approve(question["id"], by="ann")
        assert agent.invoke(Command(resume=True), thread("1"))["messages"][-1].content == "Done."
        assert g.store.used(f"run:{decisions(g)[0]['run']}:tool_calls") == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_cheaper_model_takes_over(mode: str, tmp_path: Path) -> None:
    """Where the dear model no longer fits, the call is made by the cheaper one; where that does not fit, nobody's."""
    policy = """
budgets: {run: {usd: "0.001", then: cheaper}}
prices: {dear: {input: "100", output: "100"}, cheap: {input: "0.1", output: "0.1"}}
reserve: {output_tokens: 100, least_output_tokens: 90}
"""
    dear, cheap = (LimitedModel(script=in_turn("hi"), label=label, usage=False) for label in ("dear", "cheap"))
    with make_guard(tmp_path, policy) as g:
        run(mode, g.model(dear, cheaper=cheap), ["hello"], [{}])
        assert [label for label, _ in SEEN] == ["cheap"]
        answer = g.model(dear).invoke("hello")
        assert answer.response_metadata["guardrails"]["reason"] == "budget.run.usd"


def test_an_agent_goes_on_with_the_cheaper_model(tmp_path: Path) -> None:
    """The middleware hands the agent's tools to the cheaper model, in the same run."""
    policy = """
budgets: {run: {usd: "0.02", then: cheaper}}
prices:
  dear: {input: "100", output: "100"}
  cheap: {input: "0.1", output: "0.1"}
  scripted-1-dated: {input: "500", output: "500"}
reserve: {output_tokens: 100, least_output_tokens: 90}
default_tool: allow
"""
    script = in_turn(wants("look", path="/a"), wants("look", "c2", path="/b"), "Done.")
    dear, cheap = (LimitedModel(script=script, label=label) for label in ("dear", "cheap"))
    with make_guard(tmp_path, policy) as g:
        agent = create_agent(dear, [look], middleware=[g.middleware(cheaper=cheap)])
        assert agent.invoke({"messages": "go"})["messages"][-1].content == "Done."
    assert {label for label, _ in SEEN} == {"dear", "cheap"}


def test_a_refusal_may_repeat_what_was_said(tmp_path: Path) -> None:
    """``{partial}`` in a refusal stands for what the model has said in this turn."""
    policy = 'budgets: {run: {model_calls: 2}}\nrefusal: "{partial} (stopped: {reason})"\ndefault_tool: allow'
    first = AIMessage("I found a file.", tool_calls=[{"name": "look", "args": {"path": "/a"}, "id": "1"}])
    model = ScriptedModel(script=in_turn("", first, wants("look", "c2", path="/b"), "never"))
    with make_guard(tmp_path, policy) as g:
        agent = create_agent(model, [look], middleware=[g.middleware()])
        said = agent.invoke({"messages": [("user", "hi"), ("ai", "earlier"), ("user", "go")]})["messages"][-1]
    assert said.content == "I found a file. (stopped: budget.run.model_calls)"


@pytest.mark.parametrize("seam", ["middleware", "nodes", "callbacks"])
def test_the_time_of_a_tool_that_paused_is_counted_to_its_end(tmp_path: Path, seam: str) -> None:
    """A tool that asks a question of its own is one call, and what it does after the answer is time of that call."""

    @tool
    def work(path: str) -> str:
        """Work."""
        interrupt("go on?")
        time.sleep(0.3)
        return "done"

    policy = "store: 'memory:'\nbudgets: {global: {seconds: 60, tool_calls: 5}}\ntools: {work: {}}"
    with make_guard(tmp_path, policy) as guard:
        model = ScriptedModel(script=in_turn(wants("work", path="a"), "Done."))
        agent = asking_agent(guard, seam, model, [work], InMemorySaver())
        assert "__interrupt__" in agent.invoke({"messages": "go"}, thread("1"))
        before = guard.store.used("global:all:seconds")
        assert agent.invoke(Command(resume=True), thread("1"))["messages"][-1].text == "Done."
        assert guard.store.used("global:all:seconds") - before >= 300
        assert guard.store.used("global:all:tool_calls") == 1
