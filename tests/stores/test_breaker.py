"""A dead server is asked once in a while, by one caller."""

from __future__ import annotations

import threading

import pytest

from guardrails_mw.errors import StoreError
from guardrails_mw.stores.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: Breaker, code: str) -> None:
    with pytest.raises(StoreError, match=f"^{code}$"), breaker.call():
        raise StoreError(code)


def refused(breaker: Breaker) -> None:
    with pytest.raises(StoreError, match=r"^store\.down$"), breaker.call():
        pytest.fail("was let through")


@pytest.mark.parametrize("code", ["store.unreachable", "store.timeout", "store.lost"])
def test_an_outage_is_remembered(code: str) -> None:
    """After a call that the server did not answer, calls are refused at once until the pause is over."""
    clock = Clock()
    breaker = Breaker(5.0, clock)
    fail(breaker, code)
    refused(breaker)
    clock.now += 4.9
    refused(breaker)
    clock.now += 0.2
    with breaker.call():
        pass
    with breaker.call():
        pass


def test_a_failed_probe_starts_the_pause_anew() -> None:
    """The probe finds the server still away: the others are refused for another pause."""
    clock = Clock()
    breaker = Breaker(5.0, clock)
    fail(breaker, "store.unreachable")
    clock.now += 5.0
    fail(breaker, "store.timeout")
    clock.now += 4.9
    refused(breaker)


@pytest.mark.parametrize("code", ["store.busy", "store.value", "store.full", "store.denied"])
def test_an_answer_is_no_outage(code: str) -> None:
    """A server that answers, be it with an error, is asked again; as the answer to a probe it ends the outage."""
    clock = Clock()
    breaker = Breaker(5.0, clock)
    fail(breaker, code)
    fail(breaker, "store.unreachable")
    clock.now += 5.0
    fail(breaker, code)
    with breaker.call():
        pass


def test_one_probe() -> None:
    """While one caller probes, all others are refused; a probe that its caller gives up frees the place."""
    clock = Clock()
    breaker = Breaker(5.0, clock)
    fail(breaker, "store.unreachable")
    clock.now += 5.0
    inside, leave = threading.Event(), threading.Event()

    def probe() -> None:
        with breaker.call():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=probe)
    thread.start()
    inside.wait()
    refused(breaker)
    leave.set()
    thread.join()
    with breaker.call():
        pass


def test_an_interrupted_probe_gives_the_place_back() -> None:
    """An interrupt during the probe says nothing about the server; the next caller may ask."""
    clock = Clock()
    breaker = Breaker(5.0, clock)
    fail(breaker, "store.unreachable")
    clock.now += 5.0
    with pytest.raises(KeyboardInterrupt), breaker.call():
        raise KeyboardInterrupt
    with breaker.call():
        pass
