"""Without an extra the rest works, and what is missing is named."""

from __future__ import annotations

import subprocess
import sys

import pytest

HIDE = """
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
import importlib.util
find = importlib.util.find_spec

def find_spec(name, package=None):
    try:
        return find(name, package)
    except ModuleNotFoundError:
        return None

importlib.util.find_spec = find_spec
from guardrails_mw import Guard, Policy
from guardrails_mw.document import Document
"""
POLICY = 'policy = Policy.load(Document("version: 1\\ngates: {{g: {{type: {type}}}}}\\nstages: {{output: [g]}}"))\n'


def without(*hidden: str, run: str) -> str:
    """What a process prints that cannot import these packages; the error where it ends with one."""
    code = HIDE.format(hidden=hidden) + run
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else result.stderr.strip().splitlines()[-1]


def test_pii_without_its_extra() -> None:
    """The policy's keys are checked, and building the gate names the extra."""
    said = without("presidio_analyzer", "regex", run=POLICY.format(type="pii") + "Guard(policy)")
    assert "guardrails-mw[pii]" in said
    assert "PolicyError" in said


def test_schema_of_policies_without_extras() -> None:
    """Editors get every gate's keys whatever is installed."""
    run = "from guardrails_mw.policy_schema import policy_schema; print('gate.pii' in policy_schema()['$defs'])"
    assert without("presidio_analyzer", "regex", "jsonschema", "torch", "transformers", run=run) == "True"


@pytest.mark.parametrize("seam", ["callbacks()", "model(None)", "middleware()", "tool_node([])", "runnable(None)"])
def test_seams_without_their_extra(seam: str) -> None:
    """A seam names the extra that it needs; the guard itself works."""
    run = POLICY.format(type="injection") + f"guard = Guard(policy)\nassert not guard.check('hi').blocked\nguard.{seam}"
    assert "guardrails-mw[langchain]" in without("langchain_core", "langgraph", "langchain", run=run)


@pytest.mark.parametrize(("url", "hidden"), [("redis://h/0", "redis"), ("postgresql://h/d", "psycopg")])
def test_stores_without_their_extra(url: str, hidden: str) -> None:
    """A policy whose store needs a driver that is not there is an error that names the extra and the field."""
    run = POLICY.format(type="injection").replace("version: 1", f"version: 1\\nstore: '{url}'") + "Guard(policy)"
    said = without(hidden, run=run)
    assert f"store: {url.partition(':')[0]}: needs pip install 'guardrails-mw[" in said
