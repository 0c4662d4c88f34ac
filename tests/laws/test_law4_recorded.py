"""Law 4: the decision that permits an effect is on record before the effect."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import Failing, ScriptedModel, Tools, decisions, in_turn, make_guard, thread, tool_messages, wants
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from guardrails_mw import Guard

POLICY = (
    "tools: {look: {}, wipe: {ask: [{if: 'true', because: always}]}}\nbudgets: {run: {model_calls: 9, tool_calls: 9}}"
)
POLICY = POLICY.replace("'true'", "'tool == ''wipe'''")


def _agent(guard: Guard, tools: list[object], *replies: object) -> tuple[object, ScriptedModel]:
    model = ScriptedModel(script=in_turn(*replies))
    return create_agent(model, tools, middleware=[guard.middleware()], checkpointer=InMemorySaver()), model


def test_the_tool_finds_its_own_permit_on_record(tmp_path: Path) -> None:
    """While the tool runs, the decision that let it run can be read from the ledger."""
    with make_guard(tmp_path, POLICY) as guard:
        found: list[dict[str, object]] = []

        @tool
        def look(q: str) -> str:
            """Look into the ledger."""
            found.extend(row for row in decisions(guard) if row["stage"] == "tool_call")
            return "ok"

        _agent(guard, [look, *Tools().all()[1:]], wants("look", q="x"), "Done.")[0].invoke({"messages": "go"}, thread())
        assert [(row["tool"], row["call_id"], row["action"]) for row in found] == [("look", "c1", "allow")]


def test_the_model_finds_its_own_permit_on_record(tmp_path: Path) -> None:
    """While the model runs, the decision that let it be called can be read from the ledger."""
    with make_guard(tmp_path, POLICY) as guard:
        found: list[str] = []

        def script(messages: object) -> str:
            found.extend(row["stage"] for row in decisions(guard))
            return "hi"

        guard.model(ScriptedModel(script=script)).invoke("hello")
        assert found[-1:] == ["model"]


def test_what_cannot_be_recorded_does_not_happen(tmp_path: Path) -> None:
    """A store that cannot write blocks the tool and the model; holds are given back."""
    tools = Tools()
    with make_guard(tmp_path, POLICY, store=Failing(tmp_path / "own.db")) as guard:
        guard.store.broken = True
        agent, model = _agent(guard, tools.all(), wants("look", q="x"), "Done.")
        state = agent.invoke({"messages": "go"}, thread())
        assert state["messages"][-1].response_metadata["guardrails"]["reason"] == "store.disk_full"
        assert model.calls == 0

        def breaks(messages: object) -> object:
            guard.store.broken = True
            return in_turn(wants("look", q="x"), "Done.")(messages)

        guard.store.broken = False
        agent = create_agent(ScriptedModel(script=breaks), tools.all(), middleware=[guard.middleware()])
        agent.invoke({"messages": "go"})
        assert tools.done == []


def test_on_failure_flag_must_be_asked_for(tmp_path: Path) -> None:
    """`record.on_failure: flag` lets it happen although it is not on record."""
    tools = Tools()
    source = POLICY + "\nrecord: {on_failure: flag}"
    with make_guard(tmp_path, source, store=Failing(tmp_path / "own.db")) as guard:
        guard.store.broken = True
        agent, model = _agent(guard, tools.all(), wants("look", q="x"), "Done.")
        assert agent.invoke({"messages": "go"}, thread())["messages"][-1].content == "Done."
        assert model.calls == 2


@pytest.mark.parametrize("moment", ["asked", "claimed"])
def test_an_approval_that_cannot_be_recorded_permits_nothing(moment: str, tmp_path: Path) -> None:
    """Neither a question nor the claim of its answer takes effect without a record of it."""
    tools = Tools()
    with make_guard(tmp_path, POLICY, store=Failing(tmp_path / "own.db")) as guard:
        agent, _ = _agent(guard, tools.all(), wants("wipe", path="/"), "Done.")
        if moment == "claimed":
            agent.invoke({"messages": "go"}, thread())
            guard.approvals.approve(guard.approvals.list()[0].id, by="ann")
            guard.store.broken = True
            state = agent.invoke(Command(resume=1), thread())
        else:

            def breaks(messages: object) -> object:
                guard.store.broken = True
                return in_turn(wants("wipe", path="/"), "Done.")(messages)

            agent = create_agent(
                ScriptedModel(script=breaks), tools.all(), middleware=[guard.middleware()], checkpointer=InMemorySaver()
            )
            state = agent.invoke({"messages": "go"}, thread())
        assert tools.done == []
        assert "wiped" not in repr(tool_messages(state))
