"""Many callers at once, in threads, in processes and after a fork: caps hold exactly."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from multiprocessing.connection import Connection
from typing import ClassVar

from guardrails_mw.conformance.support import Conformance, Opener, opened, race
from guardrails_mw.ledger import verify
from guardrails_mw.store import KEPT, Claim

__all__ = ["RaceConformance"]

_SPAWN = multiprocessing.get_context("spawn")
_CALLERS = 64
_PROCESSES = 4
_CAP = 50


def nested(number: int, caller: int) -> list[Claim]:
    """A claim of one under three nested scopes; the outermost is the one that all callers share."""
    return [
        Claim(f"tenant:{number}:calls", 1, _CAP),
        Claim(f"agent:{number}.{caller % 2}:calls", 1, _CAP),
        Claim(f"run:{number}.{caller}:calls", 1, 1),
    ]


def claim_rounds(opener: Opener, process: int, rounds: int, results: Connection) -> None:
    """In a process of its own: the callers of this process, in every round."""
    mine = range(process, _CALLERS, _PROCESSES)
    with opened(opener) as store:
        results.send("ready")
        results.recv()
        results.send(
            [
                sum(store.reserve(f"{number}:{caller}", nested(number, caller), 0.0, 60.0) is None for caller in mine)
                for number in range(rounds)
            ]
        )
        results.send([store.swap(f"key:{number}", None, str(process)) for number in range(rounds)])
        for number in range(20):
            store.append("run", f"{process}:{number}", 0.0, "kind", "{}")
        results.send("done")


class RaceConformance(Conformance):
    """Callers that start together. `rounds` says how often the main races are run."""

    rounds: ClassVar[int] = 100

    def test_threads_over_nested_scopes(self, opener: Opener) -> None:
        """64 threads, a cap of 50, three nested scopes: exactly 50 are admitted, in every round."""
        with opened(opener) as store:
            barrier = threading.Barrier(_CALLERS)

            def caller(index: int) -> list[bool]:
                won = []
                for number in range(self.rounds):
                    barrier.wait()
                    won.append(store.reserve(f"{number}:{index}", nested(number, index), 0.0, 60.0) is None)
                return won

            admitted = race(_CALLERS, caller)
            for number in range(self.rounds):
                assert sum(won[number] for won in admitted) == _CAP
                assert store.used(f"tenant:{number}:calls") == _CAP
                assert sum(store.used(f"agent:{number}.{agent}:calls") for agent in (0, 1)) == _CAP

    def test_processes_over_nested_scopes(self, opener: Opener) -> None:
        """64 callers in 4 processes: exactly 50 admitted in every round, one winner per key, one whole chain."""
        self.needs(self.shared, "no other process sees this store")
        pipes = [_SPAWN.Pipe() for _ in range(_PROCESSES)]
        workers = [
            _SPAWN.Process(target=claim_rounds, args=(opener, index, self.rounds, there), daemon=True)
            for index, (_, there) in enumerate(pipes)
        ]
        for worker in workers:
            worker.start()
        here = [ours for ours, _ in pipes]
        assert [ours.recv() for ours in here] == ["ready"] * _PROCESSES
        for ours in here:
            ours.send("go")
        admitted, swapped, _ = ([ours.recv() for ours in here] for _ in range(3))
        for worker in workers:
            worker.join()
        assert [sum(each) for each in zip(*admitted, strict=True)] == [_CAP] * self.rounds
        assert [sum(each) for each in zip(*swapped, strict=True)] == [1] * self.rounds
        with opened(opener) as store:
            assert {store.used(f"tenant:{number}:calls") for number in range(self.rounds)} == {_CAP}
            entries = list(store.read("run"))
            assert len(entries) == 20 * _PROCESSES
            assert verify(entries) == []

    def test_uneven_scopes(self, opener: Opener) -> None:
        """Threads over shared and own scopes: as many as the shared one admits, no scope over its cap."""
        claims = [
            [Claim("tenant", 3, 100), Claim(f"agent:{i % 2}", 3, 60), Claim(f"run:{i}", 3, 10)] for i in range(48)
        ]
        with opened(opener) as store:
            refused = race(48, lambda i: store.reserve(f"k{i}", claims[i] if i % 3 else claims[i][::-1], 0.0, 60.0))
            assert sum(result is None for result in refused) == 33
            assert store.used("tenant") == 99
            assert all(store.used(f"agent:{i}") <= 60 for i in range(2))
            assert store.used("agent:0") + store.used("agent:1") == 99

    def test_one_key(self, opener: Opener) -> None:
        """A key that many reserve at once is held once; a hold that many settle or release at once ends once."""
        with opened(opener) as store:
            assert race(16, lambda _: store.reserve("a", [Claim("s", 10, 100)], 0.0, 60.0)) == [None] * 16
            assert store.used("s") == 10
            assert race(16, lambda i: store.settle("a", {"s": i + 1})).count(True) == 1
            assert 1 <= store.used("s") <= 16
            store.reserve("b", [Claim("t", 10, 100)], 0.0, 60.0)
            assert race(16, lambda i: store.release("b") if i % 2 else store.settle("b", {"t": 3})).count(True) == 1
            assert store.used("t") in (0, 3)

    def test_forgetting_and_settling_at_once(self, opener: Opener) -> None:
        """A hold that is settled late while others forget it, from different scopes, is charged once."""
        with opened(opener) as store:
            for number in range(10):
                scopes = [f"{name}{number}:n" for name in "abc"]
                store.reserve(f"old{number}", [Claim(scope, 10, 100) for scope in scopes], 0.0, 1.0)

                def act(index: int, number: int = number, scopes: list[str] = scopes) -> bool:
                    if index % 4 == 0:
                        return store.settle(f"old{number}", {"n": 4})
                    mine = [Claim(scopes[(index + turn) % 3], 1, 100) for turn in range(2)]
                    store.reserve(f"new{number}:{index}", mine, KEPT + 1.0, 60.0)
                    return False

                settled = race(12, act).count(True)
                assert settled <= 1
                for place, scope in enumerate(scopes):
                    added = sum(place in (i % 3, (i + 1) % 3) for i in range(12) if i % 4)
                    assert store.used(scope) == (4 if settled else 10) + added

    def test_fork(self, opener: Opener) -> None:
        """A child that is forked in the middle of everything uses the store, and leaves its parent's alone."""
        self.needs(self.shared and hasattr(os, "fork"), "needs fork and a store that others see")
        with opened(opener) as store:
            store.append("run", "parent", 0.0, "kind", "{}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # there may be other threads: that is the point
                child = os.fork()
            if child == 0:
                try:
                    store.append("run", "child", 0.0, "kind", "{}")
                    assert store.reserve("c", [Claim("s", 1, 2)], 0.0, 60.0) is None
                    store.close()
                    os._exit(0)
                except BaseException:  # noqa: BLE001 - told by the exit code
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            store.append("run", "parent again", 0.0, "kind", "{}")
            assert [entry.key for entry in store.read("run")] == ["parent", "child", "parent again"]
            assert verify(store.read("run")) == []
            assert store.used("s") == 1
