"""A chat completion server on loopback: real HTTP, scripted replies."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


@dataclass
class ChatServer:
    """What it replies is `status` and `reply(request)`; with `drip`, one byte every so many seconds."""

    url: str = ""
    status: int = 200
    reply: Callable[[dict], object] = lambda request: {}
    drip: float = 0.0
    location: str = ""
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def answers(self, text: str, steps: list[dict] | None = None) -> None:
        """From now on reply with this text and, if given, these token log-probabilities."""
        choice: dict = {"message": {"role": "assistant", "content": text}}
        if steps is not None:
            choice["logprobs"] = {"content": steps}
        self.reply = lambda request: {"choices": [choice]}


class _Handler(BaseHTTPRequestHandler):
    state: ChatServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.state.requests.append(request)
        self.state.headers.append(dict(self.headers))
        self.state.paths.append(self.path)
        reply = self.state.reply(request)
        body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        head = f"HTTP/1.0 {self.state.status} Whatever\r\nContent-Type: application/json\r\n"
        head += f"Location: {self.state.location}\r\n" if self.state.location else ""
        whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        try:
            if not self.state.drip:
                self.wfile.write(whole)
            for at in range(len(whole) if self.state.drip else 0):
                self.wfile.write(whole[at : at + 1])
                time.sleep(self.state.drip)
        except OSError:
            pass  # the client has hung up, which is what some tests are about

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    """A running server; its `url` is what a policy calls an endpoint."""
    state = ChatServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    yield state
    server.shutdown()
    server.server_close()
