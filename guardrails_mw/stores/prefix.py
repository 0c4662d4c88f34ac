"""Ranges of texts that start alike, where texts are sorted by code point."""

from __future__ import annotations

__all__ = ["beyond"]


def beyond(prefix: str) -> str | None:
    """The smallest text after all that start with a prefix; None if there is none.

    >>> beyond("run:"), beyond("")
    ('run;', None)
    """
    while prefix:
        code, prefix = ord(prefix[-1]), prefix[:-1]
        if code < 0x10FFFF:
            return prefix + chr(0xE000 if code == 0xD7FF else code + 1)  # surrogates are no text
    return None
