"""What leaves a process: requests, files, output, logs, warnings; and what values hold, down to the last byte."""

from __future__ import annotations

import gzip
import logging
import os
import sqlite3
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import TextIOBase
from pathlib import Path
from threading import Lock, Thread
from typing import ClassVar, TextIO

__all__ = ["Collector", "Leaving", "bytes_of", "file_bytes"]

_DEPTH = 40


def bytes_of(value: object) -> bytes:
    r"""Everything that a value holds, as bytes: keys and items, fields of objects, an exception's words and causes.

    >>> bytes_of({"a": ["b", b"\x00"], "c": ValueError("d")}).split(b"\n")[:4]
    [b'a', b'b', b'\x00', b'c']
    """
    found: list[bytes] = []
    _walk(value, found, set(), 0)
    return b"\n".join(found)


def _walk(value: object, found: list[bytes], seen: set[int], depth: int) -> None:
    if isinstance(value, str):
        found.append(value.encode("utf-8", "surrogatepass"))
        return
    if isinstance(value, bytes | bytearray | memoryview):
        found.append(bytes(value))
        return
    if value is None or isinstance(value, bool) or id(value) in seen or depth > _DEPTH:
        return
    if isinstance(value, int | float):
        whole = isinstance(value, float) and value.is_integer()
        found.append(str(int(value) if whole else value).encode())
        return
    seen.add(id(value))
    for inner in _inside(value):
        _walk(inner, found, seen, depth + 1)
    seen.discard(id(value))


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield item
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    else:
        if isinstance(value, BaseException):
            yield from (str(value), value.args, getattr(value, "__notes__", ()), value.__cause__)
            yield None if value.__suppress_context__ else value.__context__
        if not callable(value):
            yield repr(value)
            yield getattr(value, "__dict__", None)


def file_bytes(path: Path) -> bytes:
    """A file as it lies there; of a SQLite database also its rows, as some pages may be in no file yet."""
    data = path.read_bytes()
    if data.startswith(b"SQLite format 3\0"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            data += b"\n" + rows(connection)
        connection.close()
    return data


def rows(connection: sqlite3.Connection) -> bytes:
    """Every row of every table."""
    names = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
    return bytes_of([connection.execute(f'select * from "{name}"').fetchall() for name in names])  # noqa: S608


class Collector:
    """An HTTP server on this machine that takes everything and keeps it, decompressed.

    Attributes:
        url: where it listens.
        received: per request its line, headers and body.
    """

    def __init__(self) -> None:
        self.received: list[bytes] = []
        handler = type("Handler", (_Handler,), {"received": self.received})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    received: ClassVar[list[bytes]] = []

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        encoding = self.headers["Content-Encoding"]
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "deflate":
            body = zlib.decompress(body)
        self.received.append(f"{self.requestline}\n{self.headers}\n".encode() + body)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = _take  # noqa: N815 - the server's names

    def log_message(self, *_args: object) -> None:
        """Say nothing: standard error is one of the things that are watched."""


class _Tee(TextIOBase):
    """A stream that keeps what is written to it and passes it on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        self.kept.append(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


class Leaving:
    """Keeps what a process writes while it is entered: standard output and error, logs at DEBUG, warnings."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, bytes]] = []
        self._records: list[logging.LogRecord] = []
        self._lock, self._stack = Lock(), ExitStack()

    def __enter__(self) -> Leaving:
        for name in ("stdout", "stderr"):
            self._stack.enter_context(self._output(name))
        self._stack.enter_context(self._logs())
        self._stack.enter_context(self._warnings())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kept(self) -> list[tuple[str, bytes]]:
        """What was written, each piece with the name of what it was written to. Complete after the end."""
        logs = [(f"log {record.name}", _told(record)) for record in self._records]
        return [*self._kept, *logs]

    @contextmanager
    def _output(self, name: str) -> Iterator[None]:
        """Python's own stream, and below it the descriptor, which other processes and C code write to."""
        stream, descriptor = getattr(sys, name), {"stdout": 1, "stderr": 2}[name]
        tee = _Tee(stream)
        stream.flush()
        kept = os.dup(descriptor)
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), descriptor)
            setattr(sys, name, tee)
            try:
                yield
            finally:
                setattr(sys, name, stream)
                stream.flush()
                os.dup2(kept, descriptor)
                os.close(kept)
                file.seek(0)
                written = file.read()
                os.write(descriptor, written)
                self._kept.append((name, "".join(tee.kept).encode("utf-8", "surrogatepass") + b"\n" + written))

    @contextmanager
    def _logs(self) -> Iterator[None]:
        """Every record of every logger, whatever levels and filters would say."""
        made, root = logging.getLogRecordFactory(), logging.getLogger()
        loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
        levels = [(each, each.level, each.disabled) for each in loggers]
        disabled = root.manager.disable

        def keeping(*args: object, **kwargs: object) -> logging.LogRecord:
            record: logging.LogRecord = made(*args, **kwargs)
            self._records.append(record)
            return record

        logging.setLogRecordFactory(keeping)
        logging.disable(logging.NOTSET)
        for each in loggers:
            each.setLevel(logging.DEBUG)
            each.disabled = False
        try:
            yield
        finally:
            logging.setLogRecordFactory(made)
            logging.disable(disabled)
            for each, level, off in levels:
                each.setLevel(level)
                each.disabled = off

    @contextmanager
    def _warnings(self) -> Iterator[None]:
        shown = warnings.showwarning

        def keeping(message: Warning | str, *args: object, **kwargs: object) -> None:
            with self._lock:
                self._kept.append(("warning", bytes_of(message)))
            shown(message, *args, **kwargs)  # type: ignore[arg-type]

        warnings.showwarning = keeping
        try:
            yield
        finally:
            warnings.showwarning = shown


def _told(record: logging.LogRecord) -> bytes:
    """A log record as a formatter may write it: message, arguments, exception, extra fields, objects by their words."""
    words = [bytes_of({name: _worded(value) for name, value in record.__dict__.items()})]
    if record.exc_info and record.exc_info[0]:
        words.append("".join(traceback.format_exception(*record.exc_info)).encode("utf-8", "surrogatepass"))
    with suppress(TypeError, ValueError):  # a record with wrong arguments is nobody's leak
        words.append(record.getMessage().encode("utf-8", "surrogatepass"))
    return b"\n".join(words)


def _worded(value: object) -> object:
    """A value without the insides of objects, which no formatter reads: a future is not what it will give."""
    if isinstance(value, Mapping):
        return {str(key): _worded(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_worded(item) for item in value]
    return value if isinstance(value, str | bytes | bytearray | int) else [str(value), repr(value)]
