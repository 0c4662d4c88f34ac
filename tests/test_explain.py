"""What is explained is what happens."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from guardrails_mw.document import Document
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, ModelCall, Stage, ToolCall
from guardrails_mw.explain import Explanation, explain
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.seam import SEAMS
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore

ALL = """
version: 1
deadline_ms: 5000
store: sqlite:///x.db
record: {redact: [pii]}
gates:
  injection: {type: injection}
  pii: {type: pii}
  personal: {type: pii, action: ask}
stages:
  input: [injection, pii]
  output: [personal]
  tool_result: [injection, pii]
  tool_call: [pii]
tools:
  look: {roles: [support], block: [{if: "args.n > 5", because: too-many}]}
  pay: {tier: privileged, ask: [{if: "args.n > 0", because: pay}], approval: {ask: lead, within: 2h}}
  poll: {polls: true, on_empty: block}
tiers: {read: flag}
budgets: {run: {usd: "0.50", seconds: 1.5, warn_at: 0.8}}
prices: {"*": {input: 1, output: 2}}
loops: {repeats: 4, then: [nudge, block]}
"""
OPEN = "version: 1\ngates: {i: {type: injection}}\nstages: {input: [i]}\n"


def policy(source: str) -> Policy:
    return Policy.load(Document(source))


def told(source: str, **more: object) -> Explanation:
    return explain(policy(source), **more)


def codes(source: str, seam: str | None = None) -> set[str]:
    return {warning.code for warning in told(source, seam=seam).warnings}


def test_order_is_the_guards() -> None:
    """Gates, order, deadline and cost are those that the guard's engine really has."""
    guard = Guard(policy(ALL), store=MemoryStore())
    real = {
        stage.value: [(step.gate.name, step.gate.cost.value, step.deadline * 1000) for step in steps]
        for stage, steps in guard.engine._plan.items()
    }
    shown = {s.stage: [(g.name, g.cost, g.deadline_ms) for g in s.gates] for s in told(ALL).stages}
    assert shown == real
    assert [name for name, _, _ in shown["tool_call"]] == ["tools", "loops", "pii", "budget"]


def test_cost_follows_the_store(tmp_path) -> None:
    """Gates that count run in a thread where the store waits for the disk, and explaining makes no file."""
    source = ALL.replace("redact: [pii]", "redact: [pii], durability: power")
    shown = {gate.name: gate.cost for stage in told(source).stages for gate in stage.gates}
    guard = Guard(policy(source), store=SqliteStore(tmp_path / "x.db", "power"))
    real = {step.gate.name: step.gate.cost.value for steps in guard.engine._plan.values() for step in steps}
    guard.close()
    assert shown == real
    assert shown["budget"] == "blocking"
    assert not (policy(source).base / "x.db").exists()


def event(stage: Stage) -> Event:
    """Something that `pii` edits, `personal` asks about and tools, loops and budget let pass."""
    text = "write to bob@example.com"
    if stage is Stage.MODEL:
        return Event(stage, Content(None), call=ModelCall("m", 1, 1), key="k")
    if stage in (Stage.TOOL_CALL, Stage.TOOL_RESULT):
        call = ToolCall("poll", {"to": text})
        return Event(stage, Content({"to": text} if stage is Stage.TOOL_CALL else text), call=call, key="k")
    return Event(stage, Content(text), key="k")


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)
@pytest.mark.parametrize("stage", [Stage.INPUT, Stage.OUTPUT, Stage.TOOL_CALL, Stage.TOOL_RESULT])
def test_gaps_are_the_engines(seam, stage: Stage) -> None:
    """Where a gap is shown for what a gate then does, the engine says unenforceable, and nowhere else."""
    guard = Guard(policy(ALL), store=MemoryStore())
    decision = guard.engine.decide(event(stage), seam)
    if stage not in seam.powers:
        pytest.skip("the seam does not reach the stage")
    (reach,) = (r for r in told(ALL, seam=seam.name).reach if (r.stage, r.mode) == (stage, "invoke"))
    does = {"edit", "ask"} if stage is Stage.OUTPUT else {"edit"}
    expected = any(gap.effect in does and gap.gate in ("pii", "personal") for gap in reach.unenforceable)
    assert ("seam" in {check.gate for check in decision.checks}) == expected


@pytest.mark.parametrize("action", ["edit", "flag", "ask", "block"])
@pytest.mark.parametrize("kind", ["pii", "secrets"])
def test_gates_do_what_they_may(kind: str, action: str) -> None:
    """What a gate says it may do is what its verdicts do."""
    source = f"version: 1\ngates: {{g: {{type: {kind}, action: {action}}}}}\nstages: {{input: [g]}}"
    guard = Guard(policy(source), store=MemoryStore())
    verdict = guard.check("bob@example.com AKIAZ3MSJV4WYRKTQ2OD").verdict
    assert verdict.findings
    done = ({"edit"} if verdict.edits else set()) | ({verdict.action.word} & {"ask", "block"})
    assert guard.gates["g"].may(Stage.INPUT) == done


HOLDING = """
version: 1
{pace}
gates:
  pii: {{type: pii}}
  injection: {{type: injection}}
  mine: {{type: python, call: "guardrails_mw.verdict:Verdict.allow"{bounds}}}
stages: {{output: [pii, injection, mine]}}
"""


