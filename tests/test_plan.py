"""The plan: one order for the guard and for whoever explains it."""

from __future__ import annotations

import os

import pytest

from guardrails_mw.document import Document
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import GateTypes
from guardrails_mw.guard import Guard
from guardrails_mw.plan import build_gates, plan, unlisted
from guardrails_mw.policy import Policy
from guardrails_mw.stores.memory import MemoryStore

EVERYTHING = """
version: 1
deadline_ms: 250
on_error: flag
gates:
  injection: {type: injection, deadline_ms: 40}
  secrets: {type: secrets, on_error: block}
stages:
  tool_call: [secrets, injection]
  model: [secrets]
tools: {look: {}}
loops: {}
budgets: {run: {model_calls: 3}}
"""


def policy(source: str) -> Policy:
    return Policy.load(Document(source))


def test_order() -> None:
    """Tools and loops come before the named gates, the budget after them, each only at its stages."""
    loaded, store = policy(EVERYTHING), MemoryStore()
    planned = plan(loaded, build_gates(loaded, GateTypes.installed(), b"k"), store, b"k")
    assert {stage: [each.gate.name for each in gates] for stage, gates in planned.items()} == {
        Stage.INPUT: [],
        Stage.MODEL: ["secrets", "budget"],
        Stage.OUTPUT: [],
        Stage.TOOL_CALL: ["tools", "loops", "secrets", "injection", "budget"],
        Stage.TOOL_RESULT: ["tools", "loops"],
    }


def test_terms() -> None:
    """A gate's own deadline and on_error win over the policy's."""
    loaded = policy(EVERYTHING)
    planned = plan(loaded, build_gates(loaded, GateTypes.installed(), b"k"), MemoryStore(), b"k")
    terms = {each.gate.name: (each.deadline, each.on_error) for each in planned[Stage.TOOL_CALL]}
    assert terms["injection"] == (0.04, "flag")
    assert terms["secrets"] == (0.25, "block")
    assert terms["budget"] == (0.25, "flag")


@pytest.mark.parametrize(
    ("section", "word"),
    [("tools: {look: {}}", "block"), ("tiers: {read: ask}", "allow"), ("default_tool: ask", "ask")],
)
def test_unlisted(section: str, word: str) -> None:
    """What is not listed is blocked once something is listed, unless the policy says otherwise."""
    assert unlisted(policy(f"version: 1\n{section}")).word == word


def test_broken_gate_names_its_field() -> None:
    """A gate that cannot be built says which key of the policy is wrong, once."""
    loaded = policy("version: 1\ngates: {p: {type: pii, entities: [EMIAL]}}\nstages: {input: [p]}")
    with pytest.raises(PolicyError) as caught:
        build_gates(loaded, GateTypes.installed(), b"k")
    assert caught.value.field == "gates.p.entities"


def test_one_process_for_all_stages(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """An isolated gate at two stages answers from one process, which `warm` has started and `close` ends."""
    (tmp_path / "where_am_i.py").write_text(
        "import os\nfrom guardrails_mw import Verdict\ndef tell(event):\n    return Verdict.flag(str(os.getpid()))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = "version: 1\ndeadline_ms: 20000\ngates: {w: {type: python, call: 'where_am_i:tell', cost: isolated}}\n"
    guard = Guard(policy(source + "stages: {input: [w], output: [w]}"), store=MemoryStore())
    try:
        guard.warm()
        pids = {guard.decide(Event(stage, Content("x"))).verdict.reason for stage in (Stage.INPUT, Stage.OUTPUT)}
    finally:
        guard.close()
    (pid,) = map(int, pids)
    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
