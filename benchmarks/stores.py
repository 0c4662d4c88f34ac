"""What the ledger and the stores cost. Run: ``python benchmarks/stores.py [FOLDER]``.

Figures depend on the disk (``power`` above all); compare them on one machine only.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from guardrails_mw.ledger import GENESIS, Ledger, canonical, link, verify
from guardrails_mw.store import Claim, Store
from guardrails_mw.stores import open_store

BODY = {
    "stage": "tool_call", "gate": "tools", "action": "block", "reason": "tool.role", "score": 0.25,
    "policy": "3f2a9c41",
    "checks": [{"gate": name, "action": "allow", "ms": 0.31} for name in ("injection", "pii", "secrets", "tools")],
}  # fmt: skip


def rate(call: Callable[[int], object], seconds: float = 1.5) -> float:
    """Calls per second, best of three."""
    best, offset = 0.0, 0
    for _ in range(3):
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 3:
            call(offset + count)
            count += 1
        best, offset = max(best, count / (time.perf_counter() - start)), offset + count
    return best


def measure(name: str, store: Store) -> None:
    """Print one store's figures."""
    ledger, text = Ledger(store), canonical(BODY)
    claims = [Claim(f"run:1:{unit}", 7, 10**15) for unit in ("usd", "tokens", "model_calls", "seconds")]
    amounts = {"usd": 3, "tokens": 3, "model_calls": 3, "seconds": 3}

    def both(i: int) -> None:
        store.reserve(f"k{i}", claims, float(i), 60.0)
        store.settle(f"k{i}", amounts)

    for what, call in (
        ("append", lambda i: store.append("a", f"k{i}", float(i), "decision", text)),
        ("record", lambda i: ledger.record("r", f"k{i}", "decision", BODY)),
        ("reserve + settle, 4 scopes", both),
        ("swap", lambda i: store.swap("x", str(i - 1) if i else None, str(i))),
        ("get", lambda _: store.get("x")),
    ):
        per_second = rate(call)
        print(f"{name:16} {what:28} {per_second:10,.0f}/s {1e6 / per_second:8.1f} µs")
    assert not ledger.verify("a")


def main(folder: str) -> None:
    """Print everything."""
    text = canonical(BODY)
    per_second = rate(lambda i: link(GENESIS, "run", i, "key", 1.5, "decision", canonical(BODY)))
    print(f"{'':16} {f'canonical + hash, {len(text)} B':28} {per_second:10,.0f}/s {1e6 / per_second:8.1f} µs")
    measure("memory", open_store("memory:", Path()))
    with tempfile.TemporaryDirectory(dir=folder) as name:
        for durability in ("process", "power"):
            store = open_store(f"sqlite:///{durability}.db", Path(name), durability)
            measure(f"sqlite {durability}", store)
            start, entries = time.perf_counter(), list(store.read("a"))
            verify(entries)
            print(f"{'':16} {'read + verify':28} {len(entries) / (time.perf_counter() - start):10,.0f}/s")
            store.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
