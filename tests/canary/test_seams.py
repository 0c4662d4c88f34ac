"""No canary leaves: every seam and mode, with every field planted and every exporter, store and log on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from watched import HOSTS

from guardrails_mw import Policy
from guardrails_mw.document import Document
from guardrails_mw.testing import CANARY_MODES, Watch, canary_watch

HIDING = """
version: 1
deadline_ms: 5000
gates: {pii: {type: pii}, keys: {type: secrets}}
stages: {input: [pii, keys], tool_call: [pii, keys], tool_result: [pii, keys], output: [pii, keys]}
record: {redact: [pii, keys]}
"""
BLOCKING = HIDING.replace("{type: pii}", "{type: pii, action: block}").replace(
    "{type: secrets}", "{type: secrets, action: block}"
)
RAISING = BLOCKING + "on_block: raise\n"
RECORDS_ONLY = """
version: 1
deadline_ms: 5000
gates: {pii: {type: pii}, keys: {type: secrets}}
stages: {input: [pii, keys], tool_call: [pii, keys], tool_result: [pii, keys], output: [pii, keys]}
mode: shadow
record: {redact: [pii, keys]}
"""
GRAPHS = ("graph", "middleware", "nodes")
SURFACES = {
    "graph": ("checkpoints", "tracer", "returned", "model", "tools", "request", "file", "log"),
    "middleware": ("checkpoints", "tracer", "returned", "model", "tools", "request", "file", "log"),
    "nodes": ("checkpoints", "tracer", "returned", "model", "tools", "request", "file", "log"),
    "model": ("tracer", "returned", "model", "request", "file"),
    "runnable": ("tracer", "returned", "model", "request", "file"),
    "callbacks": ("tracer", "raised", "request", "file", "log"),
}
"""Where something has to be seen, or the watch was not on."""
QUICK = {("graph", mode) for mode in CANARY_MODES} | {(seam, "invoke") for seam in HOSTS} | {("nodes", "astream")}
CELLS = [
    pytest.param(seam, mode, marks=() if (seam, mode) in QUICK else pytest.mark.full)
    for seam in HOSTS
    for mode in CANARY_MODES
    if (seam, mode) != ("runnable", "events v3")  # LangChain has none of chains
]


def run(seam: str, source: str, mode: str) -> Watch:
    """Run every story in a seam and mode."""
    with canary_watch(Policy.load(Document(source)), seam=seam) as watch:
        state: Mapping[str, object] = {"note": watch.text("input.state")} if seam in GRAPHS else {}
        watch.run(HOSTS[seam](watch), mode, state=state)
    return watch


@pytest.mark.parametrize(("seam", "mode"), CELLS)
def test_what_is_edited_is_nowhere(seam: str, mode: str) -> None:
    """With edits everywhere, the run goes on, and no byte that leaves holds a canary that was promised to stay."""
    watch = run(seam, HIDING, mode)
    watch.assert_clean()
    seen = {surface.partition(" ")[0] for surface, data in watch.found if data.strip()}
    assert set(SURFACES[seam]) <= seen
    if seam != "callbacks":
        assert any(b"[EMAIL_ADDRESS]" in data for surface, data in watch.found if surface.startswith("returned"))


@pytest.mark.parametrize("source", [BLOCKING, RAISING, RECORDS_ONLY], ids=["blocking", "raising", "shadow"])
@pytest.mark.parametrize("seam", HOSTS)
def test_what_is_blocked_or_only_watched_is_in_no_record(seam: str, source: str) -> None:
    """Refusals, exceptions and shadow mode tell no more: placeholders and codes, and clean records."""
    run(seam, source, "invoke").assert_clean()


def test_the_watch_sees() -> None:
    """Without a guard in it, the same agent leaks on every surface of a run: the watch is not blind."""
    with canary_watch(Policy.load(Document(HIDING)), seam="graph") as watch:
        watch.run(HOSTS["callbacks"](watch), "stream", state={"note": watch.text("input.state")})
    leaks = watch.leaks()
    assert {leak.surface.partition(" ")[0] for leak in leaks} == {
        "returned", "raised", "checkpoints", "tracer", "model", "tools",
    }  # fmt: skip
    fields = {leak.field for leak in leaks}
    silent = {"probe", "call.name", "call.id", "call.word"}
    assert {field for field in watch.canaries.fields if field.partition(".")[0] != "config"} - silent <= fields
    with pytest.raises(AssertionError, match="email of input\\.text in checkpoints") as told:
        watch.assert_clean()
    assert not watch.canaries.find(str(told.value).encode())
