"""What every store must do. To check another store, add how it is opened to `STORES`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardrails_mw.errors import StoreError
from guardrails_mw.ledger import GENESIS, verify
from guardrails_mw.store import Claim, Refusal, Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(),
    "sqlite-process": lambda folder: SqliteStore(folder / "store.db"),
    "sqlite-power": lambda folder: SqliteStore(folder / "store.db", "power"),
}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()


def race(count: int, work: Callable[[int], object]) -> list[object]:
    """Run `work` in `count` threads that start together; what each returned."""
    barrier, results = threading.Barrier(count), [None] * count

    def one(index: int) -> None:
        barrier.wait()
        results[index] = work(index)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_protocol(store: Store) -> None:
    """A store has every method of the protocol."""
    assert isinstance(store, Store)


# the log


def test_append_chains(store: Store) -> None:
    """Entries of a run are numbered from 1 and linked, whatever other runs do meanwhile."""
    for index in range(5):
        store.append("a", f"k{index}", index, "kind", "{}")
        store.append("b", f"k{index}", index + 0.5, "kind", '{"x":1}')
    entries = list(store.read("a"))
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert entries[0].prev == GENESIS
    assert [entry.prev for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
    assert verify(entries) == []
    assert verify(store.read("b")) == []


def test_append_is_idempotent(store: Store) -> None:
    """A key that the run has returns what is there; the same key in another run is another entry."""
    first = store.append("a", "k", 1.0, "kind", "1")
    store.append("a", "k2", 2.0, "kind", "2")
    assert store.append("a", "k", 9.0, "other", "9") == first
    assert store.append("b", "k", 9.0, "other", "9").seq == 1
    assert len(list(store.read("a"))) == 2


def test_append_returns_what_read_gives(store: Store) -> None:
    """The entry that append returns is the entry that is stored, odd texts and integers as time included."""
    written = [
        store.append(run, key, at, "kind", body)
        for run, key, at, body in [("", "", 0, ""), ("é\x00%_'", "\n", -0.0, "😀"), ("é\x00%_'", "k", 1e300, "{}")]
    ]
    assert [entry for run in ("", "é\x00%_'") for entry in store.read(run)] == written
    assert verify(written) == []


def test_append_needs_a_time(store: Store) -> None:
    """NaN and infinities are no time: they would not come back as they were hashed."""
    for at in (float("nan"), float("inf")):
        with pytest.raises(StoreError, match=r"^store\.value$"):
            store.append("a", "k", at, "kind", "{}")
    assert list(store.read("a")) == []


def test_read_after(store: Store) -> None:
    """Read starts behind a number, pages through long runs, and finds nothing in unknown runs."""
    for index in range(1203):
        store.append("a", str(index), 0.0, "kind", "{}") if index < 3 or not store.blocking else None
    total = 3 if store.blocking else 1203
    assert [entry.seq for entry in store.read("a", after=1)] == list(range(2, total + 1))
    assert list(store.read("a", after=total)) == []
    assert list(store.read("nobody")) == []


def test_runs_newest_first(store: Store) -> None:
    """Runs are summed up, the one seen last first, and the limit holds."""
    for run, key, at in (("b", "1", 10.0), ("a", "1", 5.0), ("a", "2", 20.0), ("c", "1", 15.0)):
        store.append(run, key, at, "kind", "{}")
    found = [(s.run, s.first, s.last, s.entries) for s in store.runs()]
    assert found == [("a", 5.0, 20.0, 2), ("c", 15.0, 15.0, 1), ("b", 10.0, 10.0, 1)]
    assert [s.run for s in store.runs(limit=1)] == ["a"]


def test_append_race(store: Store) -> None:
    """Threads that append to one run leave one whole chain, and a key raced for is there once."""
    race(16, lambda i: [store.append("a", f"{i}:{n}", 0.0, "kind", "{}") for n in range(5)])
    same = race(16, lambda i: store.append("a", "same", float(i), "kind", str(i)))
    entries = list(store.read("a"))
    assert len(entries) == 81
    assert verify(entries) == []
    assert len(set(same)) == 1


def test_tampering_is_seen(store: Store) -> None:
    """A changed, moved or missing entry is a problem at the right place."""
    for index in range(4):
        store.append("a", str(index), 0.0, "kind", "{}")
    entries = list(store.read("a"))
    assert [(p.seq, p.code) for p in verify([*entries[:1], replace(entries[1], body="[]"), *entries[2:]])] == [
        (2, "hash")
    ]
    assert [p.code for p in verify([entries[0], *entries[2:]])] == ["seq", "prev"]


# the counter


def test_reserve_up_to_the_cap(store: Store) -> None:
    """A cap may be reached, not exceeded; the refusal says by what."""
    assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
    assert store.reserve("b", [Claim("s", 41, 100)], 0.0, 60.0) == Refusal("s", 100, 60, 41)
    assert store.reserve("c", [Claim("s", 40, 100)], 0.0, 60.0) is None
    assert store.used("s") == 100
    assert store.used("unknown") == 0


def test_reserve_all_or_nothing(store: Store) -> None:
    """When one scope cannot take it, no scope holds anything and the key is still unused."""
    store.reserve("a", [Claim("y", 10, 10)], 0.0, 60.0)
    claims = [Claim("x", 1, 10), Claim("y", 1, 10), Claim("z", 99, 10)]
    assert store.reserve("b", claims, 0.0, 60.0) == Refusal("y", 10, 10, 1)
    assert (store.used("x"), store.used("z")) == (0, 0)
    assert store.settle("b", {"x": 5}) is False
    assert store.reserve("b", [Claim("x", 1, 10)], 0.0, 60.0) is None
    assert store.used("x") == 1


def test_scope_claimed_twice(store: Store) -> None:
    """Two claims on one scope in one reservation count together."""
    assert store.reserve("a", [Claim("s", 6, 10), Claim("s", 6, 10)], 0.0, 60.0) == Refusal("s", 10, 6, 6)
    assert store.reserve("b", [Claim("s", 4, 10), Claim("s", 6, 10)], 0.0, 60.0) is None
    assert store.settle("b", {"s": 3})
    assert store.used("s") == 3


def test_reserve_is_idempotent(store: Store) -> None:
    """A key holds once: while held, after it was settled and after it expired."""
    for _ in range(2):
        assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
    assert store.used("s") == 60
    assert store.settle("a", {"s": 10}) is True
    assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
    assert store.settle("a", {"s": 50}) is False
    assert store.used("s") == 10


def test_settle_charges_what_was_used(store: Store) -> None:
    """Less than held frees the rest, more is charged too; a unit left out, or not held, is charged nothing."""
    store.reserve("a", [Claim("x", 10, 100), Claim("y", 10, 100), Claim("z", 10, 100)], 0.0, 60.0)
    assert store.settle("a", {"x": 3, "y": 200, "w": 4})
    assert [store.used(scope) for scope in "xyzw"] == [3, 200, 0, 0]
    assert store.reserve("b", [Claim("y", 0, 100)], 0.0, 60.0) == Refusal("y", 100, 200, 0)


def test_settle_charges_every_scope_of_a_unit(store: Store) -> None:
    """Amounts are per unit: what a call cost is charged in each scope that held that unit, whatever its window."""
    scopes = ["run:1:usd", "tenant:acme:2026-11:usd", "tenant:acme:2026-11:tokens"]
    store.reserve("a", [Claim(scope, 10, 100) for scope in scopes], 0.0, 60.0)
    assert store.settle("a", {"usd": 3, "tokens": 40, "2026-11:usd": 50, "run:1:usd": 60})
    assert [store.used(scope) for scope in scopes] == [3, 3, 40]


def test_a_released_key_may_be_reserved_anew(store: Store) -> None:
    """A release gives everything back and forgets the key; what was settled or has expired is not released."""
    claims = [Claim("run:usd", 60, 100), Claim("run:tokens", 5, 10)]
    assert store.reserve("a", claims, 0.0, 60.0) is None
    assert store.release("a") is True
    assert [store.used(claim.scope) for claim in claims] == [0, 0]
    assert store.release("a") is False
    assert store.reserve("a", claims, 0.0, 60.0) is None
    assert [store.used(claim.scope) for claim in claims] == [60, 5]
    assert store.settle("a", {"usd": 7}) is True
    assert store.release("a") is False
    assert store.reserve("a", claims, 0.0, 60.0) is None
    assert [store.used(claim.scope) for claim in claims] == [7, 0]  # a settled key holds nothing anew


def test_settle_unknown_key(store: Store) -> None:
    """Settling what was never held changes nothing and says so."""
    assert store.settle("never", {"s": 5}) is False
    assert store.used("s") == 0


def test_expired_holds_are_charged(store: Store) -> None:
    """A hold past its time is charged in full in all its scopes, and settling it later is refused."""
    store.reserve("old", [Claim("s", 60, 100), Claim("t", 5, 100)], 0.0, 60.0)
    store.reserve("young", [Claim("s", 10, 100)], 30.0, 60.0)
    store.reserve("other", [Claim("elsewhere", 10, 100)], 0.0, 60.0)
    assert store.reserve("new", [Claim("s", 30, 100)], 60.0, 60.0) is None
    assert store.settle("old", {"s": 1, "t": 1}) is False
    assert (store.used("s"), store.used("t")) == (100, 5)
    assert store.settle("young", {"s": 1}) is True
    assert store.settle("other", {"elsewhere": 1}) is True
    assert store.used("s") == 91


def test_negative_amounts_are_refused(store: Store) -> None:
    """Nobody earns budget by claiming or settling less than nothing."""
    with pytest.raises(StoreError, match=r"^store\.value$"):
        store.reserve("a", [Claim("s", -1, 100)], 0.0, 60.0)
    store.reserve("a", [Claim("s", 5, 100)], 0.0, 60.0)
    with pytest.raises(StoreError, match=r"^store\.value$"):
        store.settle("a", {"s": -1})
    assert store.used("s") == 5


def test_reserve_race(store: Store) -> None:
    """64 threads that want 2 of 100 at once: exactly 50 get it."""
    refused = race(64, lambda i: store.reserve(f"k{i}", [Claim("s", 2, 100)], 0.0, 60.0))
    assert sum(result is None for result in refused) == 50
    assert store.used("s") == 100


def test_nested_scopes_race(store: Store) -> None:
    """Threads over shared and own scopes: as many as the shared one admits, no scope over its cap."""
    claims = [[Claim("tenant", 3, 100), Claim(f"agent:{i % 2}", 3, 60), Claim(f"run:{i}", 3, 10)] for i in range(48)]
    refused = race(48, lambda i: store.reserve(f"k{i}", claims[i], 0.0, 60.0))
    assert sum(result is None for result in refused) == 33
    assert store.used("tenant") == 99
    assert all(store.used(f"agent:{i}") <= 60 for i in range(2))
    assert store.used("agent:0") + store.used("agent:1") == 99


def test_settle_race(store: Store) -> None:
    """A hold that many settle at once is settled once."""
    store.reserve("a", [Claim("s", 10, 100)], 0.0, 60.0)
    assert race(16, lambda i: store.settle("a", {"s": i + 1})).count(True) == 1
    assert 1 <= store.used("s") <= 16


steps = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["reserve", "settle"]), st.integers(0, 40), st.integers(0, 9)),
    max_size=30,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_stores_agree(tmp_path_factory: pytest.TempPathFactory, work: list[tuple[int, str, int, int]]) -> None:
    """SQLite answers every sequence of reservations and settlements as the memory store does, within the cap."""
    one, two = MemoryStore(), SqliteStore(tmp_path_factory.mktemp("agree") / "s.db")
    for key, what, amount, now in work:
        if what == "reserve":
            claims = [Claim("s", amount, 100), Claim(f"t{key % 2}", amount, 60)]
            answers = [store.reserve(str(key), claims, float(now), 3.0) for store in (one, two)]
        else:
            answers = [store.settle(str(key), {"s": min(amount, 5)}) for store in (one, two)]
        assert answers[0] == answers[1]
        for scope in ("s", "t0", "t1"):
            assert one.used(scope) == two.used(scope)
        assert all(store.used("t1") <= 60 for store in (one, two))
    two.close()


# the register


def test_swap(store: Store) -> None:
    """A swap happens only from what is expected; None is absent on both sides."""
    assert store.get("k") is None
    assert store.swap("k", None, None) is True
    assert store.swap("k", "x", "y") is False
    assert store.swap("k", "x", None) is False
    assert store.swap("k", None, "1") is True
    assert store.swap("k", None, "2") is False
    assert store.swap("k", None, None) is False
    assert store.swap("k", "1", "2") is True
    assert store.get("k") == "2"
    assert store.swap("k", "1", None) is False
    assert store.swap("k", "2", None) is True
    assert store.get("k") is None


def test_keys_by_prefix(store: Store) -> None:
    """A prefix is taken literally, wildcards and the ends of Unicode included; oldest first."""
    keys = ["a%b", "a_b", "axb", "a", "A", "a\U0010ffff", "a\U0010ffffz", "b", "a\ud7ff", "", "a*", "a\\b"]
    for key in keys:
        assert store.swap(key, None, "1")
    for prefix in ("", "a", "a%", "a_", "ax", "A", "a\U0010ffff", "\U0010ffff", "a\ud7ff", "a*", "a\\", "nothing"):
        assert list(store.keys(prefix)) == [key for key in keys if key.startswith(prefix)]
    store.swap("a", "1", "2")  # a change leaves the age
    store.swap("A", "1", None)
    store.swap("A", None, "1")  # a new key is the youngest
    keys.remove("A")
    assert list(store.keys("")) == [*keys, "A"]


def test_due(store: Store) -> None:
    """Keys are due from their time on, earliest first; a swap sets or clears the time."""
    store.swap("p:late", None, "1", due=30.0)
    store.swap("p:soon", None, "1", due=10.0)
    store.swap("p:never", None, "1")
    store.swap("q:soon", None, "1", due=10.0)
    assert list(store.due("p:", 9.9)) == []
    assert list(store.due("p:", 10.0)) == ["p:soon"]
    assert list(store.due("p:", 99.0)) == ["p:soon", "p:late"]
    store.swap("p:soon", "1", "2", due=40.0)
    store.swap("p:late", "1", "2")
    assert list(store.due("p:", 99.0)) == ["p:soon"]


def test_swap_race(store: Store) -> None:
    """Of many that swap from the same value, exactly one wins, from absent and from present."""
    assert race(32, lambda i: store.swap("k", None, f"a{i}")).count(True) == 1
    current = store.get("k")
    assert race(32, lambda i: store.swap("k", current, f"b{i}")).count(True) == 1
    assert race(32, lambda _: store.swap("k", store.get("k"), None)).count(True) >= 1
    assert store.get("k") is None


def test_close_twice(store: Store) -> None:
    """Closing twice is harmless."""
    store.close()
    store.close()
