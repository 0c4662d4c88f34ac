"""The rule file, read and compiled, and the checks that a pattern alone cannot make."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guardrails_mw.document import Document
from guardrails_mw.gate import windows
from guardrails_mw.gates.disguise import undisguised
from guardrails_mw.gates.secrets.values import is_assigned, is_issued, is_random, stands_for_another
from guardrails_mw.patterns import PatternSet
from guardrails_mw.placeholder import CHECK_LETTERS

__all__ = ["Rule", "RuleSet", "Secret", "default_rules", "open_key"]

_OVERLAP = 2048  # longer than the shortest form of any secret: a window that holds none finds none
_PEM_LIMIT = 16_384  # a private key of 16,384 bits is 13 KB
_BEGIN, _END = "-----BEGIN ", "-----END "
_PEM_HEAD = re.compile(_BEGIN + r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_TAIL = re.compile(_END + r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_ARMOUR = re.compile(r"[A-Za-z0-9+/=]{24}")  # a line of a key, not a word about it
_PEM_BEFORE = 512  # headers that may stand before it
_PEM_WORDS = re.compile(r"[A-Z0-9 -]*")
_HEAD_LIMIT = 80  # of the line that a private key begins with
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,.()-]*")
_MARK = re.compile(  # what the gate itself writes, and what the vault makes of it
    rf"\[SECRET(?::([a-z0-9_]{{1,40}})(?::[0-9a-f]{{8}})?|[A-Z_]{{0,40}}_[0-9]{{1,5}}_[{CHECK_LETTERS}]{{6}})\]"
)
_USERINFO = re.compile(r"://([^/:@]*):([^/@]+)@(.{0,7})", re.DOTALL)


class Rule(BaseModel):
    """One kind of secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(pattern=r"^[a-z0-9_]+$")
    pattern: str | list[str]
    check: Literal["header", "password", "assigned", "random", "issued"] = "issued"

    @property
    def patterns(self) -> list[str]:
        """The patterns of which one is enough."""
        return [self.pattern] if isinstance(self.pattern, str) else self.pattern


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    rules: list[Rule]


@dataclass(frozen=True, slots=True, order=True)
class Secret:
    """A secret's place in a text."""

    start: int
    end: int
    kind: str


