"""A model server on loopback that speaks the OpenAI protocol and answers from a script.

It stands where a provider stands, so that everything on this side of the wire is the real thing: the client,
the agent, streaming, usage. It plays two models. One reads its answers from the conversation's script. The
other, `JUDGE`, answers as Llama Guard answers, but only looks for a few words: it shows the protocol, it
judges nothing.
"""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TypeAlias, cast
from uuid import uuid4

from guardrails_mw.demo.conversations import Reply

__all__ = ["HEADER", "JUDGE", "MODEL", "ModelServer"]

HEADER = "X-Conversation"
"""The request header that says which script to read from."""
MODEL = "scripted-model"
JUDGE = "meta-llama/scripted-guard"

_UNSAFE = {"pipe bomb": "S9", "stalk my ex": "S1"}
"""What the scripted judge takes for harmful, and under which category."""

Body: TypeAlias = dict[str, object]


class ModelServer:
    """Serves scripts from a free port while the context is open.

    Args:
        scripts: the replies of every conversation, by its id.
    """

    def __init__(self, scripts: Mapping[str, Sequence[Reply]]) -> None:
        self._scripts, self._lock = scripts, threading.Lock()
        self._position: dict[str, int] = defaultdict(int)
        self._seen: dict[str, list[str]] = defaultdict(list)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._http.daemon_threads = True
        self._http.owner = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Base address for clients."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def seen(self, conversation: str) -> str:
        """Everything that was sent to the scripted model in a conversation."""
        return "\n".join(self._seen[conversation])

    def reply(self, conversation: str, messages: Sequence[Body]) -> Reply:
        """The next reply of a script. Raises `LookupError` when there is none."""
        with self._lock:
            position = self._position[conversation]
            self._position[conversation] += 1
            self._seen[conversation] += [_text(message) for message in messages]
        reply = self._scripts[conversation][position]
        last = _text(messages[-1]) if messages else ""
        return reply.model_copy(update={"say": reply.say.replace("{last}", last)})

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so that a stream ends with its connection."""

    def do_POST(self) -> None:
        """Answer a chat completion."""
        owner: ModelServer = self.server.owner  # type: ignore[attr-defined]
        try:
            body: Body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            messages = cast("list[Body]", body["messages"])
            if self.path != "/v1/chat/completions":
                raise LookupError
            if body.get("model") == JUDGE:
                reply = Reply(say=_judged(_text(messages[-1])))
            else:
                reply = owner.reply(self.headers.get(HEADER, ""), messages)
        except (ValueError, KeyError, IndexError, LookupError, TypeError):
            self._send({"error": {"message": "nothing in the script for this request"}}, status=400)
            return
        usage = _usage(messages, reply)
        if body.get("stream"):
            options = cast("Body", body.get("stream_options") or {})
            self._stream(body, reply, usage if options.get("include_usage") else None)
        else:
            choice = {"index": 0, "message": _message(reply), "finish_reason": _finish(reply)}
            self._send({**_envelope(body, "chat.completion"), "choices": [choice], "usage": usage})

    def _send(self, body: Body, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: Body, reply: Reply, usage: Body | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        base = _envelope(body, "chat.completion.chunk")
        for delta, finish in _deltas(reply):
            self._chunk({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        if usage is not None:
            self._chunk({**base, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _chunk(self, body: Body) -> None:
        self.wfile.write(f"data: {json.dumps(body)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


def _envelope(body: Body, kind: str) -> Body:
    return {"id": "chatcmpl-demo", "object": kind, "created": 0, "model": body.get("model")}


def _message(reply: Reply) -> Body:
    message: Body = {"role": "assistant", "content": reply.say or None}
    if reply.call:
        message["tool_calls"] = [_call(reply)]
    return message


def _call(reply: Reply) -> Body:
    function = {"name": reply.call, "arguments": json.dumps(reply.args)}
    return {"id": f"call_{uuid4().hex[:12]}", "type": "function", "function": function}


def _deltas(reply: Reply) -> Iterator[tuple[Body, str | None]]:
    """The pieces of a streamed answer, each with its finish reason."""
    yield {"role": "assistant", "content": ""}, None
    for piece in re.findall(r"\S+\s*|\s+", reply.say):
        yield {"content": piece}, None
    if reply.call:
        call = _call(reply)
        function = cast("dict[str, str]", call["function"])
        yield {"tool_calls": [{"index": 0, **call, "function": {"name": function["name"], "arguments": ""}}]}, None
        for start in range(0, len(function["arguments"]), 16):
            piece = function["arguments"][start : start + 16]
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, None
    yield {}, _finish(reply)


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.call else "stop"


def _usage(messages: Sequence[Body], reply: Reply) -> Body:
    """Tokens, counted roughly: four characters each."""
    sent = sum(len(_text(message)) for message in messages) // 4 + 1
    made = (len(reply.say) + len(json.dumps(reply.args))) // 4 + 1
    return {"prompt_tokens": sent, "completion_tokens": made, "total_tokens": sent + made}


def _judged(text: str) -> str:
    found = next((code for words, code in _UNSAFE.items() if words in text.lower()), "")
    return f"unsafe\n{found}" if found else "safe"


def _text(message: Body) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content)
