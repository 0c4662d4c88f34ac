"""Many callers at once, in threads, in processes and after a fork: caps hold exactly."""

from __future__ import annotations

import os
import random
import threading
import warnings
from multiprocessing.connection import Connection
from typing import ClassVar

from guardrails_mw.conformance.support import Conformance, Opener, go, opened, race, start
from guardrails_mw.ledger import verify
from guardrails_mw.store import AGAIN, KEPT, Claim, Refusal, Store

__all__ = ["RaceConformance"]

CALLERS = 64
PROCESSES = 4
CAP = 50


def nested(number: int, caller: int) -> list[Claim]:
    """A claim of one under three nested scopes; the outermost is the one that all callers share."""
    return [
        Claim(f"tenant:{number}:calls", 1, CAP),
        Claim(f"agent:{number}.{caller % 2}:calls", 1, CAP),
        Claim(f"run:{number}.{caller}:calls", 1, 1),
    ]


def claim_rounds(opener: Opener, process: int, rounds: int, told: Connection) -> None:
    """In a process of its own: the 16 callers of this process, each a thread, in every round."""
    callers = range(process, CALLERS, PROCESSES)
    with opened(opener) as store:
        told.send("ready")
        told.recv()
        for number in range(rounds):

            def claim(index: int, number: int = number) -> bool:
                caller = callers[index]
                told = store.reserve(f"{number}:{caller}", nested(number, caller), 0.0, 60.0)
                return not isinstance(told, Refusal)  # who comes back is told that it was in

            told.send(race(len(callers), claim).count(True))
        told.send([store.swap(f"key:{number}", None, str(process)) for number in range(rounds)])
        for number in range(20):
            store.append("run", f"{process}:{number}", 0.0, "kind", "{}")
        told.send("done")


class RaceConformance(Conformance):
    """Callers that start together. `rounds` says how often the main races are run."""

    rounds: ClassVar[int] = 100

    def test_threads_over_nested_scopes(self, opener: Opener) -> None:
        """64 threads, a cap of 50, three nested scopes: exactly 50 are admitted, in every round."""
        with opened(opener) as store:
            barrier = threading.Barrier(CALLERS)

            def caller(index: int) -> list[bool]:
                won = []
                for number in range(self.rounds):
                    barrier.wait()
                    won.append(store.reserve(f"{number}:{index}", nested(number, index), 0.0, 60.0) is None)
                return won

            admitted = race(CALLERS, caller)
            assert [sum(each) for each in zip(*admitted, strict=True)] == [CAP] * self.rounds
            self._full(store)

    def test_processes_over_nested_scopes(self, opener: Opener) -> None:
        """64 callers in 4 processes: exactly 50 admitted in every round, one winner per key, one whole chain."""
        self.needs(self.shared, "no other process sees this store")
        started = [start(claim_rounds, opener, process, self.rounds) for process in range(PROCESSES)]
        go(told for _, told in started)
        admitted = [[told.recv() for _ in range(self.rounds)] for _, told in started]
        swapped, _ = ([told.recv() for _, told in started] for _ in range(2))
        for worker, _ in started:
            worker.join()
        assert [sum(each) for each in zip(*admitted, strict=True)] == [CAP] * self.rounds
        assert [sum(each) for each in zip(*swapped, strict=True)] == [1] * self.rounds
        with opened(opener) as store:
            self._full(store)
            entries = list(store.read("run"))
            assert len(entries) == 20 * PROCESSES
            assert verify(entries) == []

    def test_a_process_is_killed_and_comes_back(self, opener: Opener) -> None:
        """64 callers in 4 processes, one killed in the middle: it asks again after a restart, and exactly 50 are in."""
        self.needs(self.shared, "no other process sees this store")
        started = [start(claim_rounds, opener, process, self.rounds) for process in range(PROCESSES)]
        go(told for _, told in started)
        killed, told = started[0]
        for _ in range(self.rounds // 2):
            told.recv()
        killed.kill()
        killed.join()
        started[0] = start(claim_rounds, opener, 0, self.rounds)
        go([started[0][1]])
        admitted = [[told.recv() for _ in range(self.rounds)] for _, told in started]
        for worker, told in started:
            while told.recv() != "done":
                pass
            worker.join()
        assert [sum(each) for each in zip(*admitted, strict=True)] == [CAP] * self.rounds
        with opened(opener) as store:
            self._full(store)

    def _full(self, store: Store) -> None:
        """Every tenant has used its cap, and the scopes below it what they let through."""
        for number in range(self.rounds):
            assert store.used(f"tenant:{number}:calls") == CAP
            assert sum(store.used(f"agent:{number}.{agent}:calls") for agent in (0, 1)) == CAP
            assert sum(store.used(f"run:{number}.{caller}:calls") for caller in range(CALLERS)) == CAP

    def test_everything_at_once(self, opener: Opener) -> None:
        """Callers that hold, settle and release the same keys over crossing scopes: none is stuck, nothing is lost."""
        scopes = [f"{name}:n" for name in "abcdef"]

        def claims(key: int) -> list[Claim]:
            return [Claim(scopes[(key + turn * (1 + key % 2)) % 6], 3, 60) for turn in range(3)]

        def act(index: int) -> list[tuple[int, int]]:
            chosen, settled = random.Random(index), list[tuple[int, int]]()  # noqa: S311 - no secret
            for _ in range(40):
                key, amount = chosen.randrange(12), chosen.randrange(3)
                what = chosen.choice(("reserve", "reserve", "settle", "release"))
                if what == "reserve":
                    store.reserve(f"k{key}", claims(key), 0.0, 60.0)  # the caps refuse some
                elif what == "release":
                    store.release(f"k{key}")
                elif store.settle(f"k{key}", {"n": amount}):
                    settled.append((key, amount))
            return settled

        with opened(opener) as store:
            settled = [each for found in race(16, act) for each in found]
            for key in range(12):
                store.settle(f"k{key}", {"n": 0})
            for scope in scopes:
                spent = sum(amount for key, amount in settled if scope in {claim.scope for claim in claims(key)})
                assert store.used(scope) == spent

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
            told = race(16, lambda _: store.reserve("a", [Claim("s", 10, 100)], 0.0, 60.0))
            assert (told.count(None), told.count(AGAIN)) == (1, 15)
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
