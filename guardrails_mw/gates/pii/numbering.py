"""Numbering plans: of which regions a row of digits is a valid telephone number, in a few microseconds.

phonenumbers answers this for one region at a time, and spends fifty microseconds to say no. The rules here
are its own (parsing of ITU E.164 numbers, leniency "valid"), on its own tables, compiled once; a table of
opening digits and lengths leaves most regions out at once. Property tests hold the answers equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from phonenumbers import NumberFormat, PhoneMetadata

__all__ = ["Plans"]

_LEAST, _MOST = 2, 17
"""Digits of a national number."""
_LONGEST = 48
"""Digits of the longest prefixes (8 international, 3 country, 15 national) and number, with room."""
_OPENING = 2
_ABROAD, _CODE, _PREFIX = 1, 2, 4
"""What a number can begin with: an international prefix, its own calling code, a national prefix."""
_SHORTEST = 4
"""Digits of the shortest numbers after a plus sign: a calling code of two and two more."""
_TYPES = (
    "premium_rate", "toll_free", "shared_cost", "voip", "personal_number", "pager", "uan", "voicemail", "fixed_line",
)  # fmt: skip

Match = Callable[[str], "re.Match[str] | None"]


class _Plan:
    """The numbering plan of one region (or of a calling code without one).

    Attributes:
        code: digits of the calling code.
        leading: expression that the plan's numbers begin with, where the code is shared; None where that is no help.
        possible: how many digits its numbers can have.
    """

    def __init__(self, metadata: PhoneMetadata) -> None:
        self.code = str(metadata.country_code)
        leading = metadata.leading_digits
        self.leading = leading  # it has no groups that remember
        self.international = re.compile(metadata.international_prefix or "(?!)")
        self.prefix = re.compile(metadata.national_prefix_for_parsing or "(?!)")
        self._transform = metadata.national_prefix_transform_rule
        general = metadata.general_desc
        assert general is not None  # every plan has one
        self._form = general.national_number_pattern or "(?!)"
        self._general = re.compile(self._form).fullmatch
        self.possible, self._local = set(general.possible_length), set(general.possible_length_local_only)
        self._longest = max(self.possible, default=0)
        types = [getattr(metadata, name) for name in _TYPES]
        if not metadata.same_mobile_and_fixed_line_pattern:
            types.append(metadata.mobile)
        self._types = [each for each in types if each is not None and each.national_number_pattern]
        self._kinds: dict[int, Match] = {}
        self._formats = [_format(each) for each in metadata.number_format]

    @cached_property
    def home(self) -> _Code:
        """The calling code that the plan is part of."""
        return _code(int(self.code))

    def issued(self, number: str) -> bool:
        """Whether it is a number of any type."""
        if len(number) not in self.possible or not self._general(number):
            return False
        kinds = self._kinds.get(len(number))
        if kinds is None:
            kinds = self._kinds[len(number)] = re.compile(self._patterns(len(number))).fullmatch
        return bool(kinds(number))

    def _patterns(self, length: int) -> str:
        """An expression for the numbers of every type that has numbers of this length."""
        types = [each for each in self._types if not each.possible_length or length in each.possible_length]
        return "|".join(f"(?:{each.national_number_pattern})" for each in types) or "(?!)"

    def national(self, number: str) -> str:
        """The number without national prefix, where that leaves one of possible length."""
        short = self._stripped(number)[0]
        possible = len(short) in self.possible or len(short) > self._longest
        return short if possible and len(short) not in self._local else number

    def _stripped(self, number: str) -> tuple[str, bool]:
        """The number without national prefix and carrier code, and whether it had one."""
        found = self.prefix.match(number) if number else None
        if not found:
            return number, False
        rest = number[found.end() :]
        if self._transform and found.group(found.re.groups) is not None:
            rest = self.prefix.sub(self._transform, number, count=1)
        if self._general(number) and not self._general(rest):
            return number, False
        return rest, True

    def without_code(self, number: str) -> str | None:
        """What follows the region's own calling code, where reading it so makes the better number."""
        if not number.startswith(self.code):
            return None
        rest = self._stripped(number[len(self.code) :])[0]
        better = not self._general(number) and self._general(rest)
        too_long = len(number) > self._longest and len(number) not in self._local
        return rest if better or too_long else None

    def lacks_prefix(self, number: str, written: str) -> bool:
        """Whether a national number is always written with a prefix, and here it is not."""
        for leading, pattern, needed in self._formats:
            if (leading is None or leading(number)) and pattern(number):
                return needed and not self._stripped(written)[1]
        return False

    def prefixes(self, opening: str) -> int:
        """Which of `_ABROAD`, `_CODE` and `_PREFIX` a number that opens so can begin with."""
        kinds = ((_ABROAD, self.international.pattern), (_CODE, self.code), (_PREFIX, self.prefix.pattern))
        return sum(kind for kind, pattern in kinds if regex.match(pattern, opening, partial=True))

    def lengths(self, opening: str) -> set[int]:
        """How many digits numbers have that begin so and fit the plan's general form."""
        return self.possible if regex.fullmatch(self._form, opening, partial=True) else set()


