"""Processes that are killed in the middle: nothing is lost, nothing is charged twice, what is open is charged."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from guardrails_mw.conformance.support import Conformance, Opener, go, opened, start
from guardrails_mw.ledger import verify
from guardrails_mw.store import KEPT, Claim, Store

__all__ = ["CrashConformance"]

_HELD, _USED = 10, 3
_CAP = 400
_SHARED = [Claim(f"{scope}:calls", 1, _CAP) for scope in ("run", "agent", "tenant")]


def spend(opener: Opener, name: str, told: Connection) -> None:
    """In a process of its own: call after call, telling every step when it is done, until somebody kills us."""
    with opened(opener) as store:
        for number in itertools.count():
            key = f"{name}:{number}"
            told.send(("asks", key))
            store.reserve(key, [Claim(f"{scope}:usd", _HELD, 10**12) for scope in ("run", "tenant")], 0.0, 60.0)
            told.send(("holds", key))
            store.append("run", key, 0.0, "kind", "{}")
            told.send(("records", key))
            store.settle(key, {"usd": _USED})
            told.send(("settles", key))


def exhaust(opener: Opener, name: str, told: Connection) -> None:
    """In a process of its own: take one after the other until there is no more."""
    with opened(opener) as store:
        told.send("ready")
        told.recv()
        for number in itertools.count():
            refusal = store.reserve(f"{name}:{number}", _SHARED, 0.0, 60.0)
            told.send(refusal is None)
            if refusal is not None:
                return


class CrashConformance(Conformance):
    """`kill -9`, and a store that is opened again."""

    def test_reopening(self, opener: Opener) -> None:
        """Log, counter and register are there when the store is opened again."""
        self.needs(self.lasting, "this store ends with its process")
        with opened(opener) as store:
            entry = store.append("run", "k", 1.5, "kind", "{}")
            store.reserve("a", [Claim("s", 7, 10)], 0.0, 60.0)
            store.swap("key", None, "value", due=3.0)
        with opened(opener) as store:
            assert list(store.read("run")) == [entry]
            assert store.settle("a", {"s": 2})
            assert store.used("s") == 2
            assert list(store.due("k", 3.0)) == ["key"]

    def test_killed_in_the_middle_of_a_call(self, opener: Opener) -> None:
        """What was told is there, once; a call that was open when its process died is charged in full later."""
        self.needs(self.shared, "no other process sees this store")
        steps: dict[str, str] = {}
        moments = ("asks", "holds", "records")
        started = [start(spend, opener, name) for name in moments]
        for (worker, told), moment in zip(started, moments, strict=True):
            step, number = "", 0
            while step != moment or number < 5:
                step, key = told.recv()
                steps[key], number = step, int(key.partition(":")[2])
            _kill(worker)
            steps |= {key: step for step, key in _rest(told)}
        time.sleep(0.3)  # a server may still be at what it was sent last
        with opened(opener) as store:
            self._charged(store, steps)
            entries = list(store.read("run"))
            assert verify(entries) == []
            recorded = {key for key, step in steps.items() if step in ("records", "settles")}
            assert recorded <= {entry.key for entry in entries} <= set(steps)

    def _charged(self, store: Store, steps: dict[str, str]) -> None:
        possible = {
            "asks": {0, _HELD},
            "holds": {_HELD},
            "records": {_HELD, _USED},
            "settles": {_USED},
        }
        totals = {0}
        for step in steps.values():
            totals = {total + more for total in totals for more in possible[step]}
        used = store.used("run:usd")
        assert used in totals
        assert store.used("tenant:usd") == used
        for number in range(3):
            store.reserve(f"later:{number}", [Claim("run:usd", 0, 10**12)], KEPT + 60.0, 60.0)
        assert not any(store.settle(key, {"usd": 0}) for key in steps)
        assert not any(store.release(key) for key in steps)
        assert store.used("run:usd") == store.used("tenant:usd") == used

    def test_killed_callers_leave_the_cap_exact(self, opener: Opener) -> None:
        """Callers that are killed while they reserve: the others fill every scope up to its cap, and not beyond."""
        self.needs(self.shared, "no other process sees this store")
        workers = [start(exhaust, opener, name) for name in "abcd"]
        go(told for _, told in workers)
        for worker, told in workers[:2]:
            told.recv()
            _kill(worker)
        for worker, told in workers[2:]:
            while told.recv():
                pass
            worker.join()
        time.sleep(0.3)  # a server may still be at what it was sent last
        with opened(opener) as store:
            for number in range(4):  # what a dying caller asked for and did not get, the others could not see
                store.reserve(f"last:{number}", _SHARED, 0.0, 60.0)
            assert [store.used(claim.scope) for claim in _SHARED] == [_CAP] * 3


def _kill(worker: BaseProcess) -> None:
    worker.kill()
    worker.join()


def _rest(told: Connection) -> Iterator[tuple[str, str]]:
    """What was told before the end; a message that was cut off by it is none."""
    while True:
        try:
            yield told.recv()
        except (EOFError, OSError):
            return