class RuleSet:
    """Compiled rules. Raises `ValueError` for a pattern that is not RE2; names the rule."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.kinds = [rule.kind for rule in rules]
        self._written = frozenset({None, "generic", "private_key", *self.kinds})
        self._forms = [
            (f"{rule.kind} {number}", rule.kind, _CHECKS[rule.check])
            for rule in rules
            for number in range(len(rule.patterns))
        ]  # one by one: joined, RE2 would find no literal that all of them need, and would try them on every text
        self._patterns = PatternSet(
            {f"{rule.kind} {number}": pattern for rule in rules for number, pattern in enumerate(rule.patterns)}
        )

    @classmethod
    def read(cls, path: Path) -> RuleSet:
        """Read a rule file. Raises `PolicyError` with the line of what is wrong."""
        document = Document.read(path, env={})
        try:
            return cls(_File.model_validate(document.data).rules)
        except ValidationError as error:
            first = error.errors()[0]
            raise document.error(first["loc"], first["msg"]) from None
        except ValueError as error:
            raise document.error(("rules",), str(error)) from None

    def find(self, text: str) -> list[Secret]:
        """All secrets in a text, as it stands and as it reads, in order, without overlap. Time is linear in the text.

        Raises `GateError`: ``deadline`` when the gate's time is over, ``pattern_memory`` when the pattern
        engine gave up.
        """
        found = self._standing(text)
        plain = undisguised(text)
        if plain is not None:
            found += [Secret(*plain.span(each.start, each.end), each.kind) for each in self._standing(plain.text)]
        return _merged(found)

    def _standing(self, text: str) -> list[Secret]:
        """All secrets in a text as it stands, those of more specific rules first."""
        hits = {form for _, window in windows(text, overlap=_OVERLAP) for form in self._patterns.matching(window)}
        found = list(_private_keys(text))
        for form, kind, check in self._forms:
            if form not in hits:
                continue
            for start, end in self._patterns.spans(form, text):
                mark = _MARK.match(text, max(0, start - len("[SECRET:")))
                own = mark is not None and mark.group(1) in self._written  # a secret can be written as a kind, too
                if not own and check(text, start, end):
                    found.append(Secret(start, end, "generic" if kind == "generic_prose" else kind))
        return found


def _merged(found: Sequence[Secret]) -> list[Secret]:
    """Overlapping secrets joined; the one that was found first, by the more specific rule, gives its kind."""
    merged: list[tuple[int, Secret]] = []
    for rank, secret in sorted(enumerate(found), key=lambda ranked: (ranked[1].start, ranked[0])):
        if merged and secret.start < merged[-1][1].end:
            best, last = merged[-1]
            kind = secret.kind if rank < best else last.kind
            merged[-1] = min(rank, best), Secret(last.start, max(last.end, secret.end), kind)
        else:
            merged.append((rank, secret))
    return [secret for _, secret in merged]


def _private_keys(text: str) -> Iterator[Secret]:
    """PEM and PGP private keys, to their end or, where that is missing, as far as the armour goes on."""
    position, end = 0, 0
    while (begin := text.find(_BEGIN, position)) >= 0:
        head = _PEM_HEAD.match(text, begin)
        position = begin + len(_BEGIN)
        if head is None:
            continue
        position = head.end()
        if 0 <= end < position:  # the next end is looked for once, however many beginnings come before it
            end = text.find(_END, position)
        tail = _PEM_TAIL.match(text, end) if 0 <= end <= begin + _PEM_LIMIT else None
        armour = position + _PEM_BEFORE
        if not _PEM_ARMOUR.search(text, position, min(armour, tail.start()) if tail else armour):
            continue
        body = tail or _PEM_BODY.match(text, position, begin + _PEM_LIMIT)
        position = body.end() if body else position
        yield Secret(begin, position, "private_key")


def open_key(text: str, limit: int) -> int:
    """Where a private key begins, before `limit`, whose end has not arrived; -1 if there is none.

    >>> open_key("see -----BEGIN PRIVATE KEY----- MIIE", 30), open_key("see -----BEGIN READING----- and go on", 30)
    (4, -1)
    """
    begin = text.find(_BEGIN, max(0, limit - _PEM_LIMIT - _HEAD_LIMIT), limit + len(_BEGIN))
    while 0 <= begin < limit:
        head = _PEM_HEAD.match(text, begin)
        if head is None and len(text) - begin < _HEAD_LIMIT and _PEM_WORDS.fullmatch(text, begin + len(_BEGIN)):
            return begin
        if head is not None and len(text) < begin + _PEM_LIMIT + _HEAD_LIMIT and not _unarmoured(text, head.end()):
            tail = text.find(_END, head.end())
            if tail < 0 or (closed := _PEM_TAIL.match(text, tail)) is None or closed.end() > limit:
                return begin
        begin = text.find(_BEGIN, begin + 1, limit + len(_BEGIN))
    return -1


def _unarmoured(text: str, position: int) -> bool:
    """Whether it is certain that no line of a key follows the one it begins with."""
    armour = position + _PEM_BEFORE
    return len(text) >= armour and not _PEM_ARMOUR.search(text, position, armour)


def _password(text: str, start: int, end: int) -> bool:
    match = _USERINFO.search(text, start, end)
    if match is None:
        return False
    user, password, host = match.groups()
    if stands_for_another(password) or password in (user, "sha256") or host.startswith("sha256:"):
        return False  # the last: an image and its digest
    return not password.isdigit()


def _header(text: str, start: int, end: int) -> bool:
    head = text[start:end].partition(".")[0]
    try:
        fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and ("alg" in fields or "typ" in fields)


_CHECKS: dict[str, Callable[[str, int, int], bool]] = {
    "header": _header,
    "password": _password,
    "assigned": is_assigned,
    "random": is_random,
    "issued": is_issued,
}


@cache
def default_rules() -> RuleSet:
    """The rules that come with the package."""
    return RuleSet.read(Path(__file__).with_name("rules.yaml"))
