"""How a found value is hidden, so that what remains holds nothing to find."""

from __future__ import annotations

import hmac
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from guardrails_mw.gates.cutting import apart, until_apart
from guardrails_mw.gates.pii.context import PLACEHOLDER
from guardrails_mw.gates.pii.escapes import fitted, tokens
from guardrails_mw.gates.pii.matching import Match

__all__ = ["Hidden", "Replacer", "Style", "apply", "hidden"]

Style = Literal["remove", "mask", "hash", "token"]
Find = Callable[[str], list[Match]]
_TAIL = 4
_ROUNDS = 8
_PATIENCE = 2
"""Searches of a result after which what still comes out is hidden with its whole row of digits or its word."""


@dataclass(frozen=True, slots=True)
class Replacer:
    """Writes what stands in a value's place.

    Args:
        style: ``remove`` names the entity, ``hash`` adds a keyed fingerprint by which equal values can be
            recognised, ``mask`` keeps the shape and, of eight or more letters and digits, the last four. What
            ``token`` writes is a label that the vault puts a token in place of.
        secret: key of the fingerprint (HMAC-SHA256 of the value in lower case without separators, 32 bits).

    >>> Replacer("mask")("US_SSN", "219-09-9999"), Replacer("remove")("US_SSN", "219-09-9999")
    ('***-**-9999', '[US_SSN]')
    """

    style: Style
    secret: bytes = b""

    def __call__(self, entity: str, value: str, *, whole: bool = False) -> str:
        """The replacement of one value; `whole` leaves no tail."""
        if self.style in ("remove", "token"):
            return f"[{entity}]"
        if self.style == "hash":
            plain = "".join(filter(str.isalnum, value.casefold()))
            return f"[{entity}:{hmac.new(self.secret, plain.encode(), 'sha256').hexdigest()[:8]}]"
        if "\\" in value:  # half an escape would not be JSON any more
            return f"[{entity}]"
        count = sum(map(str.isalnum, value))
        hide = count if whole or count < 2 * _TAIL else count - _TAIL
        masked = []
        for character in value:
            masked.append("*" if character.isalnum() and hide > 0 else character)
            hide -= character.isalnum()
        return "".join(masked)


class Hidden(NamedTuple):
    """A match and what stands in its place."""

    match: Match
    text: str


def apply(text: str, replaced: Sequence[Hidden]) -> str:
    """The text with matches (sorted, apart) replaced."""
    pieces, end = [], 0
    for match, new in replaced:
        pieces += [text[end : match.start], new]
        end = match.end
    return "".join([*pieces, text[end:]])


def hidden(text: str, find: Find, replace: Replacer) -> list[Hidden]:
    """Disjoint replacements after which nothing is left to find.

    Hiding one value can bring out another: a neighbour gets a word boundary, comes nearer to a word that
    makes it likelier, or the tail of a mask looks like a value itself. So the result is searched again
    until it is clean.
    """
    matches = _merged(_outside(text, find(text)))
    if not matches:
        return []
    among = tokens(text)
    matches = _merged(fitted(matches, among))
    stubborn: set[Match] = set()
    replaced: list[Hidden] = []
    quoted = {(token.start, token.end) for token in among if token.number}
    for number in range(_ROUNDS):
        replaced = [Hidden(m, replace(m.entity, text[m.start : m.end], whole=m in stubborn)) for m in matches]
        replaced = [h._replace(text=f'"{h.text}"') if h.match[:2] in quoted else h for h in replaced]
        result = apply(text, replaced)
        fresh = _originals(replaced, _outside(result, find(result)))
        if not fresh:
            break
        if number >= _PATIENCE:
            fresh = _rows(text, fresh)
        before, matches = set(matches), _merged(fitted([*matches, *fresh], among))
        starts = [m.start for m in matches]
        around = {matches[max(0, bisect_right(starts, f.start) - 1)] for f in fresh}
        stubborn |= around & before  # place by place: what happens elsewhere in the text has no say
    return replaced


def _rows(text: str, matches: Sequence[Match]) -> list[Match]:
    """The matches with the numbers around them and what is joined to those.

    A row ends where a stream may be cut, so what one place brings out is never hidden across such a cut.
    """
    rows: list[Match] = []
    for match in sorted(matches):
        if rows and match.end <= rows[-1].end:
            continue
        joined = text[match.end : until_apart(text, match.end)].rstrip()
        rows.append(match._replace(start=apart(text, match.start), end=match.end + len(joined)))
    return rows


def _outside(text: str, matches: Sequence[Match]) -> list[Match]:
    """The matches that are not the inside of a placeholder, where only eight hex digits can stand."""
    return [match for match in matches if not _in_placeholder(text, match)]


def _in_placeholder(text: str, match: Match) -> bool:
    begin = text.rfind("[", max(0, match.start - 64), match.start)
    found = PLACEHOLDER.match(text, begin) if begin >= 0 else None
    return found is not None and match.end <= found.end()


def _originals(replaced: Sequence[Hidden], matches: Sequence[Match]) -> list[Match]:
    """Matches in the replaced text, where they lie in the original; widened over what they touch."""
    begins, finishes, shifts = [], [], [0]
    for old, new in replaced:
        begins.append(old.start + shifts[-1])
        finishes.append(begins[-1] + len(new))
        shifts.append(finishes[-1] - old.end)
    found = []
    for match in matches:
        first, last = bisect_right(finishes, match.start), bisect_left(finishes, match.end)
        inside = first < len(begins) and begins[first] <= match.start
        start = replaced[first].match.start if inside else match.start - shifts[first]
        inside = last < len(begins) and begins[last] < match.end
        end = replaced[last].match.end if inside else match.end - shifts[last]
        found.append(match._replace(start=start, end=end))
    return found


def _merged(matches: Sequence[Match]) -> list[Match]:
    """Overlapping matches as one, under the name of the surest, then longest."""
    result: list[Match] = []
    for match in sorted(matches):
        last = result[-1] if result else None
        if last is None or match.start >= last.end:
            result.append(match)
            continue
        best = max(last, match, key=lambda m: (m.score, m.end - m.start, m.entity))
        result[-1] = best._replace(start=last.start, end=max(last.end, match.end))
    return result
