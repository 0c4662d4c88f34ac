"""The watch finds what it should, or no clean result means anything: every form of a value, every way out."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import os
import sqlite3
import subprocess
import sys
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from watched import HOSTS

from guardrails_mw import Policy
from guardrails_mw.document import Document
from guardrails_mw.testing import Kind, Watch, canary_watch
from guardrails_mw.testing.canary import KINDS, Canaries

HIDING = """
version: 1
deadline_ms: 5000
gates: {pii: {type: pii}, keys: {type: secrets}}
stages: {input: [pii, keys], tool_call: [pii, keys], tool_result: [pii, keys], output: [pii, keys]}
record: {redact: [pii, keys]}
"""
WRITTEN: dict[str, Callable[[str], bytes]] = {
    "clear": str.encode,
    "upper case": lambda text: text.upper().encode(),
    "reversed": lambda text: text[::-1].encode(),
    "hex": lambda text: text.encode().hex().upper().encode(),
    "base64": lambda text: base64.b64encode(text.encode()),
    "base64 url": lambda text: base64.urlsafe_b64encode(b"\xfb\xff" + text.encode()),
    "json escaped": lambda text: "".join(f"\\u{ord(char):04X}" for char in text).encode(),
    "json": lambda text: json.dumps({"a": text}).encode(),
    "url": lambda text: quote(text, safe="").encode(),
    "every character url": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()).encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 be": lambda text: text.encode("utf-16-be"),
}


@pytest.fixture
def policy() -> Policy:
    return Policy.load(Document(HIDING))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("form", WRITTEN)
@given(before=st.binary(max_size=7), after=st.binary(max_size=7), field=st.integers(0, 60))
def test_every_form_of_every_kind_is_found(form: str, kind: Kind, before: bytes, after: bytes, field: int) -> None:
    """Whatever stands around it: in base64 at each of three offsets, in either byte order, with the field it is of."""
    canaries = Canaries()
    values = [canaries.value(f"field.{number}", kind) for number in range(61)]
    if form.startswith("base64"):
        inner = before + values[field].encode() + after
        data = base64.b64encode(inner) if form == "base64" else base64.urlsafe_b64encode(inner)
    else:
        data = before + WRITTEN[form](values[field]) + after
    assert {(found.kind, found.field) for found in canaries.find(data)} == {(kind.name, f"field.{field}")}


def test_values_are_real_and_their_own() -> None:
    """A thousand fields have a thousand values of every kind, and a gate finds each of them."""
    canaries = Canaries()
    for kind in KINDS:
        values = [canaries.value(f"field.{number}", kind) for number in range(999)]
        assert len(set(values)) == 999
        assert all(kind.stem in value for value in values)


def test_half_a_value_is_found(policy: Policy) -> None:
    """A part that still tells the kind counts, though nobody can tell its field."""
    canaries = Canaries()
    value = canaries.value("input.text", KINDS[0])
    assert [(found.field, found.form) for found in canaries.find(value[:10].encode())] == [("", "clear")]
    assert canaries.find(b"nothing") == []


def _print(watch: Watch, text: str) -> None:
    print(text)


def _descriptor(watch: Watch, text: str) -> None:
    os.write(2, text.encode())


def _process(watch: Watch, text: str) -> None:
    subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True, stdout=1)


def _log(watch: Watch, text: str) -> None:
    logging.getLogger("somebody.quiet").debug("said %s", text)


def _silenced(watch: Watch, text: str) -> None:
    logger = logging.getLogger("somebody.silenced")
    logger.propagate = False
    logger.info("said", extra={"why": text})


def _exception(watch: Watch, text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("somebody").exception("failed")


def _warning(watch: Watch, text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(text, stacklevel=1)


def _request(watch: Watch, text: str) -> None:
    body = gzip.compress(json.dumps({"said": text}).encode())
    request = urllib.request.Request(f"{watch.collector.url}/x", body, {"Content-Encoding": "gzip"})
    urllib.request.urlopen(request, timeout=10).close()


def _header(watch: Watch, text: str) -> None:
    request = urllib.request.Request(f"{watch.collector.url}/x?q={quote(text)}", headers={"X-Baggage": "nothing"})
    urllib.request.urlopen(request, timeout=10).close()


def _file(watch: Watch, text: str) -> None:
    (watch.folder / "notes.txt").write_text(text)


def _deleted(watch: Watch, text: str) -> None:
    with sqlite3.connect(watch.folder / "own.db") as connection:
        connection.execute("create table t (a)")
        connection.execute("insert into t values (?)", (text,))
    connection.close()


def _kept(watch: Watch, text: str) -> None:
    watch.keep("dead letters", {"deep": [{"er": (text,)}]})


WAYS = {
    "stdout": (_print, "stdout"),
    "stderr": (_descriptor, "stderr"),
    "another process": (_process, "stdout"),
    "log": (_log, "log somebody.quiet"),
    "log that goes nowhere": (_silenced, "log somebody.silenced"),
    "log of an exception": (_exception, "log somebody"),
    "warning": (_warning, "warning"),
    "compressed request": (_request, "request"),
    "request line": (_header, "request"),
    "file": (_file, "file notes.txt"),
    "database": (_deleted, "file own.db"),
    "kept": (_kept, "dead letters"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_way_out_is_watched(way: str, policy: Policy, capfd: pytest.CaptureFixture[str]) -> None:
    """What leaves is found, under the name of where it left, and the process goes on as before."""
    leave, surface = WAYS[way]
    level, shown = logging.getLogger().level, warnings.showwarning
    with canary_watch(policy, seam="model") as watch:
        leave(watch, watch.text("mine"))
    assert {(leak.surface, leak.field) for leak in watch.leaks()} == {(surface, "mine")}
    assert (logging.getLogger().level, warnings.showwarning) == (level, shown)
    print("still there")
    assert "still there" in capfd.readouterr().out


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_checkpointers_of_ones_own_are_searched(kind: str, policy: Policy, tmp_path: Path) -> None:
    """Blobs, pending writes and metadata of a checkpointer that the watch is told of, in memory and in a file."""
    with SqliteSaver.from_conn_string(str(tmp_path / "c.db")) as sqlite, canary_watch(policy, seam="graph") as watch:
        watch.saver = sqlite if kind == "sqlite" else InMemorySaver()
        watch.keep("checkpoints mine", watch.saver)
        watch.run(HOSTS["callbacks"](watch), stories=["calls"])
    assert "checkpoints mine" in {leak.surface for leak in watch.leaks()}


def test_nothing_watched_is_not_clean() -> None:
    """A policy that hides nothing, or a watch in which nothing ran, is a failure, not a success."""
    idle = Policy.load(Document("version: 1\ngates: {signs: {type: injection}}\nstages: {input: [signs]}"))
    with canary_watch(idle, seam="model") as watch:
        watch.run(watch.guard.model(watch.model), stories=["says"])
    with pytest.raises(AssertionError, match="nothing is watched"):
        watch.assert_clean()
    with canary_watch(Policy.load(Document(HIDING)), seam="model") as watch:
        pass
    with pytest.raises(AssertionError, match="nothing was run"):
        watch.assert_clean()


def test_promises_follow_the_policy() -> None:
    """What one stage hides is promised for that stage only; what is not redacted in records is not promised there."""
    some = HIDING.replace("tool_call: [pii, keys], ", "").replace("redact: [pii, keys]", "redact: [keys]")
    with canary_watch(Policy.load(Document(some)), seam="graph") as watch:
        pass
    assert watch.redacted == {"key"}
    assert watch.promised("checkpoints", "input.text", "email")
    assert not watch.promised("checkpoints", "call.args.text", "email")
    assert not watch.promised("file guard.db", "input.text", "email")
    assert watch.promised("request", "config.tags", "key")


def test_kinds_of_ones_own() -> None:
    """A kind that only the user's own gate knows is planted, hidden and watched like the others."""
    case = Kind("case", "CASE-ZQ77", lambda number: f"CASE-ZQ77{number:03d}")
    source = HIDING.replace("keys: {type: secrets}", "keys: {type: python, call: 'watched:cases', cost: linear}")
    with canary_watch(Policy.load(Document(source)), seam="graph", kinds=[case]) as watch:
        watch.run(HOSTS["graph"](watch), state={"note": watch.text("input.state")})
    assert watch.redacted == {"case"}
    watch.assert_clean()
