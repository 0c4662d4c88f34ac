"""A guard that was made before a server forked its workers works in each of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from chat import make_guard

from guardrails_mw import Content, Event, Guard, Stage
from guardrails_mw.event import ModelCall, Where

POLICY = """
deadline_ms: 5000
gates:
  waits: {type: python, call: "chat:codeword", cost: blocking}
  awaited: {type: python, call: "chat:later"}
  apart: {type: python, call: "chat:codeword", cost: isolated}
stages: {input: [waits], output: [awaited], tool_result: [apart]}
budgets: {run: {model_calls: 3}}
"""


def decided(guard: Guard) -> list[list[str]]:
    """Action, reason and id of a decision of every kind of gate, and of a model call that has no key."""
    events = [Event(stage, Content("hello")) for stage in (Stage.INPUT, Stage.OUTPUT, Stage.TOOL_RESULT)]
    call = Event(Stage.MODEL, Content(None), where=Where(run="r"), call=ModelCall("m"))
    made = [guard.decide(event) for event in (*events, call)]
    return [[each.action.word, each.verdict.reason, each.id] for each in made]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_decide(tmp_path: Path) -> None:
    """Workers, loops and processes begin anew in a child; ids and keys are nobody else's; the parent goes on."""
    with make_guard(tmp_path, POLICY) as guard:
        rows = decided(guard)
        children = []
        for number in range(2):
            child = os.fork()
            if not child:
                try:
                    (tmp_path / f"{number}.json").write_text(json.dumps(decided(guard)))
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        rows += [row for number in range(2) for row in json.loads((tmp_path / f"{number}.json").read_text())]
        assert [row[:2] for row in rows] == [["allow", ""]] * len(rows)
        assert len({row[2] for row in rows}) == len(rows) == 12
        last = decided(guard)
        assert [row[:2] for row in last[:3]] == [["allow", ""]] * 3
        assert last[3][:2] == ["block", "budget.run.model_calls"]
