"""The counter: holds within caps, charges once, times that count."""

from __future__ import annotations

import math

from guardrails_mw.conformance.support import Conformance, Opener, opened, refuses
from guardrails_mw.store import Claim, Refusal

__all__ = ["CounterConformance"]


class CounterConformance(Conformance):
    """`reserve`, `settle`, `release`, `used`, with the time passed in."""

    def test_reserve_up_to_the_cap(self, opener: Opener) -> None:
        """A cap may be reached, not exceeded; the refusal says by what."""
        with opened(opener) as store:
            assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
            assert store.reserve("b", [Claim("s", 41, 100)], 0.0, 60.0) == Refusal("s", 100, 60, 41)
            assert store.reserve("c", [Claim("s", 40, 100)], 0.0, 60.0) is None
            assert store.used("s") == 100
            assert store.used("unknown") == 0

    def test_large_amounts_are_exact(self, opener: Opener) -> None:
        """A billion dollars in millionths is counted to the last one."""
        cap = 10**15 + 1
        with opened(opener) as store:
            assert store.reserve("a", [Claim("s:usd", 10**15, cap)], 0.0, 60.0) is None
            assert store.reserve("b", [Claim("s:usd", 2, cap)], 0.0, 60.0) == Refusal("s:usd", cap, 10**15, 2)
            assert store.reserve("b", [Claim("s:usd", 1, cap)], 0.0, 60.0) is None
            assert store.settle("a", {"usd": 10**15 - 1})
            assert store.used("s:usd") == 10**15

    def test_reserve_all_or_nothing(self, opener: Opener) -> None:
        """When one scope cannot take it, no scope holds anything and the key is still unused."""
        with opened(opener) as store:
            store.reserve("a", [Claim("y", 10, 10)], 0.0, 60.0)
            claims = [Claim("x", 1, 10), Claim("y", 1, 10), Claim("z", 99, 10)]
            assert store.reserve("b", claims, 0.0, 60.0) == Refusal("y", 10, 10, 1)
            assert (store.used("x"), store.used("z")) == (0, 0)
            assert store.settle("b", {"x": 5}) is False
            assert store.reserve("b", [Claim("x", 1, 10)], 0.0, 60.0) is None
            assert store.used("x") == 1

    def test_scope_claimed_twice(self, opener: Opener) -> None:
        """Two claims on one scope in one reservation count together."""
        with opened(opener) as store:
            assert store.reserve("a", [Claim("s", 6, 10), Claim("s", 6, 10)], 0.0, 60.0) == Refusal("s", 10, 6, 6)
            assert store.reserve("b", [Claim("s", 4, 10), Claim("s", 6, 10)], 0.0, 60.0) is None
            assert store.settle("b", {"s": 3})
            assert store.used("s") == 3

    def test_reserve_is_idempotent(self, opener: Opener) -> None:
        """A key holds once: while held, after it was settled and after it expired."""
        with opened(opener) as store:
            for _ in range(2):
                assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
            assert store.used("s") == 60
            assert store.settle("a", {"s": 10}) is True
            assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
            assert store.settle("a", {"s": 50}) is False
            assert store.used("s") == 10

    def test_reserve_nothing(self, opener: Opener) -> None:
        """No claims hold nothing, so there is nothing to settle or release."""
        with opened(opener) as store:
            assert store.reserve("a", [], 0.0, 60.0) is None
            assert store.settle("a", {"s": 5}) is False
            assert store.release("a") is False
            assert store.used("s") == 0

    def test_settle_charges_what_was_used(self, opener: Opener) -> None:
        """Less than held frees the rest, more is charged too; a unit left out, or not held, is charged nothing."""
        with opened(opener) as store:
            store.reserve("a", [Claim("x", 10, 100), Claim("y", 10, 100), Claim("z", 10, 100)], 0.0, 60.0)
            assert store.settle("a", {"x": 3, "y": 200, "w": 4})
            assert [store.used(scope) for scope in "xyzw"] == [3, 200, 0, 0]
            assert store.reserve("b", [Claim("y", 0, 100)], 0.0, 60.0) == Refusal("y", 100, 200, 0)

    def test_settle_charges_every_scope_of_a_unit(self, opener: Opener) -> None:
        """Amounts are per unit: what a call cost is charged in each scope that held that unit, whatever its window."""
        scopes = ["run:1:usd", "tenant:acme:2026-11:usd", "tenant:acme:2026-11:tokens", "run:\n2:usd"]
        with opened(opener) as store:
            store.reserve("a", [Claim(scope, 10, 100) for scope in scopes], 0.0, 60.0)
            assert store.settle("a", {"usd": 3, "tokens": 40, "2026-11:usd": 50, "run:1:usd": 60})
            assert [store.used(scope) for scope in scopes] == [3, 3, 40, 3]

    def test_a_released_key_may_be_reserved_anew(self, opener: Opener) -> None:
        """A release gives everything back and forgets the key; what was settled or has expired is not released."""
        claims = [Claim("run:usd", 60, 100), Claim("run:tokens", 5, 10)]
        with opened(opener) as store:
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

    def test_settle_unknown_key(self, opener: Opener) -> None:
        """Settling what was never held changes nothing and says so."""
        with opened(opener) as store:
            assert store.settle("never", {"s": 5}) is False
            assert store.used("s") == 0

    def test_odd_names(self, opener: Opener) -> None:
        """Scopes and keys are any text: what ends alike, or looks like a pattern, stays apart."""
        scopes = ["", ":", "a:b", "a\x00:b", "é*:b", "'; --:b", "{x}:b"]
        with opened(opener) as store:
            for index, scope in enumerate(scopes):
                assert store.reserve(f"{scope}\x1b", [Claim(scope, index + 1, 100)], 0.0, 60.0) is None
            assert [store.used(scope) for scope in scopes] == [1, 2, 3, 4, 5, 6, 7]
            assert all(store.release(f"{scope}\x1b") for scope in scopes)
            assert [store.used(scope) for scope in scopes] == [0] * 7

    def test_expired_holds_are_charged(self, opener: Opener) -> None:
        """A hold past its time is charged in full in all its scopes, and neither settled nor released later."""
        with opened(opener) as store:
            store.reserve("old", [Claim("s", 60, 100), Claim("t", 5, 100)], 0.0, 60.0)
            store.reserve("older", [Claim("s", 1, 100)], 0.0, 50.0)
            store.reserve("young", [Claim("s", 10, 100)], 30.0, 60.0)
            store.reserve("other", [Claim("elsewhere", 10, 100)], 0.0, 60.0)
            assert store.reserve("new", [Claim("s", 29, 100)], 60.0, 60.0) is None
            assert store.settle("old", {"s": 1, "t": 1}) is False
            assert store.release("older") is False
            assert (store.used("s"), store.used("t")) == (100, 5)
            assert store.settle("young", {"s": 1}) is True
            assert store.settle("other", {"elsewhere": 1}) is True
            assert store.used("s") == 91

    def test_the_moment_of_expiry(self, opener: Opener) -> None:
        """A hold is open up to its last moment, and expired at the very moment its time is over, not before."""
        before = math.nextafter(1060.25, 0.0)
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 10, 100)], 1000.0, 60.25)
            store.reserve("b", [Claim("s", 10, 100)], 1000.0, 60.25)
            assert store.reserve("look", [Claim("s", 1, 100)], before, 60.0) is None
            assert store.settle("a", {"s": 1}) is True
            assert store.reserve("look again", [Claim("s", 1, 100)], 1060.25, 60.0) is None
            assert store.settle("b", {"s": 1}) is False
            assert store.used("s") == 13

    def test_a_refusal_expires_too(self, opener: Opener) -> None:
        """A reservation that is refused has still charged what was overdue."""
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 10, 10)], 0.0, 60.0)
            assert store.reserve("b", [Claim("s", 1, 10)], 60.0, 60.0) == Refusal("s", 10, 10, 1)
            assert store.settle("a", {"s": 0}) is False
            assert store.used("s") == 10

    def test_clocks_that_differ(self, opener: Opener) -> None:
        """A caller whose clock is behind expires nothing, and brings nothing back that another has expired."""
        now = 1.8e9
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 10, 100)], now, 60.0)
            assert store.reserve("behind", [Claim("s", 1, 100)], now - 3600.0, 60.0) is None
            assert store.settle("a", {"s": 2}) is True
            store.reserve("b", [Claim("s", 10, 100)], now, 60.0)
            assert store.reserve("ahead", [Claim("s", 1, 100)], now + 3600.0, 60.0) is None
            assert store.reserve("behind again", [Claim("s", 1, 100)], now - 3600.0, 60.0) is None
            assert store.settle("b", {"s": 2}) is False
            assert store.used("s") == 2 + 1 + 10 + 1 + 1

    def test_negative_amounts_are_refused(self, opener: Opener) -> None:
        """Nobody earns budget by claiming or settling less than nothing."""
        with opened(opener) as store:
            with refuses("store.value"):
                store.reserve("a", [Claim("s", -1, 100)], 0.0, 60.0)
            store.reserve("a", [Claim("s", 5, 100)], 0.0, 60.0)
            with refuses("store.value"):
                store.settle("a", {"s": -1})
            assert store.used("s") == 5
            assert store.settle("a", {"s": 1}) is True
