"""Every surface on which a value could be found again: checkpoints, streams, tracers, logs, the ledger."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from langchain_core.callbacks import BaseCallbackHandler
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from guardrails_mw import Guard

EMAILS = "gates: {{pii: {{type: pii, entities: [EMAIL_ADDRESS]}}}}\nrecord: {{redact: [pii]}}\nstages: {{{0}}}"
STAGES = ("input", "tool_call", "tool_result", "output")


def hiding(*stages: str) -> str:
    """A policy that hides addresses at these stages, and in what it keeps."""
    return EMAILS.format(", ".join(f"{stage}: [pii]" for stage in stages))


class Tracer(BaseCallbackHandler):
    """Somebody else's tracer: hears everything there is to hear, and keeps it."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def hook(*args: object, **kwargs: object) -> None:
            self.heard.append((name, repr((args, kwargs))))

        return hook

    def of(self, canary: str) -> list[str]:
        """The hooks that heard it."""
        return sorted({hook for hook, what in self.heard if canary in what})


@contextmanager
def savers(kind: str, folder: Path) -> Iterator[InMemorySaver | SqliteSaver]:
    """A real checkpointer, in memory or in a file."""
    if kind == "memory":
        yield InMemorySaver()
        return
    with SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver:
        yield saver


def kept(saver: InMemorySaver | SqliteSaver) -> str:
    """All bytes that a checkpointer holds: checkpoints, blobs, pending writes, metadata."""
    if isinstance(saver, InMemorySaver):
        return repr((dict(saver.storage), dict(saver.writes), dict(saver.blobs)))
    tables = [name for (name,) in saver.conn.execute("select name from sqlite_master where type = 'table'")]
    return repr([saver.conn.execute(f"select * from {table}").fetchall() for table in tables])


def on_record(guard: Guard, folder: Path) -> str:
    """Everything in the guard's own store."""
    with sqlite3.connect(folder / "guard.db") as connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        return repr([connection.execute(f"select * from {table}").fetchall() for table in tables])


def events(graph: object, value: object, config: dict[str, object], version: str = "v2") -> str:
    """Everything that `astream_events` tells of a run."""

    async def listen() -> list[object]:
        return [event async for event in graph.astream_events(value, config, version=version)]

    return repr(asyncio.run(listen()))
