"""Numbering plans: of which regions a row of digits is a valid telephone number, in a few microseconds.

phonenumbers answers this for one region at a time, and spends fifty microseconds to say no. The rules here
are its own (parsing of ITU E.164 numbers, leniency "valid"), on its own tables, compiled once; a table of
opening digits and lengths leaves most regions out at once. Property tests hold the answers equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from guardrails_mw.gates.pii.plan import ABROAD, CODE, LEAST, LONGEST, PREFIX, Code, Plan, load, split

__all__ = ["USUAL", "Plans"]

_OPENING = 2
_SHORTEST = 4
"""Digits of the shortest numbers after a plus sign: a calling code of two and two more."""
USUAL = 20
"""Digits of most numbers at most. More take an international prefix, or the code of a carrier."""

Match = Callable[[str], "re.Match[str] | None"]


class Plans:
    """The plans of some regions, asked at once.

    Args:
        regions: two-letter codes.

    >>> plans = Plans(["US", "GB"])
    >>> plans.valid("2125550123", "2125550123"), plans.valid("442079460958", "442079460958", plus=True)
    (1, 3)
    """

    def __init__(self, regions: Sequence[str]) -> None:
        from phonenumbers import PhoneMetadata

        found = [PhoneMetadata.metadata_for_region(name, None) for name in regions]
        plans = [Plan(each) for each in found if each is not None]
        self.all = (1 << len(plans)) - 1
        self.shortest = min([_SHORTEST, *(plan.home.shortest for plan in plans)])
        self._alone, self._behind_trunk = _Table(plans, prefixed=True), _Table(plans, prefixed=False)
        self._openings: dict[tuple[str, int], _Opening] = {}
        for opening in map("{:02}".format, range(10**_OPENING)):
            for i, plan in enumerate(plans):
                prefixes = plan.prefixes(opening)
                for length in plan.dialled(prefixes) if prefixes else plan.home.lengths(opening):
                    known = self._openings.get((opening, length), _Opening(0, 0, ()))
                    self._openings[opening, length] = known.also(1 << i, plan, prefixes, opening, length)

        long = {opening[0] for opening, length in self._openings if length > USUAL}
        self.usual = "".join(digit for digit in "0123456789" if digit not in long)
        """Digits with which no number of more than `USUAL` begins, but one with a plus sign."""

    def load(self) -> None:
        """Load what the first numbers of each length and each country would load."""
        load()
        for table in (self._alone, self._behind_trunk):
            for length in range(_SHORTEST - 1, table.most + 1):
                table.regions("0" * length)

    def valid(self, digits: str, written: str, *, plus: bool = False, asked: int = -1) -> int:
        """A bit for each region in which the digits are a valid number.

        Args:
            digits: ASCII digits of the number.
            written: the same with those of an extension.
            plus: whether a plus sign stands before them.
            asked: bits of the regions in question.
        """
        if len(digits) > LONGEST:
            return 0
        if plus:
            if len(digits) <= LEAST:
                return 0
            parts = split(digits)
            if parts:
                return self.all & asked if parts[0].reached(parts[1]) else 0
        known = self._openings.get((digits[:_OPENING], len(digits)))
        if known is None:
            return 0
        local, trunk, dialled = known
        done = found = 0
        if not plus and digits == written:
            if local & asked:
                found = self._alone.regions(digits) & local
            if trunk & asked:
                found |= self._behind_trunk.regions(digits[1:]) & trunk
            done = local | trunk
        for bit, plan, prefixes in dialled:
            if bit & asked & ~done and _dialled(plan, digits, written, plus, prefixes):
                found |= bit
        return found & asked


class _Opening(NamedTuple):
    """What digits of one opening and length can be.

    Attributes:
        local: bits of the regions in which they begin with no prefix.
        trunk: bits of those in which they are valid where all but the first digit are.
        dialled: every region with its plan, and what the digits can begin with.
    """

    local: int
    trunk: int
    dialled: tuple[tuple[int, Plan, int], ...]

    def also(self, bit: int, plan: Plan, prefixes: int, opening: str, length: int) -> _Opening:
        """The same with one more region."""
        local = 0 if prefixes else bit
        trunk = bit if prefixes == PREFIX and plan.behind_trunk(opening, length) else 0
        return _Opening(self.local | local, self.trunk | trunk, (*self.dialled, (bit, plan, prefixes)))


class _Table:
    """In which regions digits are a valid number, by one expression for all regions and each length.

    Args:
        plans: those of the regions.
        prefixed: whether numbers that are always written with a national prefix are none without it.
    """

    def __init__(self, plans: Sequence[Plan], *, prefixed: bool) -> None:
        codes: dict[Code, int] = {}
        for i, plan in enumerate(plans):
            codes[plan.home] = codes.get(plan.home, 0) | 1 << i
        self._codes, self._prefixed = tuple((bits, code) for code, bits in codes.items()), prefixed
        self.most = max((code.longest for code in codes), default=0)
        self._asked: dict[int, Match] = {}
        self._known: dict[tuple[str | None, ...], tuple[int, tuple[tuple[int, Code], ...]]] = {}

    def regions(self, digits: str) -> int:
        """Bits of the regions."""
        ask = self._asked.get(len(digits))
        if ask is None:
            ask = self._asked[len(digits)] = re.compile(self._expression(len(digits))).match
        match = ask(digits)
        assert match is not None  # it matches everything
        groups = match.groups()
        found, unsure = self._known.get(groups) or self._learnt(groups)
        for bits, code in unsure:
            if code.local(digits, digits) if self._prefixed else code.valid(digits):
                found |= bits
        return found

    def _learnt(self, groups: tuple[str | None, ...]) -> tuple[int, tuple[tuple[int, Code], ...]]:
        """What the groups say: regions, and calling codes that are to be asked."""
        pairs = list(zip(self._codes, groups[::2], groups[1::2], strict=True))
        found = sum(bits for (bits, _), valid, _ in pairs if valid is not None)
        known = self._known[groups] = found, tuple(each for each, _, led in pairs if led is not None)
        return known

    def _expression(self, length: int) -> str:
        """For each calling code a group that is there for valid numbers, and one for those another plan leads to."""
        return "".join(
            f"(?:(?={code.numbers(length, prefixed=self._prefixed)})()|)(?:(?={code.leader})()|)"
            for _, code in self._codes
        )


def _dialled(plan: Plan, digits: str, written: str, plus: bool, prefixes: int) -> bool:
    """Whether the digits, dialled in the region, are a valid number; `plus` admits no plain national one."""
    abroad = plan.international.match(digits) if prefixes & ABROAD else None
    if abroad and digits[abroad.end() : abroad.end() + 1] != "0":
        rest = digits[abroad.end() :]
        parts = split(rest) if len(rest) > LEAST else None
        return parts is not None and parts[0].reached(parts[1])
    rest_or_none = plan.without_code(digits) if prefixes & CODE else None
    if rest_or_none is not None:
        return plan.home.reached(rest_or_none)
    if plus or len(digits) < LEAST:
        return False
    return plan.home.local(plan.national(digits) if prefixes & PREFIX else digits, written)
