"""The counter: holds within caps, charges once, times that count."""

from __future__ import annotations

import math

from guardrails_mw.conformance.support import Conformance, Opener, opened, refuses
from guardrails_mw.store import AGAIN, KEPT, Claim, Refusal

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
        """A key holds once: while held and after it was settled, and who asks again is told so."""
        with opened(opener) as store:
            assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is None
            assert store.reserve("a", [Claim("s", 60, 100)], 0.0, 60.0) is AGAIN
            assert store.used("s") == 60
            assert store.settle("a", {"s": 10}) is True
            assert store.reserve("a", [Claim("s", 999, 100)], 0.0, 60.0) is AGAIN
            assert store.settle("a", {"s": 50}) is False
            assert store.used("s") == 10

    def test_reserve_nothing(self, opener: Opener) -> None:
        """No claims hold nothing, so there is nothing to settle or release."""
        with opened(opener) as store:
            assert store.reserve("a", [], 0.0, 60.0) is None
            assert store.reserve("a", [], 0.0, 60.0) is AGAIN
            assert store.settle("a", {"s": 5}) is False
            assert store.release("a") is False
            assert store.used("s") == 0

    def test_holds_of_zero(self, opener: Opener) -> None:
        """A unit that costs nothing is held, charged and given back like any other."""
        claims = [Claim("run:risk", 0, 5), Claim("run:calls", 1, 5)]
        with opened(opener) as store:
            for key in "abc":
                assert store.reserve(key, claims, 0.0, 60.0) is None
            assert store.settle("a", {"risk": 0, "calls": 0}) is True
            assert store.settle("b", {"risk": 2, "calls": 1}) is True
            assert store.release("c") is True
            assert [store.used(claim.scope) for claim in claims] == [2, 1]
            assert store.reserve("d", [Claim("run:risk", 0, 2)], 0.0, 60.0) is None
            assert store.release("d") is True

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
        """A release gives everything back and forgets the key; what was settled is not released."""
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
            assert store.reserve("a", claims, 0.0, 60.0) is AGAIN
            assert [store.used(claim.scope) for claim in claims] == [7, 0]  # a settled key holds nothing anew

    def test_settle_unknown_key(self, opener: Opener) -> None:
        """Settling what was never held changes nothing and says so."""
        with opened(opener) as store:
            assert store.settle("never", {"s": 5}) is False
            assert store.used("s") == 0

    def test_odd_names(self, opener: Opener) -> None:
        """Scopes and keys are any text: what ends alike, or looks like a pattern, stays apart."""
        scopes = [
            "",
            ":",
            " ",
            "a:b",
            "a\x00:b",
            "a\x1b0:b",
            "é*:b",
            "'; --:b",
            "{x}:b",
            '","',
            "a\\:b",
            "NULL",
            "a,b",
            "$1",
        ]
        with opened(opener) as store:
            for index, scope in enumerate(scopes):
                assert store.reserve(f"{scope}\x1b", [Claim(scope, index + 1, 100)], 0.0, 60.0) is None
            assert [store.used(scope) for scope in scopes] == list(range(1, len(scopes) + 1))
            assert all(store.release(f"{scope}\x1b") for scope in scopes)
            assert [store.used(scope) for scope in scopes] == [0] * len(scopes)
            assert store.reserve("all", [Claim(scope, 5, 100) for scope in scopes], 0.0, 60.0) is None
            assert store.settle("all", {"b": 2, '","': 3, "NULL": 4, "": 1, "a,b": 6})
            spent = {scope: 2 for scope in scopes if scope.endswith("b")} | {
                '","': 3,
                "NULL": 4,
                "": 1,
                ":": 1,
                "a,b": 6,
            }
            assert [store.used(scope) for scope in scopes] == [spent.get(scope, 0) for scope in scopes]

    def test_a_hold_outlasts_its_time(self, opener: Opener) -> None:
        """When its time is over a hold still counts in full; who comes back late is charged what was really used."""
        claims = [Claim("s:usd", 60, 100), Claim("t:usd", 60, 1000), Claim("s:seconds", 1, 5000)]
        with opened(opener) as store:
            assert store.reserve("slow", claims, 0.0, 60.0) is None
            assert store.reserve("next", [Claim("s:usd", 41, 100)], 1200.0, 60.0) == Refusal("s:usd", 100, 60, 41)
            assert store.reserve("slow", claims, 1200.0, 60.0) is AGAIN
            assert [store.used(claim.scope) for claim in claims] == [60, 60, 1]
            assert store.settle("slow", {"usd": 7, "seconds": 1_200_000}) is True
            assert [store.used(claim.scope) for claim in claims] == [7, 7, 1_200_000]
            assert store.settle("slow", {"usd": 1}) is False
            assert store.reserve("slow", claims, 1200.0, 60.0) is AGAIN
            assert [store.used(claim.scope) for claim in claims] == [7, 7, 1_200_000]

    def test_an_overdue_hold_may_be_released(self, opener: Opener) -> None:
        """What never started gives everything back, however late it is known; the key may be reserved anew."""
        with opened(opener) as store:
            store.reserve("asked", [Claim("s", 60, 100)], 0.0, 60.0)
            assert store.reserve("other", [Claim("s", 40, 100)], 86_400.0, 60.0) is None
            assert store.release("asked") is True
            assert store.used("s") == 40
            assert store.release("asked") is False
            assert store.reserve("asked", [Claim("s", 60, 100)], 86_400.0, 60.0) is None
            assert store.settle("asked", {"s": 5}) is True
            assert store.used("s") == 45

    def test_a_hold_that_nobody_settles_is_charged_for_good(self, opener: Opener) -> None:
        """Long after its time a hold is forgotten, by a reservation of any scope: it stays charged in full."""
        with opened(opener) as store:
            store.reserve("lost", [Claim("s", 60, 100), Claim("t", 5, 100)], 0.0, 60.0)
            store.reserve("lost too", [Claim("s", 1, 100)], 0.0, 50.0)
            store.reserve("younger", [Claim("s", 10, 100)], 30.0, 60.0)
            assert store.reserve("any", [Claim("elsewhere", 1, 1)], KEPT + 60.0, 60.0) is None
            for key in ("lost", "lost too"):
                assert store.settle(key, {"s": 1, "t": 1}) is False
                assert store.release(key) is False
                assert store.reserve(key, [Claim("s", 60, 100)], KEPT + 60.0, 60.0) is AGAIN  # its key is still known
            assert (store.used("s"), store.used("t")) == (71, 5)
            assert store.settle("younger", {"s": 1}) is True
            assert store.used("s") == 62

    def test_a_hold_is_kept_to_its_last_moment(self, opener: Opener) -> None:
        """What may be forgotten is kept a moment before that, and gone an hour after it."""
        moment = 1060.25 + KEPT
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 10, 100)], 1000.0, 60.25)
            store.reserve("b", [Claim("s", 10, 100)], 1000.0, 60.25)
            assert store.reserve("look", [Claim("s", 1, 100)], moment - 0.001, 60.0) is None
            assert store.settle("a", {"s": 1}) is True
            assert store.reserve("look again", [Claim("s", 1, 100)], moment + 3600.0, 60.0) is None
            assert store.settle("b", {"s": 1}) is False
            assert store.used("s") == 13

    def test_a_refusal_forgets_too(self, opener: Opener) -> None:
        """A reservation that is refused has still forgotten what nobody settled."""
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 10, 10)], 0.0, 60.0)
            assert store.reserve("b", [Claim("s", 1, 10)], KEPT + 60.0, 60.0) == Refusal("s", 10, 10, 1)
            assert store.settle("a", {"s": 0}) is False
            assert store.used("s") == 10

    def test_many_lost_holds_go_in_time(self, opener: Opener) -> None:
        """After a crash with many open calls, later reservations forget them all; none is ever given back."""
        with opened(opener) as store:
            for number in range(250):
                store.reserve(f"lost:{number}", [Claim("s", 1, 10**6)], float(number), 60.0)
            for number in range(10):
                store.reserve(f"later:{number}", [Claim("t", 1, 10**6)], KEPT + 1000.0, 60.0)
            assert not any(store.settle(f"lost:{number}", {"s": 0}) for number in range(250))
            assert store.used("s") == 250

    def test_clocks_that_differ(self, opener: Opener) -> None:
        """Callers whose clocks are hours apart settle what they hold, and change nothing of each other's."""
        now = 1.8e9
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 10, 100)], now, 60.0)
            for key, off in (("behind", -86_400.0), ("ahead", 86_400.0), ("behind again", -86_400.0)):
                assert store.reserve(key, [Claim("s", 10, 100)], now + off, 60.0) is None
            for key in ("ahead", "a", "behind", "behind again"):
                assert store.settle(key, {"s": 2}) is True
            assert store.used("s") == 8

    def test_no_time_at_all_is_refused(self, opener: Opener) -> None:
        """A time that is not a number, or without end, would make everything old: it holds and forgets nothing."""
        with opened(opener) as store:
            store.reserve("a", [Claim("s", 5, 100)], 0.0, 60.0)
            for now, ttl in ((math.nan, 60.0), (math.inf, 60.0), (-math.inf, 60.0), (0.0, math.inf), (0.0, math.nan)):
                with refuses("store.value"):
                    store.reserve("b", [Claim("s", 5, 100)], now, ttl)
            assert store.settle("a", {"s": 1}) is True
            assert store.used("s") == 1

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
