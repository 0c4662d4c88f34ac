"""Which version of its own format a store holds, next to the newest that this package knows."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Schema"]


@dataclass(frozen=True, slots=True)
class Schema:
    """What was found in a store, without changing it.

    Attributes:
        found: version of what is there; 0 where nothing is there yet.
        newest: the version that this package writes.
        notes: what the server's settings mean for what is kept, one sentence each.

    >>> Schema(1, 2).state
    'older'
    """

    found: int
    newest: int
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """``absent``, ``older``, ``current`` or ``newer``."""
        if self.found == self.newest:
            return "current"
        if self.found > self.newest:
            return "newer"
        return "older" if self.found else "absent"
