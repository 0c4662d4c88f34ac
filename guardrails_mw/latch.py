"""Runs that a raised block has ended: whatever catches the exception, such a run does not go on.

Retries, fallbacks and error handlers treat a block like any other failure and try again. What they try stands in
the same run, and whoever enters a run asks here first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

__all__ = ["Block", "Latch"]

Block = tuple[str, str, str, str]
"""A block as codes: decision, stage, gate and reason."""

_MOST = 65_536
"""Runs that are remembered."""


class Latch:
    """The first block of every run that one has ended.

    >>> latch = Latch()
    >>> latch.end("run-1", ("d-1", "input", "injection", "override"))
    >>> latch.ended("run-1"), latch.ended("run-2")
    (('d-1', 'input', 'injection', 'override'), None)
    """

    def __init__(self) -> None:
        self._ended: OrderedDict[str, Block] = OrderedDict()
        self._lock = threading.Lock()

    def end(self, run: str, block: Block) -> None:
        """A block was raised in this run."""
        with self._lock:
            self._ended.setdefault(run, block)
            while len(self._ended) > _MOST:
                self._ended.popitem(last=False)

    def ended(self, run: str) -> Block | None:
        """The block that ended a run; None where it may go on."""
        return self._ended.get(run)
