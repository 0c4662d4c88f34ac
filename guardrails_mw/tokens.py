"""An estimate of tokens, where no provider has told a figure."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["tokens"]


def tokens(texts: Sequence[str]) -> int:
    """An estimate of tokens: four ASCII characters or one other character each, a few per text.

    Overestimates on purpose: it is what a budget reserves before the real figure is known.

    >>> tokens(["four char words", "漢字"])
    14
    """
    total = 0
    for text in texts:
        ascii_chars = len(text) if text.isascii() else sum(1 for char in text if char < "\x80")
        total += (ascii_chars + 3) // 4 + (len(text) - ascii_chars) + 4
    return total
