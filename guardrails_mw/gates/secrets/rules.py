"""The rule file, read and compiled, and the checks that a pattern alone cannot make."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from guardrails_mw.document import Document
from guardrails_mw.gate import windows
from guardrails_mw.patterns import PatternSet
from guardrails_mw.placeholder import CHECK_LETTERS

__all__ = ["Rule", "RuleSet", "Secret", "default_rules", "is_secret_name", "is_secret_value", "open_key"]

_OVERLAP = 2048  # longer than the shortest form of any secret: a window that holds none finds none
_PEM_LIMIT = 16_384  # a private key of 16,384 bits is 13 KB
_BEGIN, _END = "-----BEGIN ", "-----END "
_PEM_HEAD = re.compile(_BEGIN + r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_TAIL = re.compile(_END + r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_WORDS = re.compile(r"[A-Z0-9 -]*")
_HEAD_LIMIT = 80  # of the line that a private key begins with
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,.()-]*")
_NAME = re.compile(
    r"(?:^|_)(?:pass|password|passwd|passphrase|pwd|secret|token|credentials?|(?:api|access|account|private|auth"
    r"|encryption|signing|secret|master)_?key)(?:_(?:key|value|token|\d+))?$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s.-]+")
_PLACEHOLDER = re.compile(
    r"^\$\w+$|\$[{(]|\{\{|%\(|<[\w |.-]+>|\*{3}|\.{3}|…|x{4}|example|placeholder|your|change-?me|dummy|redacted"
    r"|\[secret|environ|getenv|process\.env|secrets\.|config\.|settings\.|vault:|/run/|self\.|null|none|undefined",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z]+)+_?\d{0,3}")  # the name of a variable, standing for its value
_COMMON = frozenset(
    {"user", "username", "pass", "password", "passwd", "pwd", "secret", "token", "test", "guest", "admin", "root"}
    | {"postgres", "mysql", "redis", "mongo", "rabbitmq", "minio", "key", "port", "host", "value", "mypassword"}
)
_SYMBOLS = frozenset("!@#$%^&*+?~")  # what passwords hold and names do not
_MARK = re.compile(  # what the gate itself writes, and what the vault makes of it
    rf"\[SECRET(?::[a-z0-9_]{{1,40}}(?::[0-9a-f]{{8}})?|[A-Z_]{{0,40}}_[0-9]{{1,5}}_[{CHECK_LETTERS}]{{6}})\]"
)
_USERINFO = re.compile(r"://[^/:@]*:([^/@]+)@")


class Rule(BaseModel):
    """One kind of secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str = Field(pattern=r"^[a-z0-9_]+$")
    pattern: str | list[str]
    check: Literal["header", "password", "assigned", "random"] | None = None


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
        self._checks = {rule.kind: _CHECKS[rule.check] for rule in rules if rule.check}
        self._patterns = PatternSet(
            {rule.kind: rule.pattern if isinstance(rule.pattern, str) else "|".join(rule.pattern) for rule in rules}
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
        """All secrets in a text, in order, without overlap. Time is linear in the text.

        Raises `GateError`: ``deadline`` when the gate's time is over, ``pattern_memory`` when the pattern
        engine gave up.
        """
        hits = {kind for _, window in windows(text, overlap=_OVERLAP) for kind in self._patterns.matching(window)}
        found = list(_private_keys(text))
        for kind in self.kinds:
            if kind not in hits:
                continue
            check = self._checks.get(kind)
            for start, end in self._patterns.spans(kind, text):
                own = _MARK.match(text, max(0, start - len("[SECRET:")))
                if not own and (check is None or check(text[start:end])):
                    found.append(Secret(start, end, "generic" if kind == "generic_prose" else kind))
        return _merged(found)


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
        if head is not None and len(text) < begin + _PEM_LIMIT + _HEAD_LIMIT:
            tail = text.find(_END, head.end())
            if tail < 0 or (closed := _PEM_TAIL.match(text, tail)) is None or closed.end() > limit:
                return begin
        begin = text.find(_BEGIN, begin + 1, limit + len(_BEGIN))
    return -1


def is_secret_name(name: str) -> bool:
    """Whether a key says that its value is a secret.

    >>> [is_secret_name(name) for name in ("password", "clientSecret", "X-API-Key", "max_tokens", "token_count")]
    [True, True, True, False, False]
    """
    return _NAME.search(_CAMEL.sub("_", name[:128]).lower()) is not None


def is_secret_value(value: str) -> bool:
    """Whether a value under a secret's name is a secret, not a placeholder, a number or a word.

    >>> [is_secret_value(value) for value in ("Tr0ub4dor&3", "${DB_PASSWORD}", "your-key-here", "12345678", "string")]
    [True, False, False, False, False]
    """
    return _assigned(value) and not any(char.isspace() for char in value)


def _entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())


def _classes(value: str) -> int:
    """How many of lower case, upper case, digits and other characters occur."""
    tests: tuple[Callable[[str], bool], ...] = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
    return sum(any(test(char) for char in value) for test in tests)


def _placeholder(value: str) -> bool:
    if _PLACEHOLDER.search(value) or _IDENTIFIER.fullmatch(value):
        return True
    return value.lower().strip("_-") in _COMMON


def _assigned(value: str) -> bool:
    if not 8 <= len(value) <= 512 or "://" in value or _placeholder(value):
        return False
    mixed = any(map(str.isalpha, value)) and any(char.isdigit() or char in _SYMBOLS for char in value)
    return mixed and _entropy(value) >= 2.75 and (_classes(value) >= 3 or len(value) >= 16)


def _random(value: str) -> bool:
    value = value.rstrip(".,;:!?)")
    if len(value) < 14 or "://" in value or _placeholder(value):
        return False
    mixed = any(map(str.islower, value)) and any(map(str.isupper, value)) and any(map(str.isdigit, value))
    return mixed and _entropy(value) >= 3.3


def _password(url: str) -> bool:
    match = _USERINFO.search(url)
    if match is None:
        return False
    password = match.group(1)
    return not _placeholder(password) and not password.isdigit()


def _header(token: str) -> bool:
    head = token.partition(".")[0]
    try:
        fields = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and ("alg" in fields or "typ" in fields)


_CHECKS: dict[str, Callable[[str], bool]] = {
    "header": _header,
    "password": _password,
    "assigned": _assigned,
    "random": _random,
}


@cache
def default_rules() -> RuleSet:
    """The rules that come with the package."""
    return RuleSet.read(Path(__file__).with_name("rules.yaml"))
