"""A region's telephone numbers: what phonenumbers' tables and its rules of parsing say of them, compiled once.

The rules are those of ITU E.164 numbers at leniency "valid": national and carrier prefixes, calling codes that
several regions share, numbers that are always written with a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, cached_property
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from phonenumbers import NumberFormat, PhoneMetadata

__all__ = ["ABROAD", "CODE", "LEAST", "LONGEST", "PREFIX", "Code", "Plan", "load", "split"]

LEAST, _MOST = 2, 17
"""Digits of a national number."""
LONGEST = 48
"""Digits of the longest prefixes (8 international, 3 country, 15 national) and number, with room."""
_PREFIX_MOST = 15
ABROAD, CODE, PREFIX = 1, 2, 4
"""What a number can begin with: an international prefix, its own calling code, a national prefix."""
_TYPES = (
    "premium_rate", "toll_free", "shared_cost", "voip", "personal_number", "pager", "uan", "voicemail", "fixed_line",
)  # fmt: skip

_GROUP = re.compile(r"\((?!\?)")
"""A group that remembers. The tables' expressions have no brackets but groups."""

Match = Callable[[str], "re.Match[str] | None"]


class Plan:
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
        self.formats = [_format(each) for each in metadata.number_format]
        self._formats = [
            (re.compile(lead).match if lead else None, re.compile(form).fullmatch, needed)
            for lead, form, needed in self.formats
        ]

    @cached_property
    def home(self) -> Code:
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

    def numbers(self, length: int) -> str:
        """An expression for what is `issued`, of one length; empty if nothing is."""
        if length not in self.possible:
            return ""
        return f"(?=(?:{self._form})$)(?:{self._patterns(length)})$"

    @cached_property
    def prefixed(self) -> str:
        """An expression for the numbers that need no national prefix; it takes up no digits."""
        rest = ""
        for leading, form, needed in reversed(self.formats):
            written = f"(?={leading})(?:{form})$" if leading else f"(?:{form})$"
            rest = f"(?!{written}){rest}" if needed else f"(?:(?={written})|{rest})"
        return rest if any(needed for *_, needed in self.formats) else ""

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

    def dialled(self, prefixes: int) -> range:
        """How many digits the numbers can have that begin with one of these kinds of prefix."""
        if prefixes & ABROAD:
            return range(LONGEST + 1)
        prefix = self.prefix.pattern
        width = _PREFIX_MOST if re.search(r"[*+{]", prefix) else len(prefix)
        most = len(self.code) + 2 * width if prefixes & CODE else width
        return range(self.home.shortest - len(self._transform or ""), self.home.longest + most + 1)

    def behind_trunk(self, opening: str, length: int) -> bool:
        """Whether a number that opens so is valid where what follows its first digit, the prefix, is a number."""
        starts = [each for each in self.prefix.pattern.split("|") if each[:1] == opening[0]]
        return (
            starts == [opening[0]]
            and re.fullmatch("[0-9|]+", self.prefix.pattern) is not None
            and not self._transform
            and self.home.main is self
            and not self.home.lengths(opening)
            and length - 1 in self.possible - self._local
        )

    def prefixes(self, opening: str) -> int:
        """Which of `ABROAD`, `CODE` and `PREFIX` a number that opens so can begin with."""
        kinds = ((ABROAD, self.international.pattern), (CODE, self.code), (PREFIX, self.prefix.pattern))
        return sum(kind for kind, pattern in kinds if regex.match(pattern, opening, partial=True))

    def lengths(self, opening: str) -> set[int]:
        """How many digits numbers have that begin so and fit the plan's general form."""
        return self.possible if regex.fullmatch(self._form, opening, partial=True) else set()


def _format(each: NumberFormat) -> tuple[str | None, str, bool]:
    """What the numbers begin with that are written so, how many digits stand where, and whether a prefix is needed."""
    assert each.pattern is not None  # every format has one
    leading, rule = each.leading_digits_pattern, each.national_prefix_formatting_rule
    optional = each.national_prefix_optional_when_formatting
    needed = bool(rule) and not optional and not re.fullmatch(r"\(?\\1\)?", rule or "")
    return leading[-1] if leading else None, _GROUP.sub("(?:", each.pattern), needed


class Code:
    """A country calling code and the regions that share it."""

    def __init__(self, code: int) -> None:
        from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata

        names = COUNTRY_CODE_TO_REGION_CODE[code]
        found = [PhoneMetadata.metadata_for_region_or_calling_code(code, name) for name in names]
        self._plans = [Plan(each) for each in found if each is not None]
        self.main = self._plans[0]
        led = [i for i, plan in enumerate(self._plans) if plan.leading is not None]
        shared = [i for i, plan in enumerate(self._plans) if plan.leading is None]
        several = led if len(self._plans) > 1 else []
        self.leader = "|".join(f"(?:{self._plans[i].leading})" for i in several) or "(?!)"
        self._leader = re.compile("|".join(f"({self._plans[i].leading})" for i in led) or "(?!)").match
        self._asked = [(self._plans[i], [self._plans[k] for k in shared if k < i]) for i in led]
        self._shared = [self._plans[i] for i in shared]

    def valid(self, number: str) -> bool:
        """Whether it is a number of the first plan that its opening digits lead to, or of one before without such."""
        if not LEAST <= len(number) <= _MOST:
            return False
        if len(self._plans) == 1:
            return self.main.issued(number)
        led = self._leader(number)
        if led is None or led.lastindex is None:
            return any(plan.issued(number) for plan in self._shared)
        asked, before = self._asked[led.lastindex - 1]
        return any(plan.issued(number) for plan in before) or asked.issued(number)

    def local(self, number: str, written: str) -> bool:
        """Whether a number is valid as it stands."""
        return self.valid(number) and not self.main.lacks_prefix(number, written)

    def lengths(self, opening: str) -> set[int]:
        """How many digits the valid numbers can have that begin so."""
        return set().union(*(plan.lengths(opening) for plan in self._plans))

    def numbers(self, length: int, *, prefixed: bool) -> str:
        """An expression for the valid numbers of one length, where no `leader` decides.

        Args:
            length: in digits.
            prefixed: without those that need a national prefix.
        """
        shared = self._shared if len(self._plans) > 1 else self._plans
        numbers = "|".join(filter(None, (plan.numbers(length) for plan in shared)))
        return f"(?!{self.leader}){self.main.prefixed if prefixed else ''}(?:{numbers})" if numbers else "(?!)"

    @property
    def longest(self) -> int:
        """Digits of the longest valid numbers."""
        return max((length for plan in self._plans for length in plan.possible), default=0)

    @property
    def shortest(self) -> int:
        """Digits of the shortest valid numbers."""
        return min((length for plan in self._plans for length in plan.possible), default=LEAST)

    def reached(self, number: str) -> bool:
        """Whether what follows the calling code is a valid number."""
        return len(number) >= LEAST and self.valid(self.main.national(number))


_code = cache(Code)


def load() -> None:
    """Load the plans of every calling code."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    for code in COUNTRY_CODE_TO_REGION_CODE:
        _code(code)


def split(number: str) -> tuple[Code, str] | None:
    """The calling code that a number opens with, and the rest."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

    if number[:1] == "0":
        return None
    for end in range(1, min(len(number), 3) + 1):
        if int(number[:end]) in COUNTRY_CODE_TO_REGION_CODE:
            return _code(int(number[:end])), number[end:]
    return None
