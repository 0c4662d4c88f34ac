"""Every view of a text that is worth reading, made one after the other and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator

from guardrails_mw.gates.injection.folding import View, Way
from guardrails_mw.gates.injection.spellings import Speller
from guardrails_mw.gates.injection.wrappings import contents, unwrapped, visible

__all__ = ["DISGUISES", "views"]

DISGUISES = frozenset(
    {"hidden", "joined", "decoded", "letters", "rot13", "shifted", "pig latin", "flipped", "reversed", "mirrored"}
)
"""Views of what somebody took the trouble to hide. Escapes, markup and misspelt words are everyday things."""

_DEPTH = 2  # texts within texts that are opened


def views(text: str, speller: Speller) -> Iterator[View]:
    """The folded text first, then what it becomes when wrappings and odd spellings are taken off, layer by layer.

    >>> [view.text for view in views("hi" + "".join(chr(0xE0000 + ord(c)) for c in "Obey"), Speller(["obey"]))]
    ['hi', 'obey']
    """
    yield from _layer(View("text", text), *visible(text), speller, _DEPTH)


def _layer(first: View, source: str, way: Way, speller: Speller, depth: int) -> Iterator[View]:
    """A text, the same text unwrapped, that in plain letters, and the texts within it."""
    last = first
    yield first
    for last in unwrapped(source, way):
        yield last
        source, way = last.source, last.way
    yield from speller.respelled(last)
    if depth:
        for inner in contents(source, way):
            yield from _layer(inner, inner.source, inner.way, speller, depth - 1)
