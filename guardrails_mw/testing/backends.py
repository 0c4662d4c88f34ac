"""Backends that fail: servers on the loopback that behave badly over real HTTP, and stores that cannot.

For gates with an endpoint, for trace endpoints, and for the store that a policy names.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from guardrails_mw.errors import StoreError
from guardrails_mw.store import Store

__all__ = ["BadServer", "bad_server", "broken_store"]


class BadServer(StrEnum):
    """What a server can do instead of answering."""

    REFUSES = "refuses"
    """Nothing listens at its address."""
    HANGS = "hangs"
    """Takes the request and is silent."""
    DRIPS = "drips"
    """Answers a byte at a time, and never finishes."""
    CLOSES = "closes"
    """Closes the connection in the middle of the answer."""
    HTTP_500 = "http_500"
    """Answers with status 500."""
    NONSENSE = "nonsense"
    """Answers with status 200 and something that means nothing."""


class _Handler(BaseHTTPRequestHandler):
    """Does to every request what its server was made for."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Take the request, then misbehave."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.kind
        self.close_connection = True
        with suppress(OSError):  # whoever asked may be gone
            if kind is BadServer.HANGS:
                self.server.over.wait()
            elif kind is BadServer.DRIPS:
                self._begin(200, 100_000)
                while not self.server.over.wait(0.05):
                    self.wfile.write(b" ")
            elif kind is BadServer.CLOSES:
                self._begin(200, 100_000)
                self.wfile.write(b'{"choices": [')
            else:
                body = b"It is all safe, I think."
                self._begin(200 if kind is BadServer.NONSENSE else 500, len(body))
                self.wfile.write(body)

    def _begin(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, kind: BadServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kind, self.over = kind, threading.Event()


@contextmanager
def bad_server(kind: BadServer) -> Iterator[str]:
    """The address of a server that misbehaves, while the block runs.

    >>> from urllib.error import HTTPError
    >>> from urllib.request import urlopen
    >>> with bad_server(BadServer.HTTP_500) as url:
    ...     try:
    ...         urlopen(url, b"{}")
    ...     except HTTPError as error:
    ...         error.code
    500
    """
    if kind is BadServer.REFUSES:
        with socket.socket() as held:  # bound and not listening: nobody else gets the port
            held.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{held.getsockname()[1]}"
        return
    server = _Server(kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


@contextmanager
def broken_store(
    store: Store,
    methods: Collection[str],
    error: Callable[[], Exception] = lambda: StoreError("store.broken"),
    seconds: float = 0.0,
) -> Iterator[None]:
    """A store of which some operations fail, while the block runs; the others work as before.

    Args:
        store: any store, also one that a guard has already.
        methods: names of operations, such as ``append`` or ``reserve``.
        error: makes what they raise.
        seconds: how long they take to do so.

    >>> from guardrails_mw.stores.memory import MemoryStore
    >>> store = MemoryStore()
    >>> with broken_store(store, ["get"]):
    ...     store.get("key")
    Traceback (most recent call last):
    guardrails_mw.errors.StoreError: store.broken
    """

    def fail(*_: object, **__: object) -> object:
        time.sleep(seconds)
        raise error()

    for name in methods:
        vars(store)[name] = fail
    try:
        yield
    finally:
        for name in methods:
            del vars(store)[name]