def _format(each: NumberFormat) -> tuple[Match | None, Match, bool]:
    assert each.pattern is not None  # every format has one
    leading, rule = each.leading_digits_pattern, each.national_prefix_formatting_rule
    optional = each.national_prefix_optional_when_formatting
    needed = bool(rule) and not optional and not re.fullmatch(r"\(?\\1\)?", rule or "")
    match = re.compile(leading[-1]).match if leading else None
    return match, re.compile(each.pattern).fullmatch, needed


class _Code:
    """A country calling code and the regions that share it."""

    def __init__(self, code: int) -> None:
        from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

        names = COUNTRY_CODE_TO_REGION_CODE[code]
        found = [PhoneMetadata.metadata_for_region_or_calling_code(code, name) for name in names]
        self._plans = [_Plan(each) for each in found if each is not None]
        self.main = self._plans[0]
        led = [i for i, plan in enumerate(self._plans) if plan.leading is not None]
        shared = [i for i, plan in enumerate(self._plans) if plan.leading is None]
        self._leader = re.compile("|".join(f"({self._plans[i].leading})" for i in led) or "(?!)").match
        self._asked = [(self._plans[i], [self._plans[k] for k in shared if k < i]) for i in led]
        self._shared = [self._plans[i] for i in shared]

    def valid(self, number: str) -> bool:
        """Whether it is a number of the first plan that its opening digits lead to, or of one before without such."""
        if not _LEAST <= len(number) <= _MOST:
            return False
        if len(self._plans) == 1:
            return self.main.issued(number)
        led = self._leader(number)
        if led is None or led.lastindex is None:
            return any(plan.issued(number) for plan in self._shared)
        asked, before = self._asked[led.lastindex - 1]
        return any(plan.issued(number) for plan in before) or asked.issued(number)

    def lengths(self, opening: str) -> set[int]:
        """How many digits the valid numbers can have that begin so."""
        return set().union(*(plan.lengths(opening) for plan in self._plans))

    @property
    def shortest(self) -> int:
        """Digits of the shortest valid numbers."""
        return min((length for plan in self._plans for length in plan.possible), default=_LEAST)

    def reached(self, number: str) -> bool:
        """Whether what follows the calling code is a valid number."""
        return len(number) >= _LEAST and self.valid(self.main.national(number))


_code = cache(_Code)


def _split(number: str) -> tuple[_Code, str] | None:
    """The calling code that a number opens with, and the rest."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    if number[:1] == "0":
        return None
    for end in range(1, min(len(number), 3) + 1):
        if int(number[:end]) in COUNTRY_CODE_TO_REGION_CODE:
            return _code(int(number[:end])), number[end:]
    return None


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
        plans = [_Plan(each) for each in found if each is not None]
        self.all = (1 << len(plans)) - 1
        self.shortest = min([_SHORTEST, *(plan.home.shortest for plan in plans)])
        self._openings: dict[tuple[str, int], list[tuple[int, _Plan, int]]] = {}
        for opening in map("{:02}".format, range(100)):
            for i, plan in enumerate(plans):
                prefixes = plan.prefixes(opening)
                for length in range(_LONGEST + 1) if prefixes else plan.home.lengths(opening):
                    self._add(1 << i, plan, prefixes, self._openings.setdefault((opening, length), []))

    @staticmethod
    def _add(bit: int, plan: _Plan, prefixes: int, among: list[tuple[int, _Plan, int]]) -> None:
        """Regions with one calling code are asked once, where no prefix can open the number."""
        for i, (bits, known, others) in enumerate(among):
            if not prefixes and not others and known.home is plan.home:
                among[i] = bits | bit, known, 0
                return
        among.append((bit, plan, prefixes))

    def valid(self, digits: str, written: str, *, plus: bool = False, asked: int = -1) -> int:
        """A bit for each region in which the digits are a valid number.

        Args:
            digits: ASCII digits of the number.
            written: the same with those of an extension.
            plus: whether a plus sign stands before them.
            asked: bits of the regions in question.
        """
        if len(digits) > _LONGEST:
            return 0
        if plus:
            if len(digits) <= _LEAST:
                return 0
            parts = _split(digits)
            if parts:
                return self.all & asked if parts[0].reached(parts[1]) else 0
        found = 0
        for bit, plan, prefixes in self._openings.get((digits[:_OPENING], len(digits)), ()):
            if not bit & asked:
                continue
            if prefixes:
                valid = _dialled(plan, digits, written, plus, prefixes)
            else:
                valid = not plus and _local(plan, digits, written)
            if valid:
                found |= bit & asked
        return found


def _local(plan: _Plan, number: str, written: str) -> bool:
    """Whether a number that begins with no prefix is valid as it stands."""
    return plan.home.valid(number) and not plan.home.main.lacks_prefix(number, written)


def _dialled(plan: _Plan, digits: str, written: str, plus: bool, prefixes: int) -> bool:
    """Whether the digits, dialled in the region, are a valid number; `plus` admits no plain national one."""
    abroad = plan.international.match(digits) if prefixes & _ABROAD else None
    if abroad and digits[abroad.end() : abroad.end() + 1] != "0":
        rest = digits[abroad.end() :]
        parts = _split(rest) if len(rest) > _LEAST else None
        return parts is not None and parts[0].reached(parts[1])
    rest_or_none = plan.without_code(digits) if prefixes & _CODE else None
    if rest_or_none is not None:
        return plan.home.reached(rest_or_none)
    if plus or len(digits) < _LEAST:
        return False
    return _local(plan, plan.national(digits) if prefixes & _PREFIX else digits, written)
