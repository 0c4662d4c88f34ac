"""Files that a policy is made of: reading one takes note of it, so that it is known when it has changed.

Everything that a policy names and that is read while its guard is built is read by `read_text`: the policy
itself, rule files, schemas. Whoever wants to know which files there were asks with `noting`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path

__all__ = ["MISSING", "Files", "digest", "noting", "read_text"]

Files = dict[Path, str]
"""Absolute paths, and the digest of what was read there."""

MISSING = ""
"""The digest of a file that cannot be read."""

_OWN = Path(__file__).parent
"""What lies here belongs to the package, not to a policy."""

_NOTES: ContextVar[Files | None] = ContextVar("guardrails_mw_files", default=None)


@contextmanager
def noting() -> Iterator[Files]:
    """What is read by `read_text` inside, also what could not be read; an outer `noting` gets none of it.

    >>> with noting() as files:
    ...     read_text(Path("/dev/null"))
    ''
    >>> [path.name for path in files]
    ['null']
    """
    files: Files = {}
    token = _NOTES.set(files)
    try:
        yield files
    finally:
        _NOTES.reset(token)


def read_text(path: Path) -> str:
    """A file's text, UTF-8. Raises `OSError` or `UnicodeDecodeError`."""
    notes, place, raw = _NOTES.get(), path.absolute(), None
    try:
        raw = path.read_bytes()
    finally:
        if notes is not None and _OWN not in place.parents:
            notes[place] = MISSING if raw is None else sha256(raw).hexdigest()
    return raw.decode("utf-8")


def digest(path: Path) -> str:
    """What `noting` would note for a file now."""
    with suppress(OSError):
        return sha256(path.read_bytes()).hexdigest()
    return MISSING
