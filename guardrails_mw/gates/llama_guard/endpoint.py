"""A Llama Guard model behind an OpenAI-compatible server, such as vLLM.

The server applies the model's chat template. The whole exchange, not every single read, is bounded by the
gate's deadline, and the reply by `MAX_REPLY`. Redirects are not followed and proxies are not used: the
text to be judged goes to the address in the policy and nowhere else.
"""

from __future__ import annotations

import io
import json
import math
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlsplit

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.gate import DEADLINE
from guardrails_mw.gates.llama_guard.answer import MAX_ANSWER_TOKENS, Answer, parse, probability, side
from guardrails_mw.gates.llama_guard.conversation import Turn
from guardrails_mw.verdict import Usage

__all__ = ["MAX_REPLY", "Endpoint"]

MAX_REPLY = 256 * 1024
"""Bytes of a reply that are read; twenty tokens need far less."""
_MOST_TOKENS = 10**9
PATIENCE = 30.0
"""Seconds for one exchange where the gate has no deadline."""


class Endpoint:
    """Judges conversations over HTTP. Holds no connection, so it is safe to use from several threads.

    Args:
        url: base address, ending before ``/chat/completions``.
        model: the name that the server knows the model by.
        api_key: sent as a bearer token.

    Raises:
        PolicyError: the address is not an http or https address.
    """

    def __init__(self, url: str, model: str, api_key: str = "") -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise PolicyError("the endpoint is not an address", field="endpoint") from None
        if parts.scheme not in ("http", "https") or not self._host or parts.username:
            raise PolicyError("an endpoint begins with http:// or https:// and holds no password", field="endpoint")
        self._secure = parts.scheme == "https"
        self._path = parts.path.rstrip("/") + "/chat/completions"
        self._model = model
        self._headers = {"Content-Type": "application/json", "Connection": "close"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def warm(self) -> None:
        """Nothing to load here."""

    def close(self) -> None:
        """Nothing is held."""

    @property
    def charged(self) -> bool:
        """Whether somebody charges for it."""
        return True

    def judge(self, turns: list[Turn]) -> Answer:
        """Judge the last turn.

        Raises:
            GateError: ``deadline``, ``llama_guard.unreachable``, ``llama_guard.http`` (a status other than
                200), ``llama_guard.too_large`` or ``llama_guard.unparsable``.
        """
        request = {
            "model": self._model,
            "messages": turns,
            "max_tokens": MAX_ANSWER_TOKENS,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": 5,
        }
        until = min(DEADLINE.get(), time.perf_counter() + PATIENCE)
        try:
            return read_reply(self._exchange(json.dumps(request).encode(), until))
        except TimeoutError:
            raise GateError("deadline") from None
        except (OSError, HTTPException):
            raise GateError("llama_guard.unreachable") from None

    def _exchange(self, body: bytes, until: float) -> bytes:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=_left(until))
        connection.connect()
        with connection.sock as sock:
            # http.client reads through `makefile` alone; a bound on each read would let a slow drip go on for ever
            connection.sock = _Timed(sock, until)
            connection.request("POST", self._path, body, self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise GateError("llama_guard.http")
            return _bounded(response)


def _left(until: float) -> float:
    left = until - time.perf_counter()
    if left <= 0:
        raise TimeoutError
    return left


def _bounded(response: HTTPResponse) -> bytes:
    body = response.read(MAX_REPLY + 1)
    if len(body) > MAX_REPLY:
        raise GateError("llama_guard.too_large")
    return body


class _Timed:
    """The little of a socket that `http.client` uses, with one deadline for all of it."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._until))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_TimedReader(self._sock, self._until))

    def close(self) -> None:
        """http.client closes before the body is read; the socket is closed by who opened it."""


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: socket.socket, until: float) -> None:
        super().__init__()
        self._sock, self._until = sock, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what BufferedReader passes
        self._sock.settimeout(_left(self._until))
        return self._sock.recv_into(buffer)


def read_reply(body: bytes) -> Answer:
    r"""The answer in a chat completion: from log-probabilities where the server gives them, else 1 or 0.

    Raises:
        GateError: ``llama_guard.unparsable``, also when the text and the log-probabilities disagree.

    >>> read_reply(b'{"choices": [{"message": {"content": "unsafe\\nS2"}}]}')
    Answer(score=1.0, categories=('S2',))
    """
    try:
        reply = json.loads(body)
        choice, used = reply["choices"][0], _used(reply.get("usage"))
        text = choice["message"]["content"]
        steps = (choice.get("logprobs") or {}).get("content") or []
        unsafe, categories = parse(text if isinstance(text, str) else "")
        if not steps:
            return Answer(float(unsafe), categories, used)
        step = next(step for step in steps if step["token"].strip())
        if side(step["token"]) != ("unsafe" if unsafe else "safe"):
            raise GateError("llama_guard.unparsable")
        return Answer(probability(_candidates(step)), categories, used)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration, RecursionError):
        raise GateError("llama_guard.unparsable") from None


def _used(told: object) -> Usage | None:
    """The figures of a usage, if a server tells some that can be."""
    if not isinstance(told, dict):
        return None
    asked, said = told.get("prompt_tokens"), told.get("completion_tokens")
    if type(asked) is not int or type(said) is not int or not (0 < asked < _MOST_TOKENS and 0 <= said < _MOST_TOKENS):
        return None
    return Usage(asked, said)


def _candidates(step: dict[str, object]) -> list[tuple[str, float]]:
    """The chosen token and its rivals, each once, with the word it begins."""
    rivals = step.get("top_logprobs") or []
    if not isinstance(rivals, list):
        raise TypeError
    values = {str(item["token"]): float(item["logprob"]) for item in [*rivals, step]}
    if not all(math.isfinite(value) and value <= 0.01 for value in values.values()):
        raise ValueError
    return [(side(token), value) for token, value in values.items()]
