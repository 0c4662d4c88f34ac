"""The append-only record of what was decided: canonical form, hash chain, verification.

Each run has a chain of its own, so that runs never wait for each other and one run can be handed out and
checked alone. An entry's hash covers everything in it and the hash before it. A chain shows that an entry
was changed, moved or taken out of the middle; it cannot show that the end was cut off or that everything
was written anew. For that, keep heads (the last hash of a run) somewhere else and give them to `verify`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import uuid4

from guardrails_mw.errors import StoreError
from guardrails_mw.event import Json
from guardrails_mw.store import Entry, RunSummary, Store

__all__ = ["GENESIS", "LEDGER_VERSION", "Ledger", "Problem", "canonical", "link", "verify"]

LEDGER_VERSION = 1
"""Version of the bodies, written into each as ``v``. Readers refuse what is newer."""

GENESIS = "0" * 64
"""What the first entry of a run has as the hash before it."""


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, check_circular=False, default=_plain
)


def canonical(value: object) -> str:
    r"""The one JSON text of a value: keys sorted, no blanks, ASCII only, numbers finite.

    Raises:
        StoreError: ``ledger.not_json`` for anything JSON has no form for (also NaN, infinities and cycles).

    >>> canonical({"b": "é", "a": [1, 2.5, None]})
    '{"a":[1,2.5,null],"b":"\\u00e9"}'
    """
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError):
        raise StoreError("ledger.not_json") from None


def link(prev: str, run: str, seq: int, key: str, at: float, kind: str, body: str) -> str:  # noqa: PLR0917 - SQL calls it by position
    """The hash (SHA-256, hex) of an entry that follows `prev`.

    The lengths of all texts stand before them, so no two entries have the same bytes to hash; the tag
    keeps these hashes apart from any other use of SHA-256.
    """
    at += 0.0  # an integer or -0.0 hashes as the float that every store gives back
    frame = (
        f"guardrails-mw/ledger/1\n{seq} {at!r} {len(prev)} {len(run)} {len(key)} {len(kind)} {len(body)}\n"
        f"{prev}{run}{key}{kind}{body}"
    )
    return sha256(frame.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at one entry.

    `code` is ``seq`` (a gap, a repetition or a wrong order), ``prev`` (does not continue the entry
    before), ``hash`` (changed after it was written), ``key`` (a key that the run already has) or ``head``
    (a hash witnessed elsewhere is not in the chain; `seq` is then the last entry's).
    """

    run: str
    seq: int
    code: str


def verify(entries: Iterable[Entry], heads: Mapping[str, str] | None = None) -> list[Problem]:
    """Everything that is wrong with the chains of one or more runs; empty when all hold.

    Args:
        entries: whole runs from their first entry on, each in order; runs may alternate.
        heads: per run, a hash that was once its last and was kept elsewhere.
    """
    last: dict[str, tuple[int, str]] = {}
    keys: set[tuple[str, str]] = set()
    missing = dict(heads or {})
    problems: list[Problem] = []
    for entry in entries:
        seq, prev = last.get(entry.run, (0, GENESIS))
        found = {
            "seq": entry.seq != seq + 1,
            "prev": entry.prev != prev,
            "hash": entry.hash != link(entry.prev, entry.run, entry.seq, entry.key, entry.at, entry.kind, entry.body),
            "key": (entry.run, entry.key) in keys,
        }
        problems.extend(Problem(entry.run, entry.seq, code) for code, wrong in found.items() if wrong)
        last[entry.run] = (entry.seq, entry.hash)
        keys.add((entry.run, entry.key))
        if missing.get(entry.run) == entry.hash:
            del missing[entry.run]
    problems.extend(Problem(run, last.get(run, (0, ""))[0], "head") for run in missing)
    return problems


class Ledger:
    """Writes and reads a store's log. It writes what it is given: redaction comes before it.

    Args:
        store: where the log is.
        clock: seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock

    def record(self, run: str, key: str, kind: str, body: Mapping[str, object]) -> Entry:
        """Add an entry; when it returns, the entry is as durable as the store makes it.

        A key that the run already has changes nothing and returns what was recorded then. An empty key
        means "never seen again" and is always recorded. ``v`` in a body belongs to the ledger.

        Raises:
            StoreError: ``ledger.not_json``, or what the store says.
        """
        text = canonical({**body, "v": LEDGER_VERSION})
        return self._store.append(run, key or uuid4().hex, self._clock(), kind, text)

    def read(self, run: str, after: int = 0) -> Iterator[dict[str, Json]]:
        """A run's entries as ``{run, seq, key, at, kind, prev, hash, body}``, `body` decoded.

        Raises:
            StoreError: ``ledger.not_json`` for a body that is damaged, ``ledger.newer_version`` for one
                that a later version of this package wrote.
        """
        for entry in self._store.read(run, after):
            yield {
                "run": entry.run,
                "seq": entry.seq,
                "key": entry.key,
                "at": entry.at,
                "kind": entry.kind,
                "prev": entry.prev,
                "hash": entry.hash,
                "body": _decoded(entry.body),
            }

    def runs(self, limit: int = 100) -> Sequence[RunSummary]:
        """The runs seen last, newest first."""
        return self._store.runs(limit)

    def verify(self, run: str, head: str = "") -> list[Problem]:
        """`verify` for one run of this ledger; `head` is a hash of it that was kept elsewhere."""
        return verify(self._store.read(run), {run: head} if head else None)


def _decoded(text: str) -> dict[str, Json]:
    try:
        body: object = json.loads(text)
    except (ValueError, RecursionError):
        raise StoreError("ledger.not_json") from None
    if not isinstance(body, dict):
        raise StoreError("ledger.not_json")
    version = body.get("v")
    if not isinstance(version, int):
        raise StoreError("ledger.not_json")
    if version > LEDGER_VERSION:
        raise StoreError("ledger.newer_version")
    return body
