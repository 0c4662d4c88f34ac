"""The log: chains that hold, entries that come back as they were written."""

from __future__ import annotations

from dataclasses import replace

from guardrails_mw.conformance.support import Conformance, Opener, opened, race, refuses
from guardrails_mw.ledger import GENESIS, verify
from guardrails_mw.store import RunSummary, Store

__all__ = ["LogConformance"]


class LogConformance(Conformance):
    """`append`, `read`, `runs`."""

    def test_protocol(self, opener: Opener) -> None:
        """A store has every method of the protocol, and says whether it blocks."""
        with opened(opener) as store:
            assert isinstance(store, Store)
            assert store.blocking in (True, False)

    def test_append_chains(self, opener: Opener) -> None:
        """Entries of a run are numbered from 1 and linked, whatever other runs do meanwhile."""
        with opened(opener) as store:
            for index in range(5):
                store.append("a", f"k{index}", index, "kind", "{}")
                store.append("b", f"k{index}", index + 0.5, "kind", '{"x":1}')
            entries = list(store.read("a"))
            assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
            assert entries[0].prev == GENESIS
            assert [entry.prev for entry in entries[1:]] == [entry.hash for entry in entries[:-1]]
            assert verify(entries) == []
            assert verify(store.read("b")) == []

    def test_append_is_idempotent(self, opener: Opener) -> None:
        """A key that the run has returns what is there; the same key in another run is another entry."""
        with opened(opener) as store:
            first = store.append("a", "k", 1.0, "kind", "1")
            store.append("a", "k2", 2.0, "kind", "2")
            assert store.append("a", "k", 9.0, "other", "9") == first
            assert store.append("b", "k", 9.0, "other", "9").seq == 1
            assert len(list(store.read("a"))) == 2

    def test_append_returns_what_read_gives(self, opener: Opener) -> None:
        """The entry that append returns is the entry that is stored, odd texts and times included."""
        odd = [
            ("", "", 0, "", ""),
            ("é\x00%_'\x1b0", "\n\x1b", -0.0, "kind\x00", "😀\x00\x1b"),
            ("é\x00%_'\x1b0", "k", 1e300, "", "{}"),
            ("{run}:*", "-", 0.1 + 0.2, "\U0010ffff", "x" * 70_000),
        ]
        with opened(opener) as store:
            written = [store.append(*entry) for entry in odd]
            found = [entry for run in dict.fromkeys(entry[0] for entry in odd) for entry in store.read(run)]
            assert found == written
            assert [(e.run, e.key, e.at, e.kind, e.body) for e in found] == odd
            assert verify(written) == []

    def test_append_needs_a_time(self, opener: Opener) -> None:
        """NaN and infinities are no time: they would not come back as they were hashed."""
        with opened(opener) as store:
            for at in (float("nan"), float("inf")):
                with refuses("store.value"):
                    store.append("a", "k", at, "kind", "{}")
            assert list(store.read("a")) == []

    def test_read_after(self, opener: Opener) -> None:
        """Read starts behind a number, pages through long runs, and finds nothing in unknown runs."""
        total = 1003
        with opened(opener) as store:
            for index in range(total):
                store.append("a", str(index), 0.0, "kind", "{}")
            assert [entry.seq for entry in store.read("a", after=1)] == list(range(2, total + 1))
            assert [entry.seq for entry in store.read("a", after=-3)] == list(range(1, total + 1))
            assert list(store.read("a", after=total)) == []
            assert list(store.read("nobody")) == []

    def test_runs_newest_first(self, opener: Opener) -> None:
        """Runs are summed up, the one seen last first, and the limit holds."""
        entries = (("b", "1", 10.0), ("a", "1", 5.0), ("a", "2", 20.0), ("c", "1", 15.0), ("\x00", "1", 15.0))
        with opened(opener) as store:
            assert list(store.runs()) == []
            for run, key, at in entries:
                store.append(run, key, at, "kind", "{}")
            a = RunSummary("a", 5.0, 20.0, 2)
            same = [RunSummary("\x00", 15.0, 15.0, 1), RunSummary("c", 15.0, 15.0, 1)]
            assert list(store.runs()) == [a, *same, RunSummary("b", 10.0, 10.0, 1)]
            assert list(store.runs(limit=2)) == [a, same[0]]
            assert list(store.runs(limit=0)) == []

    def test_append_race(self, opener: Opener) -> None:
        """Threads that append to one run make one whole chain; a key that all bring is written once."""
        with opened(opener) as store:

            def write(index: int) -> int:
                for number in range(5):
                    store.append("a", f"{index}-{number}", 0.0, "kind", "{}")
                return store.append("a", "same", 0.0, "kind", str(index)).seq

            same = race(8, write)
            entries = list(store.read("a"))
            assert len(entries) == 8 * 5 + 1
            assert verify(entries) == []
            assert len(set(same)) == 1

    def test_tampering_is_seen(self, opener: Opener) -> None:
        """A changed, moved or missing entry is a problem at the right place."""
        with opened(opener) as store:
            for index in range(4):
                store.append("a", str(index), 0.0, "kind", "{}")
            entries = list(store.read("a"))
        changed = [*entries[:1], replace(entries[1], body="[]"), *entries[2:]]
        assert [(problem.seq, problem.code) for problem in verify(changed)] == [(2, "hash")]
        assert [problem.code for problem in verify([entries[0], *entries[2:]])] == ["seq", "prev"]
