"""What a reservation asks of its scopes: several claims on one scope count one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from guardrails_mw.errors import StoreError
from guardrails_mw.store import KEPT, Claim, Refusal

__all__ = ["demands", "refusal", "times", "totals"]


def totals(claims: Sequence[Claim]) -> dict[str, int]:
    """What is claimed per scope. Raises `StoreError` (``store.value``) for less than nothing.

    >>> totals([Claim("s", 6, 10), Claim("t", 1, 10), Claim("s", 3, 10)])
    {'s': 9, 't': 1}
    """
    found: dict[str, int] = {}
    for claim in claims:
        if claim.amount < 0:
            raise StoreError("store.value")
        found[claim.scope] = found.get(claim.scope, 0) + claim.amount
    return found


def demands(claims: Sequence[Claim], largest: int) -> dict[str, tuple[int, int]]:
    """Per scope what is claimed, and the most that it may have used for that to fit; -1 where it never does.

    Args:
        claims: what is asked for.
        largest: up to where the store counts; a cap beyond it is no cap.

    Raises:
        StoreError: ``store.value``: less than nothing, or more than the store counts.

    >>> demands([Claim("s", 6, 10), Claim("t", 11, 10), Claim("s", 3, 20)], 2**63 - 1)
    {'s': (9, 4), 't': (11, -1)}
    """
    found: dict[str, tuple[int, int]] = {}
    for claim in claims:
        scope, total, cap = claim.scope, claim.amount, claim.cap
        if total < 0:
            raise StoreError("store.value")
        before = found.get(scope)
        if before is not None:
            total += before[0]
        if total > largest:
            raise StoreError("store.value")
        room = min(cap, largest) - total
        if room < 0:
            room = -1
        found[scope] = total, room if before is None or room < before[1] else before[1]
    return found


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
