"""Law 3: a policy cannot be silently empty. Each error names file, line and field, and says what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import ScriptedModel, Tools, in_turn
from langchain.agents import create_agent

from guardrails_mw import Guard
from guardrails_mw.errors import PolicyError

HEAD = "version: 1\n"
BROKEN = [
    ("gate:\n  a: {type: pii}\n", ":2: gate: unknown key", "did you mean 'gates'?"),
    ("gates: {a: {type: piii}}\nstages: {input: [a]}\n", ":2: gates.a.type: unknown gate type 'piii'", "'pii'"),
    ("gates: {a: {}}\nstages: {input: [a]}\n", ":2: gates.a: a gate needs a type", "allowed:"),
    ("gates: {a: {type: pii, stile: mask}}\nstages: {input: [a]}\n", ":2: gates.a.stile: unknown key", "'style'"),
    ("gates: {a: {type: pii}}\nstages:\n  input: [b]\n", ":4", "unknown gate 'b'"),
    ("gates: {a: {type: pii}}\nstages:\n  imput: [a]\n", ":4: stages.imput", "input"),
    ("gates: {a: {type: pii}}\nstages:\n  input: []\n", ":4: stages.input", "at least 1"),
    ("gates: {a: {type: pii}}\nstages: {input: [a, a]}\n", ":3: stages.input", "named twice"),
    ("gates: {a: {type: pii}, b: {type: secrets}}\nstages: {input: [a]}\n", ":2: gates.b", "no stage uses this gate"),
    ("gates: {budget: {type: pii}}\nstages: {input: [budget]}\n", ":2: gates.budget", "this name is taken"),
    ("mode: enforce\n", "nothing is guarded", "stages, tools, budgets, loops"),
    ("mode: shaddow\ndefault_tool: block\n", ":2: mode: 'shaddow' is not allowed", "did you mean 'shadow'?"),
    ("on_error: allow\ndefault_tool: block\n", ":2: on_error", "unsafe_allow"),
    ("tools: {x: {ask: [{if: 'arg.n > 1', because: n}]}}\n", ":2: tools.x.ask.0.if", "did you mean 'args'?"),
    ("tools: {x: {ask: [{if: 'args.n >', because: n}]}}\n", ":2: tools.x.ask.0.if", "not a condition"),
    ("tools: {x: {ask: [{if: 'len(args.n) > 1', because: n}]}}\n", ":2: tools.x.ask.0.if", "cannot use Call"),
    ("tools: {x: {ask: [{because: n}]}}\n", ":2: tools.x.ask.0.if", "required"),
    ("tools: {x: {teer: read}}\n", ":2: tools.x.teer: unknown key", "did you mean 'tier'?"),
    ("tools: {x: {approval: {within: 30}}}\n", ":2: tools.x.approval.within", "30m"),
    ("budgets: {run: {usd: '0.5'}}\n", ":2: budgets.run.usd", "prices"),
    ("budgets: {run: {usd: -1}}\nprices: {m: {input: 1, output: 1}}\n", ":2: budgets.run.usd", "greater than 0"),
    ("budgets: {rum: {tokens: 3}}\n", ":2: budgets.rum", "did you mean 'run'"),
    ("loops: {repeats: 1}\n", ":2: loops.repeats", "greater than or equal to 2"),
    ("loops: {then: [stop]}\n", ":2: loops.then.0", "nudge"),
    ("record: {redact: [pii]}\ndefault_tool: block\n", ":2: record.redact.0", "unknown gate 'pii'"),
    ("default_tool: block\ndefault_tool: allow\n", ":3: default_tool", "twice"),
    ("default_tool: !!python/object:os.system x\n", ":2: default_tool", "tags are not allowed"),
    ("default_tool: ${NOT_SET_ANYWHERE}\n", ":2: default_tool", "not set"),
    ("default_tool: [block\n", "not YAML", ""),
    ("store: redis:/x\ndefault_tool: block\n", ":2: store: unknown store", "sqlite:///"),
]


@pytest.mark.parametrize(("body", "place", "hint"), BROKEN, ids=[body.splitlines()[0][:40] for body, *_ in BROKEN])
def test_broken_policy(body: str, place: str, hint: str, tmp_path: Path) -> None:
    """Every mistake is an error when the policy loads, at its line, with what is allowed."""
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + body)
    with pytest.raises(PolicyError) as caught:
        Guard.from_yaml(path, env={})
    text = str(caught.value)
    assert place in text
    assert hint in text
    assert "policy.yaml" in text


@pytest.mark.parametrize(
    "source", ["", "# nothing\n", "[]\n", "version: 2\ndefault_tool: block\n", "default_tool: block\n"]
)
def test_no_policy_at_all(source: str, tmp_path: Path) -> None:
    """An empty file, another format or no version is no policy."""
    path = tmp_path / "policy.yaml"
    path.write_text(source)
    with pytest.raises(PolicyError, match=r"policy\.yaml"):
        Guard.from_yaml(path)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """One load shows them all, in the order of the file."""
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + "mode: x\non_error: y\ndefault_tool: z\n")
    with pytest.raises(PolicyError) as caught:
        Guard.from_yaml(path)
    lines = str(caught.value).splitlines()
    assert [f"policy.yaml:{line}" in text for line, text in zip((2, 3, 4), lines, strict=True)] == [True] * 3


@pytest.mark.parametrize(
    ("tools", "hint"),
    [
        ("{wype: {}}", "did you mean 'wipe'?"),
        ("{wipe: {ask: [{if: 'args.pth == 1', because: x}]}}", "did you mean 'path'?"),
    ],
)
def test_tool_and_argument_names(tools: str, hint: str, tmp_path: Path) -> None:
    """Misspelt tools and arguments: at load where tools are given, else where they are attached."""
    path = tmp_path / "policy.yaml"
    path.write_text(f"{HEAD}tools: {tools}\n")
    with pytest.raises(PolicyError, match=hint.replace("?", r"\?")):
        Guard.from_yaml(path, tools=Tools().all())
    with Guard.from_yaml(path) as guard:
        with pytest.raises(PolicyError, match=hint.replace("?", r"\?")):
            guard.tool_node(Tools().all())
        agent = create_agent(ScriptedModel(script=in_turn("hi")), Tools().all(), middleware=[guard.middleware()])
        with pytest.raises(PolicyError, match=hint.replace("?", r"\?")):
            agent.invoke({"messages": "hello"})
