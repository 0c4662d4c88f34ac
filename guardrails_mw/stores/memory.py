"""A store that lasts as long as the process: for tests, notebooks and stateless services."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence

from guardrails_mw.errors import StoreError
from guardrails_mw.ledger import GENESIS, link
from guardrails_mw.store import AGAIN, Again, Claim, Entry, Refusal, RunSummary, unit_of
from guardrails_mw.stores.claims import one_each, refusal, times

__all__ = ["MemoryStore"]


class MemoryStore:
    """Everything in dictionaries under one lock. Nothing is ever forgotten before the process ends.

    >>> store = MemoryStore()
    >>> store.reserve("call-1", [Claim("run:1:usd", 60, cap=100)], now=0.0, ttl=60.0)
    >>> store.reserve("call-2", [Claim("run:1:usd", 60, cap=100)], now=0.0, ttl=60.0)
    Refusal(scope='run:1:usd', cap=100, used=60, asked=60)
    >>> store.settle("call-1", {"usd": 35}), store.used("run:1:usd")
    (True, 35)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: dict[str, list[Entry]] = {}
        self._by_key: dict[tuple[str, str], Entry] = {}
        self._used: dict[str, int] = {}
        self._keys: set[str] = set()
        self._held: dict[str, tuple[float, dict[str, int]]] = {}
        self._next = math.inf  # no hold is over before
        self._register: dict[str, tuple[str, float | None]] = {}

    @property
    def blocking(self) -> bool:
        """Never waits for anything but its lock."""
        return False

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        """Add an entry to a run's chain; with a key that the run has, return what is there instead."""
        if not math.isfinite(at):
            raise StoreError("store.value")
        with self._lock:
            entry = self._by_key.get((run, key))
            if entry is None:
                chain = self._log.setdefault(run, [])
                seq, prev = len(chain) + 1, chain[-1].hash if chain else GENESIS
                entry = Entry(run, seq, key, float(at), kind, body, prev, link(prev, run, seq, key, at, kind, body))
                chain.append(entry)
                self._by_key[run, key] = entry
            return entry

    def read(self, run: str, after: int = 0) -> Iterator[Entry]:
        """The entries of a run with a sequence number above `after`, in order."""
        with self._lock:
            return iter(self._log.get(run, ())[max(after, 0) :])

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""
        with self._lock:
            found = [RunSummary(run, chain[0].at, chain[-1].at, len(chain)) for run, chain in self._log.items()]
        return sorted(found, key=lambda s: (-s.last, s.run))[: max(limit, 0)]

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        """Hold all claims or none; see `Store.reserve`."""
        held = {claim.scope: claim.amount for claim in one_each(claims)}
        expires, stale = times(now, ttl)
        with self._lock:
            if key in self._keys:
                return AGAIN
            self._forget(stale)
            refused = refusal(claims, {scope: self._used.get(scope, 0) for scope in held})
            if refused is not None:
                return refused
            self._keys.add(key)
            if held:
                self._held[key] = expires, held
                self._next = min(self._next, expires)
            for scope, amount in held.items():
                self._used[scope] = self._used.get(scope, 0) + amount
            return None

    def _forget(self, before: float) -> None:
        if before < self._next:
            return
        self._held = {key: hold for key, hold in self._held.items() if hold[0] > before}
        self._next = min((expires for expires, _ in self._held.values()), default=math.inf)

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used; see `Store.settle`."""
        if any(amount < 0 for amount in amounts.values()):
            raise StoreError("store.value")
        with self._lock:
            return self._close(key, amounts)

    def release(self, key: str) -> bool:
        """Drop a hold and forget its key; see `Store.release`."""
        with self._lock:
            held = self._close(key, {})
            if held:
                self._keys.discard(key)
            return held

    def _close(self, key: str, amounts: Mapping[str, int]) -> bool:
        _, held = self._held.pop(key, (0.0, {}))
        for scope, amount in held.items():
            self._used[scope] += amounts.get(unit_of(scope), 0) - amount
        return bool(held)

    def used(self, scope: str) -> int:
        """Charged plus held."""
        with self._lock:
            return self._used.get(scope, 0)

    def get(self, key: str) -> str | None:
        """The value under a key, or None."""
        with self._lock:
            found = self._register.get(key)
        return found[0] if found else None

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Set a key if it holds what is expected (None: absent), in one step. `new=None` deletes."""
        with self._lock:
            found = self._register.get(key)
            if (found[0] if found else None) != expected:
                return False
            if new is not None:
                self._register[key] = (new, due)
            elif found:
                del self._register[key]
            return True

    def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with a prefix, oldest first."""
        with self._lock:
            return [key for key in self._register if key.startswith(prefix)]

    def due(self, prefix: str, before: float) -> Sequence[str]:
        """Keys under a prefix whose `due` has come, earliest first."""
        with self._lock:
            items = [(due, key) for key, (_, due) in self._register.items() if due is not None and due <= before]
        return [key for _, key in sorted(items, key=lambda item: item[0]) if key.startswith(prefix)]

    def close(self) -> None:
        """Nothing to release."""
