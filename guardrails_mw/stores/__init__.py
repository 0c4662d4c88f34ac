"""Where things last: the stores, and how a policy names them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.store import Store
from guardrails_mw.stores.schema import Schema

__all__ = ["SCHEMES", "open_store", "schema_of", "shown"]

_EXAMPLES = (
    "memory:, sqlite:///file-beside-the-policy.db, sqlite:////absolute/path.db, "
    "postgresql://user@host/database or redis://host:6379/0"
)
_POSTGRES = ("postgresql", "postgres")
_REDIS = ("redis", "rediss", "unix")
SCHEMES = ("memory", "sqlite", "postgresql", "redis")
"""How the address of a store begins, by the kinds of stores there are."""


def open_store(url: str, base: Path, durability: Literal["process", "power"] = "process") -> Store:
    """Open the store that a policy names; makes its schema where there is none, and raises an older one.

    Args:
        url: ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
            ``postgresql://user:password@host/database`` or ``redis://user:password@host:6379/0``
            (``rediss://`` for TLS, ``unix://`` for a socket; Valkey too).
        base: folder that a relative path starts from.
        durability: what a finished write survives: the end of the process, or a loss of power.

    Raises:
        PolicyError: not a URL of a known store, an unknown durability, or an extra that is missing.
        StoreError: the store cannot be opened.

    >>> open_store("memory:", Path()).blocking
    False
    """
    if durability not in ("process", "power"):
        raise PolicyError(f"unknown durability {durability!r}: {nearest(durability, ['process', 'power'])}")
    scheme = _scheme(url)
    if scheme == "memory":
        from guardrails_mw.stores.memory import MemoryStore

        return MemoryStore()
    if scheme == "sqlite":
        from guardrails_mw.stores.sqlite import SqliteStore

        return SqliteStore(_file(url, base), durability)
    if scheme in _POSTGRES:
        from guardrails_mw.stores.postgres import PostgresStore

        return PostgresStore(url, durability)
    from guardrails_mw.stores.redis import RedisStore

    return RedisStore(url, durability)


def schema_of(url: str, base: Path) -> Schema | None:
    """What the store that a policy names holds, without changing it; None for one that keeps nothing.

    Raises:
        PolicyError: as `open_store`.
        StoreError: the store cannot be reached, or belongs to something else.
    """
    scheme = _scheme(url)
    if scheme == "memory":
        return None
    if scheme == "sqlite":
        from guardrails_mw.stores.sqlite import SqliteStore

        return SqliteStore.schema(_file(url, base))
    if scheme in _POSTGRES:
        from guardrails_mw.stores.postgres import PostgresStore

        return PostgresStore.schema(url)
    from guardrails_mw.stores.redis import RedisStore

    return RedisStore.schema(url)


def shown(url: str) -> str:
    """A store's URL without user, password and options, for people to read.

    >>> shown("redis://app:hunter2@cache.internal:6379/0?socket_timeout=1")
    'redis://cache.internal:6379/0'
    """
    scheme, _, rest = url.partition(":")
    if scheme in ("memory", "sqlite"):
        return url
    try:
        parts = urlsplit(url)
        place = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return f"{scheme}:..."
    return f"{scheme}://{place}{parts.path}" if rest else f"{scheme}:"


def _scheme(url: str) -> str:
    scheme, colon, rest = url.partition(":")
    known = colon and (rest.startswith("//") or scheme in ("memory", "sqlite"))
    if known and (scheme in (*_POSTGRES, *_REDIS, "sqlite") or (scheme == "memory" and not rest)):
        return scheme
    # a password may stand where the scheme should: only what looks like a scheme is repeated
    word = scheme if scheme.isalpha() and len(scheme) < 20 else ""
    raise PolicyError(f"unknown store {word!r}: {nearest(word, list(SCHEMES))}; write {_EXAMPLES}", field="store")


def _file(url: str, base: Path) -> Path:
    rest = url.partition(":")[2]
    name = rest.removeprefix("///")
    if name == rest or not name or name.endswith("/") or name == ":memory:" or "?" in name:
        raise PolicyError(f"not a path of a database file; write {_EXAMPLES}", field="store")
    return base / name
