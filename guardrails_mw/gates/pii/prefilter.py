r"""Which recognizers can find anything in a text at all, answered by one pass of RE2.

Every pattern is translated so that it matches at least where the original does: look-arounds are
dropped, back references widened, case ignored. "No hit" therefore proves that a recognizer is silent.
The proof needs `\d` and ``[a-z]`` to mean ASCII, so a text with other digits, or with one of the
letters that fold into ASCII ones, runs everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import re2

__all__ = ["Prefilter", "relaxed"]

_LOOK_AROUND = re.compile(r"\(\?<?[!=](?:\[[^\]]*\]|\\.|[^()\[\]]|\((?:[^()])*\))*\)")
_SPACE = re.compile(r"\[(?:[^\]\\]|\\.)*\]|\\s")
_SPACES = r"\s\x0b\x1c-\x1f\x{80}-\x{10ffff}"
_UNSAFE = re.compile(r"(?![0-9])\d|[\u0130\u0131\u017f\u212a]")
_CANARY = "\n\x00"
_MEMORY = _COMPILED = 64 << 20
_DENSE = 16
"""A text is dense when one character in so many is a digit."""


def relaxed(pattern: str) -> str:
    r"""An RE2 pattern that matches in every ASCII-safe text in which `pattern` does.

    Raises `ValueError` for constructs whose Unicode meaning RE2 does not share.

    >>> relaxed(r"(?<![A-Z])([0-9])x\1(?!\d)")
    '([0-9])x[:-]'
    """
    found = _LOOK_AROUND.sub("", pattern).replace(r"\1", "[:-]")
    found = _SPACE.sub(_widened, found)
    if re.search(r"\\[wWSDB2-9]|\(\?[<!=P]", found) or not found.isascii():
        raise ValueError("no superset known")
    return found


def _widened(match: re.Match[str]) -> str:
    """White space of RE2 with all that Unicode may call so."""
    found = match.group()
    return f"[{_SPACES}]" if found == r"\s" else found.replace(r"\s", _SPACES)


class Prefilter:
    """Tells which owners of patterns have to look at a text.

    One automaton for all patterns reads prose at memory speed. Among many digits it meets new combinations of
    half-matched patterns at every step, and making a state for each takes a thousand times as long; there every
    owner's patterns are tried by themselves.

    Args:
        patterns: RE2 patterns of each owner; an owner whose pattern RE2 refuses always runs.

    >>> sorted(Prefilter({"mail": ["@"], "card": ["[0-9]{4}"]}).hits("a@b"))
    ['mail']
    """

    def __init__(self, patterns: Mapping[str, Iterable[str]]) -> None:
        self._all = frozenset(patterns)
        owned = {owner: _supported(sources) for owner, sources in patterns.items()}
        self._always = frozenset(owner for owner, sources in owned.items() if sources is None)
        self._together = _Set((owner, source) for owner, sources in owned.items() for source in sources or ())
        self._apart = {owner: _Set((owner, each) for each in sources) for owner, sources in owned.items() if sources}

    def hits(self, text: str) -> frozenset[str] | set[str]:
        """The owners that may find something."""
        if not text.isascii() and _UNSAFE.search(text):
            return self._all
        if sum(map(text.count, "0123456789")) * _DENSE > len(text):
            searched = text + _CANARY
            return self._always | {owner for owner, each in self._apart.items() if each.hits(searched) != _NONE}
        hits = self._together.hits(text + _CANARY)
        if hits is None:
            return self._all
        return self._always | hits if self._always else hits


class _Set:
    """Patterns with owners, searched in one pass."""

    def __init__(self, patterns: Iterable[tuple[str, str]]) -> None:
        self._set = re2.Set.SearchSet(_options(_MEMORY))
        self._owners: list[str] = []
        for owner, source in patterns:
            self._set.Add(f"(?ims){source}")
            self._owners.append(owner)
        self._canary = len(self._owners)
        self._set.Add(r"\x00")
        try:
            self._set.Compile()
        except re2.error:  # too large for its memory: nothing can be proven
            self._canary = -1

    def hits(self, text: str) -> frozenset[str] | None:
        """Owners of a pattern that matches in a text that ends in the canary; None when nothing is proven."""
        indices = self._set.Match(text) if self._canary >= 0 else ()
        if not indices or self._canary not in indices:  # RE2 ran out of memory
            return None
        return frozenset(self._owners[index] for index in indices if index != self._canary) if indices[1:] else _NONE


def _options(memory: int) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory
    return options


def _supported(sources: Iterable[str]) -> list[str] | None:
    """The patterns, or None when RE2 refuses one: its owner has to look at every text."""
    found = list(sources)
    try:
        for source in found:
            re2.compile(f"(?ims){source}", _options(_COMPILED))
    except re2.error:
        return None
    return found


_NONE: frozenset[str] = frozenset()
