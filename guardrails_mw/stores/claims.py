"""What a reservation asks of its scopes: several claims on one scope count one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter

from guardrails_mw.errors import StoreError
from guardrails_mw.store import KEPT, Claim, Refusal

__all__ = ["one_each", "refusal", "times"]

_scope = attrgetter("scope")


def one_each(claims: Sequence[Claim], largest: int = 0) -> list[Claim]:
    """One claim for each scope, sorted by scope, that fits where all of them do.

    Args:
        claims: what is asked for.
        largest: up to where the store counts; a cap beyond it is no cap. 0: without end.

    Raises:
        StoreError: ``store.value``: less than nothing, or more than the store counts.

    >>> one_each([Claim("t", 2, 10), Claim("s", 6, 10), Claim("s", 3, 20)])
    [Claim(scope='s', amount=9, cap=13), Claim(scope='t', amount=2, cap=10)]
    """
    ordered, before = sorted(claims, key=_scope), None
    for claim in ordered:
        if claim.amount < 0 or (largest and (claim.amount > largest or claim.cap > largest)) or claim.scope == before:
            return _merged(ordered, largest)
        before = claim.scope
    return ordered


def _merged(ordered: Sequence[Claim], largest: int) -> list[Claim]:
    found: dict[str, Claim] = {}
    for claim in ordered:
        cap = min(claim.cap, largest) if largest else claim.cap
        before = found.get(claim.scope)
        total = claim.amount + (before.amount if before else 0)
        if claim.amount < 0 or (largest and total > largest):
            raise StoreError("store.value")
        room = min(cap - total, before.cap - before.amount) if before else cap - total
        found[claim.scope] = Claim(claim.scope, total, room + total)
    return list(found.values())


def times(now: float, ttl: float) -> tuple[float, float]:
    """When a hold's time is over, and what time must have been over before for a hold to be forgotten.

    Raises:
        StoreError: ``store.value``: no time at all, before which everything would be old.

    >>> times(KEPT, 60.0)
    (2592060.0, 0.0)
    """
    expires = now + ttl
    if not math.isfinite(expires):
        raise StoreError("store.value")
    return expires, now - KEPT


def refusal(claims: Sequence[Claim], used: Mapping[str, int], largest: float = math.inf) -> Refusal | None:
    """The first claim that does not fit beside what its scope has used and the claims before it.

    >>> refusal([Claim("s", 6, 10), Claim("s", 6, 10)], {"s": 1})
    Refusal(scope='s', cap=10, used=7, asked=6)
    """
    taken = dict(used)
    for claim in claims:
        before = taken.get(claim.scope, 0)
        if before + claim.amount > min(claim.cap, largest):
            return Refusal(claim.scope, claim.cap, before, claim.amount)
        taken[claim.scope] = before + claim.amount
    return None
