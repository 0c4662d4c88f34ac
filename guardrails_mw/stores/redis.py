"""A store in Redis or Valkey, for many processes on many machines.

Every operation is one script, which the server runs as one atomic step: one round trip. The chain's hash is
made here, from what this process knows of the run; where another process has written meanwhile, the script
says so and a second round trip follows.

How long writes last is the server's configuration: ``appendonly yes`` with ``appendfsync everysec`` may lose a
second at a power cut, ``always`` loses nothing; an eviction policy loses budgets at any time. No operation is
sent twice: where a connection breaks in the middle, the caller is told, and what was asked may have happened.

Needs the extra ``redis``.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, cast

from guardrails_mw.errors import StoreError
from guardrails_mw.ledger import GENESIS, link
from guardrails_mw.store import AGAIN, Again, Claim, Entry, Refusal, RunSummary
from guardrails_mw.stores import redis_scripts as scripts
from guardrails_mw.stores.breaker import Breaker
from guardrails_mw.stores.claims import one_each, refusal, times
from guardrails_mw.stores.redis_server import TAG, RedisServer
from guardrails_mw.stores.schema import Schema

__all__ = ["RedisStore"]

_LARGEST = 2**53
"""Up to here Lua compares integers exactly."""
_PAGE = 500
_HEADS = 4096
"""Runs whose last hash is remembered, to spare a round trip."""
_COUNTER = ("hold:", "holds", "used", "reserved")
_REGISTER = ("values", "names", "ages", "due", "age")


class RedisStore:
    """A store in a Redis or Valkey server. See `Store` for what the methods promise.

    Args:
        url: ``redis://user:password@host:port/number``; ``rediss://`` for TLS, ``unix://`` for a socket.
        durability: ``process``: as the server is configured. ``power``: the server must write every change to
            the disk before it answers (``appendonly yes``, ``appendfsync always``), or the store is refused.
        timeout: seconds that a connection or an answer may take.
        connections: most connections of this process; further callers wait for one of them.
        breaker: when to stop asking a server that does not answer.

    Raises:
        PolicyError: not a URL of a Redis server, or the extra is missing.
        StoreError: ``store.unreachable``, ``store.timeout``, ``store.denied`` (user, password or rights),
            ``store.newer_version``, ``store.not_durable``; later also ``store.down`` (not asked, because the
            server was away a moment ago), ``store.busy``, ``store.full``, ``store.read_only``, ``store.io``,
            ``store.cluster``, ``store.value``, ``store.closed``, ``store.failed``.
    """

    VERSION = 1
    """The newest version of what is kept, and how."""

    def __init__(
        self,
        url: str,
        durability: Literal["process", "power"] = "process",
        *,
        timeout: float = 2.0,
        connections: int = 8,
        breaker: Breaker | None = None,
    ) -> None:
        self._server = RedisServer(url, timeout, connections, breaker or Breaker())
        self._heads: OrderedDict[str, tuple[int, str]] = OrderedDict()
        try:
            found = cast("int", self._server.run(scripts.MIGRATE, ["version"], self.VERSION))
            if found > self.VERSION:
                raise StoreError("store.newer_version")
            if durability == "power" and not _durable(self._server):
                raise StoreError("store.not_durable")
        except BaseException:
            self._server.close()
            raise

    @property
    def blocking(self) -> bool:
        """Every call waits for the network."""
        return True

    # the log

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        """Add an entry to a run's chain; with a key that the run has, return what is there instead."""
        if not math.isfinite(at):
            raise StoreError("store.value")
        at, names = float(at), (f"log:{run}", f"index:{run}", "runs")
        seq, prev = self._heads.get(run, (0, GENESIS))
        while True:
            try:
                entry = Entry(run, seq + 1, key, at, kind, body, prev, link(prev, run, seq + 1, key, at, kind, body))
                known = (seq, prev if seq else "", _packed(entry))
            except UnicodeEncodeError:
                raise StoreError("store.value") from None
            found = cast("list[bytes]", self._server.run(scripts.APPEND, names, run, key, repr(-at), *known))
            match int(found[0]):
                case 0:
                    return _unpacked(run, found[1])
                case 1:
                    self._remember(run, entry.seq, entry.hash)
                    return entry
                case _:
                    seq, prev = int(found[1]), found[2][:64].decode() or GENESIS

    def _remember(self, run: str, seq: int, last: str) -> None:
        self._heads[run] = (seq, last)
        if len(self._heads) > _HEADS:
            with contextlib.suppress(KeyError):  # another thread did
                self._heads.popitem(last=False)

    def read(self, run: str, after: int = 0) -> Iterator[Entry]:
        """The entries of a run with a sequence number above `after`, in order; read page by page."""
        start = max(after, 0)
        while True:
            rows = cast("list[bytes]", self._server.command("LRANGE", f"{TAG}log:{run}", start, start + _PAGE - 1))
            for row in rows:
                yield _unpacked(run, row)
            if len(rows) < _PAGE:
                return
            start += _PAGE

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""
        rows = self._server.run(scripts.RUNS, ["runs"], f"{TAG}log:", limit) if limit > 0 else []
        found = cast("list[tuple[bytes, bytes, bytes, int]]", rows)
        return [RunSummary(run.decode(), _at(first), _at(last), count) for run, first, last, count in found]

    # the counter

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        """Hold all claims or none; see `Store.reserve`."""
        asked = one_each(claims, _LARGEST)
        flat = [text for each in asked for text in (each.scope, str(each.amount), str(each.cap - each.amount))]
        when = [repr(moment) for moment in times(float(now), ttl)]
        used = cast("list[bytes]", self._server.run(scripts.RESERVE, _COUNTER, key, *when, *flat))
        if not used:
            return None
        if used == scripts.AGAIN:
            return AGAIN
        return refusal(claims, {each.scope: int(taken) for each, taken in zip(asked, used, strict=True)}, _LARGEST)

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Replace a hold by what was really used; see `Store.settle`."""
        flat = [text for unit, amount in amounts.items() for text in (unit, _amount(amount))]
        return bool(self._server.run(scripts.SETTLE, _COUNTER, key, *flat))

    def release(self, key: str) -> bool:
        """Drop a hold and forget its key; see `Store.release`."""
        return bool(self._server.run(scripts.RELEASE, _COUNTER, key))

    def used(self, scope: str) -> int:
        """Charged plus held."""
        return int(cast("bytes | None", self._server.command("HGET", TAG + "used", scope)) or 0)

    # the register

    def get(self, key: str) -> str | None:
        """The value under a key, or None."""
        found = cast("bytes | None", self._server.command("HGET", TAG + "values", key))
        return None if found is None else found.decode()

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Set a key if it holds what is expected (None: absent), in one step. `new=None` deletes."""
        given = [text for value in (expected, new) for text in ("0" if value is None else "1", value or "")]
        return bool(self._server.run(scripts.SWAP, _REGISTER, key, *given, "" if due is None else repr(float(due))))

    def keys(self, prefix: str) -> Sequence[str]:
        """All keys that start with a prefix, oldest first."""
        try:
            first = b"[" + prefix.encode()
        except UnicodeEncodeError:
            raise StoreError("store.value") from None
        past = first + b"\xff"  # a byte that no text has
        found = cast("list[bytes]", self._server.run(scripts.KEYS, ("names", "ages"), first, past))
        ages = sorted((int(age), key) for key, age in zip(found[::2], found[1::2], strict=True))
        return [key.decode() for _, key in ages]

    def due(self, prefix: str, before: float) -> Sequence[str]:
        """Keys under a prefix whose `due` has come, earliest first."""
        found = cast("list[bytes]", self._server.run(scripts.DUE, ("due", "ages"), prefix, repr(float(before))))
        rows = sorted((float(found[i + 1]), int(found[i + 2]), found[i]) for i in range(0, len(found), 3))
        return [key.decode() for _, _, key in rows]

    def close(self) -> None:
        """Close the connections. Closing twice is harmless; any other use afterwards is ``store.closed``."""
        self._server.close()

    @classmethod
    def schema(cls, url: str) -> Schema:
        """What a server has, without changing it. Raises `StoreError`, `PolicyError`."""
        server = RedisServer(url, 2.0, 1, Breaker())
        try:
            found = int(cast("bytes | None", server.command("GET", TAG + "version")) or 0)
            return Schema(found, cls.VERSION, tuple(_notes(server)))
        finally:
            server.close()


