"""Where things last: the stores, and how a policy names them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.store import Store

__all__ = ["SCHEMES", "open_store"]

SCHEMES = ("memory", "sqlite")
"""How the address of a store begins, by the kinds of stores there are."""

_EXAMPLES = "memory:, sqlite:///file-beside-the-policy.db or sqlite:////absolute/path.db"


def open_store(url: str, base: Path, durability: Literal["process", "power"] = "process") -> Store:
    """Open the store that a policy names.

    Args:
        url: ``memory:``, ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
        base: folder that a relative path starts from.
        durability: what a finished write survives: the end of the process, or a loss of power.

    Raises:
        PolicyError: not a URL of a known store, or an unknown durability.
        StoreError: the store cannot be opened.

    >>> open_store("memory:", Path()).blocking
    False
    """
    if durability not in ("process", "power"):
        raise PolicyError(f"unknown durability {durability!r}: {nearest(durability, ['process', 'power'])}")
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon and not rest:
        from guardrails_mw.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite" and colon:
        name = rest.removeprefix("///")
        if name == rest or not name or name.endswith("/") or name == ":memory:" or "?" in name:
            raise PolicyError(f"not a path of a database file; write {_EXAMPLES}", field="store")
        from guardrails_mw.stores.sqlite import SqliteStore

        return SqliteStore(base / name, durability)
    hint = nearest(scheme, list(SCHEMES))
    raise PolicyError(f"unknown store {scheme!r}: {hint}; write {_EXAMPLES}", field="store")
