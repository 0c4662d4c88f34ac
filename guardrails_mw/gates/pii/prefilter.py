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
_MEMORY = 64 << 20


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

    Args:
        patterns: RE2 patterns of each owner; an owner whose pattern RE2 refuses always runs.

    >>> sorted(Prefilter({"mail": ["@"], "card": ["[0-9]{4}"]}).hits("a@b"))
    ['mail']
    """

    def __init__(self, patterns: Mapping[str, Iterable[str]]) -> None:
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _MEMORY
        self._set = re2.Set.SearchSet(options)
        self._all = frozenset(patterns)
        self._always: set[str] = set()
        self._owners: list[str] = []
        for owner, sources in patterns.items():
            for source in sources:
                self._add(owner, source)
        self._canary = len(self._owners)
        self._set.Add(r"\x00")
        try:
            self._set.Compile()
        except re2.error:  # too large for its memory: nothing can be proven
            self._canary = -1

    def hits(self, text: str) -> frozenset[str] | set[str]:
        """The owners that may find something."""
        if not text.isascii() and _UNSAFE.search(text):
            return self._all
        if self._canary < 0:
            return self._all
        indices = self._set.Match(text + _CANARY)
        if not indices or self._canary not in indices:  # RE2 ran out of memory: nothing is proven
            return self._all
        if len(indices) == 1 and not self._always:
            return _NONE
        return self._always | {self._owners[index] for index in indices if index != self._canary}

    def _add(self, owner: str, source: str) -> None:
        try:
            self._set.Add(f"(?ims){source}")
        except re2.error:
            self._always.add(owner)
        else:
            self._owners.append(owner)


_NONE: frozenset[str] = frozenset()
