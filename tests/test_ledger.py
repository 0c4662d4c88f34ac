"""The canonical form, the chain and the ledger."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import StoreError
from guardrails_mw.ledger import GENESIS, LEDGER_VERSION, Ledger, Problem, canonical, link, verify
from guardrails_mw.store import Entry
from guardrails_mw.stores.memory import MemoryStore

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_round_trip(value: object) -> None:
    """The canonical text decodes to the value, is ASCII, and is canonical again."""
    text = canonical(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert canonical(json.loads(text)) == text


def test_canonical_does_not_depend_on_order_or_type() -> None:
    """Key order, tuples and read-only mappings make no difference."""
    assert canonical({"b": (1, 2), "a": MappingProxyType({"y": 1, "x": 2})}) == canonical(
        {"a": {"x": 2, "y": 1}, "b": [1, 2]}
    )


def test_canonical_refuses_what_is_not_json() -> None:
    """NaN, infinities, bytes, objects, cycles and mixed keys are a StoreError that holds no content."""
    cycle: list[object] = []
    cycle.append(cycle)
    for value in (float("nan"), float("-inf"), b"secret", object(), {"secret"}, cycle, {1: 0, "a": 0}):
        with pytest.raises(StoreError) as raised:
            canonical({"body": value} if not isinstance(value, dict) else value)
        assert str(raised.value) == "ledger.not_json"
        assert raised.value.__cause__ is None


fields = st.tuples(
    st.text(max_size=5), st.integers(0, 99), st.text(max_size=5), st.text(max_size=3), st.text(max_size=5)
)


@given(fields, fields)
def test_link_is_unambiguous(one: tuple[str, int, str, str, str], two: tuple[str, int, str, str, str]) -> None:
    """Different entries have different hashes, however their texts could be cut."""
    hashes = [link(GENESIS, run, seq, key, 1.0, kind, body) for run, seq, key, kind, body in (one, two)]
    assert (hashes[0] == hashes[1]) == (one == two)


def test_link_boundaries_and_values() -> None:
    """Moving a character between fields changes the hash; 1 and 1.0, 0.0 and -0.0 are the same time."""
    assert link(GENESIS, "ab", 1, "c", 0.0, "k", "") != link(GENESIS, "a", 1, "bc", 0.0, "k", "")
    assert link(GENESIS, "a", 1, "", 1.0, "", "2") != link(GENESIS, "a", 1, "2", 1.0, "", "")
    assert link(GENESIS, "a", 1, "b", 1, "k", "") == link(GENESIS, "a", 1, "b", 1.0, "k", "")
    assert link(GENESIS, "a", 1, "b", -0.0, "k", "") == link(GENESIS, "a", 1, "b", 0.0, "k", "")


def test_link_is_pinned() -> None:
    """The hash of an entry never changes between releases: old chains must verify."""
    found = link(GENESIS, "run", 1, "key", 1.5, "decision", "{}")
    assert found == "9ad7b260662df3613079a611795b257d4ce9be82565ae25f02c565a4e85e441e"


def chain(run: str, count: int) -> list[Entry]:
    store = MemoryStore()
    return [store.append(run, f"k{i}", float(i), "kind", f'{{"n":{i}}}') for i in range(count)]


@pytest.mark.parametrize("change", [{"at": 9.0}, {"kind": "x"}, {"key": "x"}, {"body": "{}"}, {"hash": "0" * 64}])
def test_verify_sees_every_changed_field(change: dict[str, object]) -> None:
    """A change of any field of an entry is a problem."""
    entries = chain("a", 4)
    entries[1] = replace(entries[1], **change)
    assert verify(entries)[0].seq == 2


def test_verify_sees_structure() -> None:
    """A missing, repeated, swapped, forged or foreign entry is a problem; whole chains are none, also mixed."""
    a, b = chain("a", 4), chain("b", 3)
    assert verify([a[0], b[0], b[1], a[1], a[2], b[2], a[3]]) == []
    assert verify([]) == []
    assert Problem("a", 3, "seq") in verify([a[0], *a[2:]])
    assert Problem("a", 2, "key") in verify([a[0], a[1], a[1]])
    assert verify([a[0], a[2], a[1], a[3]]) != []
    assert verify(a[1:]) != []
    forged = replace(a[1], body="[]")
    forged = replace(forged, hash=link(forged.prev, "a", 2, forged.key, forged.at, forged.kind, forged.body))
    assert verify([a[0], forged, *a[2:]]) == [Problem("a", 3, "prev")]


def test_verify_with_a_witnessed_head() -> None:
    """A cut-off end and a chain written anew are seen when a head was kept elsewhere, also an older head."""
    entries = chain("a", 4)
    assert verify(entries, {"a": entries[-1].hash}) == []
    assert verify(entries, {"a": entries[1].hash}) == []
    assert verify(entries[:2], {"a": entries[-1].hash}) == [Problem("a", 2, "head")]
    assert verify([], {"a": entries[-1].hash}) == [Problem("a", 0, "head")]


def test_ledger_records_and_reads() -> None:
    """Bodies come back decoded, with version, place and time; a key is recorded once."""
    times = iter([1.0, 2.0, 3.0, 4.0])
    ledger = Ledger(MemoryStore(), clock=lambda: next(times))
    first = ledger.record("r", "k1", "decision", {"reason": "override", "score": 0.5})
    assert ledger.record("r", "k1", "decision", {"reason": "other"}) == first
    ledger.record("r", "k2", "outcome", {})
    records = list(ledger.read("r"))
    assert records[0] == {
        "run": "r", "seq": 1, "key": "k1", "at": 1.0, "kind": "decision", "prev": GENESIS, "hash": first.hash,
        "body": {"reason": "override", "score": 0.5, "v": LEDGER_VERSION},
    }  # fmt: skip
    assert [record["seq"] for record in ledger.read("r", after=1)] == [2]
    assert [summary.entries for summary in ledger.runs()] == [2]
    assert ledger.verify("r") == []
    assert ledger.verify("r", head=first.hash) == []
    assert ledger.verify("r", head=GENESIS) == [Problem("r", 2, "head")]


def test_ledger_keeps_every_entry_without_a_key() -> None:
    """An empty key means "never seen again": nothing is dropped."""
    ledger = Ledger(MemoryStore())
    ledger.record("r", "", "kind", {})
    ledger.record("r", "", "kind", {})
    assert len(list(ledger.read("r"))) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"v":2}', "ledger.newer_version"),
        ("{", "ledger.not_json"),
        ("[]", "ledger.not_json"),
        ("{}", "ledger.not_json"),
        ('{"v":"1"}', "ledger.not_json"),
        ("[" * 100_000, "ledger.not_json"),
    ],
)
def test_ledger_refuses_bodies_it_cannot_read(body: str, code: str) -> None:
    """Damaged bodies and those of a later version are a StoreError, not a guess."""
    store = MemoryStore()
    store.append("r", "k", 0.0, "kind", body)
    with pytest.raises(StoreError) as raised:
        list(Ledger(store).read("r"))
    assert raised.value.code == code