@pytest.mark.parametrize(
    ("pace", "bounds", "waits", "timing"),
    [
        ("", "", ["span", "all", "all"], "held"),
        ("", ", max_span: 9", ["span", "all", "span"], "held"),
        ("stream: {hold: window}", "", ["span", "stride", "all"], "held"),
        ("stream: {hold: window}", ", max_span: 9", ["span", "stride", "span"], "flows"),
    ],
)
def test_what_each_gate_makes_a_stream_wait_for(pace: str, bounds: str, waits: list[str], timing: str) -> None:
    """One gate that needs all of a text holds it, in the explanation as in the guard's engine."""
    source = HOLDING.format(pace=pace, bounds=bounds)
    explained = told(source)
    assert [gate.stream for stage in explained.stages if stage.stage == "output" for gate in stage.gates] == waits
    reach = {(each.seam, each.stage, each.mode): each.timing for each in explained.reach}
    assert reach["model", "output", "stream"] == timing
    with Guard(policy(source)) as guard:
        assert (guard.engine.flow(Stage.OUTPUT) is None) is (timing == "held")


def test_streams() -> None:
    """Streamed output flows, is decided late, or unenforceable, as the seam has it; other modes are alike."""
    timing = {(r.seam, r.stage, r.mode): r.timing for r in told(ALL).reach}
    assert timing["model", "output", "stream"] == timing["runnable", "output", "stream"] == "flows"
    assert timing["nodes", "output", "stream"] == "late"
    assert timing["callbacks", "output", "stream"] == "refused"
    assert timing["nodes", "model", "invoke"] == "never"
    reaching = [seam.name for seam in SEAMS if Stage.OUTPUT in seam.powers]
    assert {timing[name, "output", mode] for name in reaching for mode in ("invoke", "batch")} == {"before"}


def test_tools() -> None:
    """Every tool is told with its rules; a real tool that is not listed means what the policy says."""

    def look(n: int) -> None: ...
    def pay(n: int) -> None: ...
    def poll(n: int) -> None: ...
    def extra(n: int) -> None: ...

    found = {tool.name: tool for tool in told(ALL, tools=[look, pay, poll, extra]).tools}
    assert (found["look"].roles, found["look"].block) == (("support",), (("args.n > 5", "too-many"),))
    assert (found["look"].otherwise, found["look"].asks) == ("flag", ())
    assert found["pay"].asks == ("lead", 7200.0, ("block",))
    assert (found["pay"].ask, found["pay"].otherwise) == ((("args.n > 0", "pay"),), "allow")
    assert "empty result: block" in found["poll"].checks
    assert (found["extra"].listed, found["extra"].otherwise) == (False, "block")


def test_tools_are_checked() -> None:
    """A tool that does not exist is an error here as it is in the guard."""
    with pytest.raises(PolicyError, match="no such tool"):
        told(ALL, tools=[])


def test_limits() -> None:
    """Budgets and loops are told as the policy has them."""
    shown = told(ALL)
    assert shown.budgets == {"run": "run: usd 0.50, seconds 1.5, warn_at 0.8, then end"}
    assert shown.loops == (4, ("nudge", "block"))


def test_unknown_seam() -> None:
    """A misspelt seam is answered with the nearest."""
    with pytest.raises(PolicyError, match="did you mean 'callbacks'"):
        told(OPEN, seam="calbacks")


def test_input_only() -> None:
    """A policy that guards the input alone is told so, stage by stage."""
    assert codes(OPEN) >= {"stage.output", "stage.tool_call", "stage.tool_result", "budgets", "loops"}
    assert "stage.input" not in codes(OPEN)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("mode: shadow", "mode.shadow"),
        ("on_error: unsafe_allow", "on_error"),
        ("on_error: flag", "on_error"),
        ("unchecked: allow", "unchecked"),
        ("on_unenforceable: flag", "on_unenforceable"),
        ("blocked_messages: keep", "blocked_messages"),
        ("record: {on_failure: flag}", "record.on_failure"),
        ("default_tool: allow", "tools.unlisted"),
        ("tools: {wipe: {tier: privileged}}", "tools.privileged"),
    ],
)
def test_lenient_settings(more: str, code: str) -> None:
    """Every setting that lets more through is named, and only where it is set."""
    assert code in codes(OPEN + more)
    assert code not in codes(OPEN)


def test_record_and_store() -> None:
    """Contents kept as they are, and a record that ends with the process, are named."""
    assert {"record.redact", "store.memory"} <= codes(OPEN)
    kept = OPEN + "record: {content: none}\nstore: sqlite:///x.db"
    assert not {"record.redact", "store.memory"} & codes(kept)
    traced = kept + "\ntraces: {otlp: [{endpoint: 'http://localhost:1/v1/traces'}]}"
    assert "record.redact" in codes(traced)


def test_gates_at_the_model_stage() -> None:
    """Gates for texts at the model stage see no text, and the author is told."""
    assert "stage.model" in codes("version: 1\ngates: {i: {type: injection}}\nstages: {model: [i]}")


def test_seam_warnings() -> None:
    """A chosen seam says what it does not reach, cannot carry out, or decides late."""
    assert {"seam.not_reached", "seam.late"} <= codes(ALL, "nodes")
    assert "seam.unenforceable" in codes(ALL, "callbacks")
    assert not {"seam.not_reached", "seam.late", "seam.unenforceable"} & codes(OPEN, "middleware")


def test_json() -> None:
    """The explanation is JSON as it stands."""
    plain = told(ALL).plain()
    assert json.loads(json.dumps(plain))["budgets"] == plain["budgets"]


def test_no_framework() -> None:
    """Explaining imports no LangChain."""
    code = (
        "import sys\nfrom guardrails_mw.document import Document\nfrom guardrails_mw.policy import Policy\n"
        f"from guardrails_mw.explain import explain\nexplain(Policy.load(Document({OPEN!r})))\n"
        "sys.exit(any(name.startswith(('langchain', 'langgraph')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
