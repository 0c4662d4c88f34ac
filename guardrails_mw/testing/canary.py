"""Canaries: made-up personal data and keys, one for every field, found again in whatever form they left in."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from urllib.parse import quote

__all__ = ["KINDS", "Canaries", "Found", "Kind", "forms"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value that a policy may hide.

    Attributes:
        name: what reports call it.
        stem: what every value of the kind holds and nothing else does; 8 ASCII characters or more.
        make: a value that a gate recognises, from a number of up to three digits; it holds the stem.

    >>> Kind("case", "CASE-ZQ77", lambda number: f"CASE-ZQ77{number:03d}").make(5)
    'CASE-ZQ77005'
    """

    name: str
    stem: str
    make: Callable[[int], str]


def _card(number: int) -> str:
    """A card number of a test range with a right check digit (Luhn)."""
    digits = f"45396821{number:07d}"
    doubled = [int(d) * 2 if place % 2 == 0 else int(d) for place, d in enumerate(reversed(digits))]
    return f"{digits}{-sum(d - 9 if d > 9 else d for d in doubled) % 10}"


def _iban(number: int) -> str:
    """A British account number with right check digits (ISO 7064, modulo 97)."""
    account = f"NWBK601613{number:08d}"
    rest = "".join(str(int(char, 36)) for char in f"{account}GB00")
    return f"GB{98 - int(rest) % 97:02d}{account}"


def _key(number: int) -> str:
    """An access key of AWS's form: capital letters and the digits 2 to 7."""
    digits = "".join(chr(ord("A") + int(digit)) for digit in f"{number:04d}")
    return f"AKIAZQCANARY{digits}K7F2"


KINDS: Sequence[Kind] = (
    Kind("email", "zqcanary.f", lambda number: f"zqcanary.f{number:03d}@mail.org"),
    Kind("card", "45396821", _card),
    Kind("iban", "NWBK601613", _iban),
    Kind("phone", "4930901820", lambda number: f"+4930901820{number:03d}"),
    Kind("key", "AKIAZQCANARY", _key),
)
"""What is planted if nothing else is asked for."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A canary, or a part of one, where it should not be; `field` is empty where only a part is left."""

    kind: str
    field: str
    form: str


@cache
def forms(text: str, whole: bool = True) -> tuple[tuple[str, bool, bytes], ...]:
    r"""Every form that an ASCII text is looked for in: its name, whether upper case counts, and its bytes.

    Args:
        text: what is looked for.
        whole: whether it must be there to its last bit; a little less will do for the beginning of a value.

    >>> [(name, needle) for name, _, needle in forms("Ab") if name in ("hex", "json")]
    [('hex', b'4162'), ('json', b'\\u0041\\u0062')]
    """
    raw = text.encode()
    found = [
        ("clear", False, raw.lower()),
        ("reversed", False, raw[::-1].lower()),
        ("hex", False, raw.hex().encode()),
        ("json", False, "".join(f"\\u{ord(char):04x}" for char in text).encode()),
        ("url", False, "".join(f"%{byte:02x}" for byte in raw).encode()),
        ("utf-16", False, text.lower().encode("utf-16-le")[:-1]),  # without its end it is found in either byte order
        *(("base64", True, needle) for needle in _base64(raw, whole)),
    ]
    if quote(text, safe="") != text:
        found.append(("url", False, quote(text, safe="").lower().encode()))
    if text.isdigit():
        groups = [text[at : at + 4] for at in range(0, len(text), 4)]
        found += [("grouped", False, mark.join(groups).encode()) for mark in (" ", "-", ".")]
    return tuple(dict.fromkeys(found))


def _base64(raw: bytes, whole: bool) -> Iterator[bytes]:
    """Some bytes in base64, in whichever of three places they stand, in both alphabets.

    The last character may hold bits of what follows: a `whole` value is given with all that it can be, else without it.
    """
    for offset in range(3):
        start, end = (offset * 8 + 5) // 6, (offset + len(raw)) * 8 // 6
        more = bool((offset + len(raw)) * 8 % 6) and whole
        for following in {b"", *(bytes([byte]) for byte in range(0, 256, 4))} if more else (b"",):
            needle = base64.b64encode(bytes(offset) + raw + following)[start : end + more]
            yield needle
            yield needle.translate(bytes.maketrans(b"+/", b"-_"))


class Canaries:
    """One value of every kind for every field, so that what is found tells where it was planted.

    Args:
        kinds: what to plant.

    >>> canaries = Canaries()
    >>> text = canaries.text("input.text")
    >>> [(found.field, found.form) for found in canaries.find(text.encode().hex().encode()) if found.kind == "email"]
    [('input.text', 'hex')]
    """

    def __init__(self, kinds: Sequence[Kind] = KINDS) -> None:
        self.kinds = tuple(kinds)
        self._fields: dict[str, int] = {}
        self._lock = Lock()

    @property
    def fields(self) -> Sequence[str]:
        """Every field that a value was made for."""
        return list(self._fields)

    def value(self, field: str, kind: Kind) -> str:
        """The value of a kind for a field, the same every time."""
        with self._lock:
            number = self._fields.setdefault(field, len(self._fields) + 1)
        return kind.make(number)

    def text(self, field: str) -> str:
        """A sentence with a value of every kind."""
        return "Note " + ", ".join(f"{kind.name} {self.value(field, kind)}" for kind in self.kinds) + "."

    def word(self, field: str) -> str:
        """A single value, of the last kind."""
        return self.value(field, self.kinds[-1])

    def find(self, data: bytes) -> list[Found]:
        """Every canary in some bytes, whole or in part, in any form."""
        folded = data.lower()
        result: set[Found] = set()
        for kind in self.kinds:
            parts = _forms_in(data, folded, kind.stem, whole=False)
            if parts:
                whole = [(field, _forms_in(data, folded, self.value(field, kind))) for field in self.fields]
                named = [Found(kind.name, field, form) for field, known in whole for form in known]
                result.update(named or [Found(kind.name, "", form) for form in parts])
        return sorted(result)


def _forms_in(data: bytes, folded: bytes, text: str, *, whole: bool = True) -> list[str]:
    found = _names_in(data, folded, text, whole=False)  # few needles; whole ones begin as these do
    return _names_in(data, folded, text, whole=True) if whole and found else found


def _names_in(data: bytes, folded: bytes, text: str, *, whole: bool) -> list[str]:
    found = [name for name, exact, needle in forms(text, whole) if needle in (data if exact else folded)]
    return list(dict.fromkeys(found))
