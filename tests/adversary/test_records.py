"""What a record tells whom."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, in_turn, make_guard, thread
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from surfaces import on_record

PII = "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nrecord: {redact: [pii]}"


def test_names_that_a_model_made_up_are_redacted(tmp_path: Path) -> None:
    """A mailbox that a model wrote as a tool's name or a call's id does not stand in the ledger."""
    guard = make_guard(tmp_path, f"{PII}\ndefault_tool: block\ntools: {{look: {{}}}}")
    call = {"name": "mail bob@example.com", "args": {}, "id": "amy@example.com"}
    model = ScriptedModel(script=in_turn(AIMessage("", tool_calls=[call]), "done"))
    create_agent(model, Tools().all(), middleware=[guard.middleware()]).invoke({"messages": "go"})
    kept = [entry for run in guard.ledger.runs() for entry in guard.ledger.read(run.run)]
    assert "mail [EMAIL_ADDRESS]" in str(kept)
    assert "@example.com" not in str([entry["body"] for entry in kept])


def test_what_no_gate_reads_is_kept_by_its_type_alone(tmp_path: Path) -> None:
    """Bytes and paths in an artifact or in a call's arguments do not say themselves in records or questions."""
    asking = "tools: {look: {ask: [{if: 'args.n == 1', because: one}]}}"
    with make_guard(tmp_path, f"{PII}\nunchecked: flag\nstages: {{tool_result: [pii]}}\n{asking}") as guard:

        @tool(response_format="content_and_artifact")
        def look(n: int, q: object) -> tuple[str, object]:
            """Look something up."""
            return "fine", [Path("amy@example.com"), b"amy@example.com"]

        call = {"name": "look", "args": {"n": 1, "q": [Path("amy@example.com"), b"amy@example.com"]}, "id": "c1"}
        model = ScriptedModel(script=in_turn(AIMessage("", tool_calls=[call]), "done"))
        agent = create_agent(model, [look], middleware=[guard.middleware()], checkpointer=InMemorySaver())
        asked = agent.invoke({"messages": "go"}, thread())["__interrupt__"][0].value
        assert asked["args"] == {"n": 1, "q": [f"<{type(Path()).__name__}>", "<bytes>"]}
        guard.approvals.approve(asked["id"], by="ann")
        assert agent.invoke(Command(resume=1), thread())["messages"][-1].content == "done"
        assert "amy@example.com" not in on_record(guard, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_store_file_is_its_owners(tmp_path: Path) -> None:
    """The file with records, approvals and the key of all hashes is readable by its owner alone, also beside WAL."""
    old = os.umask(0o022)
    try:
        with make_guard(tmp_path, f"{PII}\nstages: {{input: [pii]}}") as guard:
            guard.check("hello")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert modes
    assert set(modes.values()) == {0o600}
