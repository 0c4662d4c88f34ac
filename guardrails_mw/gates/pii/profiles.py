"""Which entities matter, and what a match must show before it counts.

Presidio's default thresholds suit documents. In the texts that agents handle (JSON, identifiers, code,
logs) they raise a false alarm every fifty characters, so ``agent`` asks for check digits, context or an
unmistakable form. ``strict`` is everything that a pattern can find at a score of 0.35.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from guardrails_mw.gates.pii.countries import GENERIC_WORDS
from guardrails_mw.gates.pii.matching import Match

__all__ = ["ENTITIES", "PROFILES", "Profile"]

Rule = Callable[[str, Match], bool]

ENTITIES = (
    "CREDIT_CARD", "CRYPTO", "DATE_TIME", "EMAIL_ADDRESS", "IBAN_CODE", "IP_ADDRESS", "MAC_ADDRESS",
    "MEDICAL_LICENSE", "PHONE_NUMBER", "UK_NHS", "URL", "US_BANK_NUMBER", "US_DRIVER_LICENSE", "US_ITIN",
    "US_PASSPORT", "US_SSN", "UUID",
)  # fmt: skip
"""What patterns can find."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What counts as a finding.

    Attributes:
        entities: looked for unless the policy lists its own.
        min_score: least score of an entity, `default` where it has none of its own.
        context: words that make an entity likelier, in place of the recognizer's own.
        rules: further conditions on the text and the match.
        requires: for an entity, an RE2 pattern that occurs in every text of which `rules` keep a match;
            lets the search be skipped.
        least_digits: telephone numbers with fewer digits are not looked for.
        marked_numbers: whether telephone numbers far from a word count only with a plus sign or two separators.
        national: least score of the identifiers of countries that a policy names.
        ignored: context words of those that say nothing.
    """

    entities: frozenset[str]
    default: float
    min_score: Mapping[str, float] = field(default_factory=dict)
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    requires: Mapping[str, str] = field(default_factory=dict)
    least_digits: int = 0
    marked_numbers: bool = False
    national: float = 0.35
    ignored: frozenset[str] = frozenset()

    def at_least(self, score: float | None) -> Profile:
        """The same profile with one least score for every entity; itself for None."""
        return self if score is None else replace(self, default=score, min_score={})

    def with_least(self, scores: Mapping[str, float]) -> Profile:
        """The same profile with a least score for entities that have none of their own."""
        return replace(self, min_score={**scores, **self.min_score})

    def words(self, entity: str, context: Sequence[str] | None) -> list[str]:
        """Context words of an entity: the profile's own, or what is left of its recognizer's."""
        if entity in self.context:
            return list(self.context[entity])
        words = (" ".join(each.strip(" #").lower().split()) for each in context or ())
        return [word for word in words if word.replace(" ", "").isalpha() and word not in self.ignored]

    def keeps(self, text: str, match: Match) -> bool:
        """Whether a match with its final score counts."""
        if match.score < self.min_score.get(match.entity, self.default):
            return False
        rule = self.rules.get(match.entity)
        return rule is None or rule(text, match)


_ADDRESS = re.compile(r"[\"']?(?:https?://|www\d{0,3}\.)", re.IGNORECASE)
_VERSION = re.compile(r"(?:version|release|\brev|\bv)[\s:=\"']*$")
_IDENTIFIER = re.compile(r"\b(?:isbn|issn|sku|serial|imei|ean|upc|part|lat|lon)(?: ?(?:no|number|nr))?[\s:#=.\"']*$")
_IDENTIFIER_REACH = 24
_SEPARATOR = re.compile(r"[\s().\-/]")
_DATE_OR_FLOAT = re.compile(r"\d{4}-\d\d-\d\d|(?<![.\d])\d+\.\d{4,}|^\d+\.\d+$|^\d{4}([ -])\d{4}\1\d{4}\1\d{4}$")
_FIFTH, _LEADING = re.compile(r"\.\d"), re.compile(r"\d\.$")
_CARD = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]|2[2-7])\d{14}|3[47]\d{13}|3[0689]\d{12,17}|35\d{14,17}"
    r"|50\d{10,17}|6\d{15,18}|1\d{14}",
    re.ASCII,
)
"""Visa, Mastercard, American Express, Diners, JCB, Maestro, Discover and UnionPay, UATP (ISO/IEC 7812 ranges)."""
_VERSION_REACH = 12
_IPV6_SHORT = 7
_WITH_CONTEXT, _FORM_WITH_CONTEXT = 0.74, 0.6
_MOST_DIGITS = 17


def _explicit_url(text: str, match: Match) -> bool:
    """Presidio takes ``os.pa`` for an address; here it needs a scheme or ``www.``."""
    return _ADDRESS.match(text, match.start) is not None


def _host_address(text: str, match: Match) -> bool:
    """Not a four-part version, and not the ``::`` of a programming language."""
    value = text[match.start : match.end]
    if "::" in value and len(value) < _IPV6_SHORT:
        return False
    if _FIFTH.match(text, match.end) or _LEADING.search(text[max(0, match.start - 2) : match.start]):
        return False
    return not _VERSION.search(text[max(0, match.start - _VERSION_REACH) : match.start].lower())


def _issued_card(text: str, match: Match) -> bool:
    """With as many digits as cards of that prefix have: one number in ten passes the check digit."""
    if _LEADING.search(text[max(0, match.start - 2) : match.start]):  # the fraction of a number
        return False
    digits = "".join(filter(str.isdigit, text[match.start : match.end]))
    return _CARD.fullmatch(digits) is not None


def _dialled(text: str, match: Match) -> bool:
    """With a word such as "phone" before it, or written the way people write telephone numbers."""
    value = text[match.start : match.end]
    if match.score >= _WITH_CONTEXT:
        return True
    if _DATE_OR_FLOAT.search(value):
        return False
    if match.score >= _FORM_WITH_CONTEXT:
        return True
    if not 9 <= sum(map(str.isdigit, value)) <= _MOST_DIGITS:
        return False
    if value.startswith("+"):
        return True
    before = text[max(0, match.start - _IDENTIFIER_REACH) : match.start].lower()
    return len(_SEPARATOR.findall(value)) >= 2 and not _IDENTIFIER.search(before)


PROFILES: Mapping[str, Profile] = {
    "agent": Profile(
        entities=frozenset(ENTITIES) - {"DATE_TIME", "MEDICAL_LICENSE", "UK_NHS", "UUID"},
        default=0.5,
        min_score={
            "CREDIT_CARD": 0.9, "CRYPTO": 0.9, "MEDICAL_LICENSE": 0.9, "PHONE_NUMBER": 0.4, "UK_NHS": 0.9,
            "US_BANK_NUMBER": 0.4, "US_DRIVER_LICENSE": 0.6, "US_PASSPORT": 0.4, "US_SSN": 0.4,
        },
        context={  # Presidio's own hold words such as "number", "check", "us", "document" and "security"
            "PHONE_NUMBER": (
                "phone", "telephone", "tel", "mobile", "mobil", "cell", "call", "fax", "whatsapp", "msisdn", "handy",
                "telefon", "portable", "celular", "cellulare", "hotline", "dial", "sms", "landline", "movil", "tlf",
            ),
            "US_BANK_NUMBER": ("bank", "acct", "checking", "savings", "debit"),
            "US_DRIVER_LICENSE": ("driver", "driving", "dmv"),
            "US_PASSPORT": ("passport",),
            "US_SSN": ("ssn", "ss", "social", "taxpayer", "tin", "seguro"),
        },
        rules={
            "CREDIT_CARD": _issued_card, "IP_ADDRESS": _host_address, "PHONE_NUMBER": _dialled, "URL": _explicit_url,
        },
        requires={
            "PHONE_NUMBER": r"(?:[0-9][^0-9\n]{0,20}){6}[0-9]",
            "URL": r"https?://|www[0-9]{0,3}\.",
        },
        least_digits=7,
        marked_numbers=True,
        national=0.4,
        ignored=GENERIC_WORDS,
    ),
    "strict": Profile(entities=frozenset(ENTITIES), default=0.35, min_score={"US_SSN": 0.05}),
}  # fmt: skip
