"""The connection to a Redis or Valkey server: sends commands and scripts, sorts out what goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, cast

from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.forks import forget_in_children
from guardrails_mw.stores.breaker import Breaker

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["TAG", "RedisServer"]

TAG = "{guardrails}:"
"""Before every name; the braces keep all of them in one slot."""

Arg = str | bytes | int
_CODES = {
    "NOAUTH": "store.denied",
    "NOPERM": "store.denied",
    "WRONGPASS": "store.denied",
    "OOM": "store.full",
    "MISCONF": "store.io",
    "NOREPLICAS": "store.io",
    "READONLY": "store.read_only",
    "MASTERDOWN": "store.unreachable",
    "BUSY": "store.busy",
    "MOVED": "store.cluster",
    "CROSSSLOT": "store.cluster",
}
_NO_VALUE = ("not a float", "not an integer", "overflow", "out of range")

_orphans: list[object] = []


class RedisServer:
    """A server at a URL, with a pool of connections. Raises `StoreError` only, and sends nothing twice.

    Args:
        url: see `RedisStore`.
        timeout: seconds that a connection, an answer, or waiting for a free connection may take.
        connections: most connections of this process.
        breaker: when to stop asking.
    """

    def __init__(self, url: str, timeout: float, connections: int, breaker: Breaker) -> None:
        self._url, self._timeout, self._connections, self._breaker = url, timeout, connections, breaker
        self._lock = threading.Lock()
        self._redis: Redis | None = None
        self._closed = False
        self._client()
        forget_in_children(self)

    def forget(self) -> None:
        """In a forked child: never use, nor close, what belongs to the parent."""
        _orphans.append(self._redis)
        self._lock, self._redis = threading.Lock(), None
        self._breaker = Breaker()

    def command(self, *args: Arg) -> object:
        """One command, such as ``GET``."""
        client = self._client()
        with self._breaker.call(), _sorted_out():
            return client.execute_command(*[_bytes(arg) for arg in args])  # type: ignore[no-untyped-call]

    def run(self, script: str, names: Sequence[str], *args: Arg) -> object:
        """Run a script, which the server knows by its hash or is told; `names` come without the tag."""
        from redis.exceptions import NoScriptError

        client = self._client()
        with self._breaker.call(), _sorted_out():
            sent = [str(len(names)), *[_bytes(TAG + name) for name in names], *[_bytes(arg) for arg in args]]
            try:
                return client.execute_command("EVALSHA", _digest(script), *sent)  # type: ignore[no-untyped-call]
            except NoScriptError:  # a server that was started anew; nothing has run
                return client.execute_command("EVAL", script, *sent)  # type: ignore[no-untyped-call]

    def setting(self, name: str) -> str:
        """A setting of the server; empty where it does not say."""
        try:
            found = self.command("CONFIG", "GET", name)
        except StoreError as error:
            if error.code not in ("store.denied", "store.failed"):
                raise
            return ""
        pairs = cast("list[bytes] | dict[bytes, bytes]", found)
        values = list(pairs.values()) if isinstance(pairs, dict) else pairs[1::2]
        return values[0].decode() if values else ""

    def close(self) -> None:
        """Close the connections. Closing twice is harmless; any other use afterwards is ``store.closed``."""
        with self._lock:
            self._closed = True
            client, self._redis = self._redis, None
        if client is not None:
            client.connection_pool.disconnect()

    def _client(self) -> Redis:
        with self._lock:
            if self._closed:
                raise StoreError("store.closed")
            if self._redis is None:
                self._redis = self._connected()
            return self._redis

    def _connected(self) -> Redis:
        try:
            from redis import BlockingConnectionPool, Redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ModuleNotFoundError:
            raise PolicyError("redis: needs pip install 'guardrails-mw[redis]'", field="store") from None
        try:
            pool = BlockingConnectionPool.from_url(
                self._url,
                max_connections=self._connections,
                timeout=self._timeout,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
            return Redis(connection_pool=pool)
        except (ValueError, TypeError):  # their text may hold the password
            raise PolicyError("not a URL of a Redis server", field="store") from None


@cache
def _digest(script: str) -> str:
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()  # the name that the server gives it


def _bytes(arg: Arg) -> bytes:
    if isinstance(arg, bytes):
        return arg
    return str(arg).encode()


@contextmanager
def _sorted_out() -> Iterator[None]:
    """Errors of the client as codes; their texts may hold keys and values."""
    from redis import exceptions

    try:
        yield
    except exceptions.AuthenticationError:
        raise StoreError("store.denied") from None
    except exceptions.TimeoutError:
        raise StoreError("store.timeout") from None
    except exceptions.ConnectionError as error:
        waited = "No connection available" in str(error)
        raise StoreError("store.busy" if waited else "store.unreachable") from None
    except exceptions.RedisError as error:
        raise StoreError(_code(type(error).__name__, str(error))) from None
    except (UnicodeEncodeError, OverflowError):
        raise StoreError("store.value") from None
    except OSError:
        raise StoreError("store.unreachable") from None


def _code(kind: str, text: str) -> str:
    named = {"NoPermissionError": "NOPERM", "ReadOnlyError": "READONLY", "OutOfMemoryError": "OOM"}
    with contextlib.suppress(StopIteration):
        return next(code for word, code in _CODES.items() if text.startswith(word) or named.get(kind) == word)
    return "store.value" if any(part in text for part in _NO_VALUE) else "store.failed"
