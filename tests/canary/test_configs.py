"""No canary leaves under the policies that are shipped, whatever they edit, block, ask and only watch."""

from __future__ import annotations

from pathlib import Path

import pytest
from watched import HOSTS

from guardrails_mw import Policy
from guardrails_mw.demo.server import JUDGE, ModelServer
from guardrails_mw.document import Document
from guardrails_mw.testing import Watch, canary_watch

CONFIGS = Path(__file__).parents[2] / "configs"
TOOLS = {"support-agent.yaml": ["search_articles"]}
RUNS = [("graph", "invoke"), ("graph", "astream"), ("callbacks", "invoke"), ("runnable", "stream")]


@pytest.mark.parametrize(("seam", "mode"), RUNS)
@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.yaml")))
def test_shipped_policies_are_clean(name: str, seam: str, mode: str) -> None:
    """A graph in two modes, a chain and callbacks alone: nothing that the file says is hidden is found anywhere."""
    with ModelServer({}) as server:
        env = {"LLAMA_GUARD_URL": server.url, "LLAMA_GUARD_MODEL": JUDGE}
        policy = Policy.read(CONFIGS / name, env=env).model_copy(update={"deadline_ms": 30_000.0})
        with canary_watch(policy, seam=seam, tools=TOOLS.get(name, ["lookup"])) as watch:
            watch.run(HOSTS[seam](watch), mode)
    assert watch.redacted >= {"email", "card", "iban", "phone"}
    watch.assert_clean()
    _was_seen(watch)


def test_tokens_of_the_vault_are_clean() -> None:
    """With `style: token` state, checkpoints, traces and the store hold tokens, and the values are encrypted."""
    text = (CONFIGS / "default.yaml").read_text().replace("style: remove", "style: token")
    with canary_watch(Policy.load(Document(text), base=CONFIGS), seam="graph") as watch:
        watch.run(HOSTS["graph"](watch))
    watch.assert_clean()
    _was_seen(watch)


def _was_seen(watch: Watch) -> None:
    seen = {surface.partition(" ")[0] for surface, data in watch.found if data}
    assert {"request", "file", "tracer"} <= seen