def _amount(amount: int) -> str:
    if not 0 <= amount <= _LARGEST:
        raise StoreError("store.value")
    return str(amount)


def _packed(entry: Entry) -> bytes:
    """The hash first, where the script compares it; the rest as JSON, which keeps every text and float."""
    rest = [entry.seq, entry.key, entry.at, entry.kind, entry.body]
    return f"{entry.hash}{entry.prev}{json.dumps(rest, ensure_ascii=False)}".encode()


def _unpacked(run: str, item: bytes) -> Entry:
    text = item.decode()
    seq, key, at, kind, body = json.loads(text[128:])
    return Entry(run, seq, key, at, kind, body, text[64:128], text[:64])


def _at(item: bytes) -> float:
    return _unpacked("", item).at


def _durable(server: RedisServer) -> bool:
    return server.setting("appendonly") == "yes" and server.setting("appendfsync") == "always"


def _notes(server: RedisServer) -> Iterator[str]:
    logged, synced, evicts = (server.setting(name) for name in ("appendonly", "appendfsync", "maxmemory-policy"))
    if not logged:
        yield "the server does not show its configuration, so how long writes last is not known"
        return
    if logged == "no":
        yield "appendonly is no: what was written since the last snapshot is lost when the server ends"
    else:
        yield f"appendonly is yes, appendfsync is {synced}"
    if evicts != "noeviction":
        yield f"maxmemory-policy is {evicts}: budgets and records may be evicted; set noeviction"
