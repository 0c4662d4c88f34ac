"""Whether a value is a secret: what a pattern alone cannot tell.

People write placeholders, names of variables, paths and words where a secret would stand. Secrets are drawn by
chance, or hold the symbols that passwords hold.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable

import re2

__all__ = ["is_assigned", "is_issued", "is_random", "is_secret_name", "is_secret_value", "stands_for_another"]

_KEYS = (
    r"(?:api|access|account|private|auth|encryption|signing|secret|master|storage|shared|app|application|service"
    r"|subscription|consumer|webhook|admin|hmac|jwt)_?key"
)
_NAME = re.compile(
    r"(?:^|_)(?:pass|password|passwd|passphrase|pwd|secret|token|credentials?|"
    + _KEYS
    + r")(?:_(?:key|value|token|\d+))?$"
)
_HARMLESS_NAME = re.compile(  # what is said about a secret, and tokens that open nothing
    r"_(?:ids?|names?|ur[il]|endpoint|files?|path|dir|types?|counts?|limit|len|length|size|width|expir\w*|ttl|at|in|date"
    r"|time|version|arn|header|env|hash|digest|policy|algorithm|alg|field|label|placeholder|hint|format|pattern|regex"
    r"|prefix|suffix|fingerprint|usage|index|idx|status|errors?|message|ref|source|owner|group|role|scope|issuer|provider"
    r"|store|manager|rotation|kind|budget|class|set|map|param|var|variable|key_?id)$"
    r"|(?:^|_)(?:next|page|pagination|continuation|continue|cursor|sync|forward|backward|lock|client|start|output|input"
    r"|stop|eos|bos|pad|unk|sep|mask|special|public_key|csrf|xsrf|idempotency|request|change|upload|resume|copy_product)_token$"
    r"|::[a-z_]*$"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\s.-]+")
_LAST_NAME = re.compile(r"[\w.:-]+$", re.ASCII)
_PLACEHOLDER = re2.compile(  # in RE2: Python tries thirty beginnings at every character
    r"(?i)(?-i:^[$%@#][A-Z_][A-Z0-9_]*[$%@#]?$|^\$[a-z]+(?:[A-Z_][a-z]+)*\d?$|^@[a-z0-9-]+\.[a-z0-9.-]+(?:[:/]|$))"
    r"|\$[{(]|\{\{|\{[\w\x{80}-\x{10ffff}]*\}|%\(|^%env\(|^__[\w\x{80}-\x{10ffff}]+__$|%7b"
    r"|<[\w\x{80}-\x{10ffff} |.-]+>|\*{3}|\.{3}|…|•|x{4}|example"
    r"|placeholder|your|change.?(?:me|this|it\b)|replace.?(?:me|this|with)|insert.?(?:your|key|token|here)|redacted"
    r"|(?:^|[-_.])(?:test|demo|fake|mock|sample|dummy|sandbox|not.?a.?real)(?:[-_.]|$)|dummy|\[secret|environ|getenv"
    r"|process\.env|secrets\.|config\.|settings\.|vault:|^ref\+|^op:|^arn:|^enc\(|/run/|self\.|null|none|undefined"
    r"|^(?:~|\.{1,2})/|^\?|\||^\w\.\w{1,12}(?:[:=?,&]|$)"
)
_IDENTIFIER = re.compile(r"[a-z]+(?:_[a-z]+)+_?\d{0,3}|[A-Z]+(?:_[A-Z]+)+_?\d{0,3}|\W?[a-z]+\W?")
_CODE = re.compile(r"[A-Za-z_$][\w$]*(?:\.[A-Za-z_$][\w$]*)*", re.ASCII)
_STAND_IN = re.compile(
    r"x{5}|X{5}|0{7}|1{7}|a{7}|A{7}|\*{3}|\.{3}|EXAMPLE|[Ee]xample|(?i:your|placeholder|redacted|change.?me)[-_/]"
    r"|(?i:placeholder|redacted)|1234567890|0123456789|abcdefgh|ABCDEFGH|/YOUR/|\{\w*\}|<\w"
)
_COMMON = frozenset(
    {"user", "username", "pass", "password", "passwd", "pwd", "secret", "token", "test", "guest", "admin", "root"}
    | {"postgres", "mysql", "redis", "mongo", "rabbitmq", "minio", "key", "port", "host", "value", "mypassword"}
)
_BRACKET = re.compile(r"[(\[{]")  # code, not a value
_SYMBOLS = frozenset("!@#$%^&*+?~")  # what passwords hold and names do not
_PIECE = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_WORD = re.compile(r"[^aeiou]{0,3}(?:[aeiou]|y$)", re.IGNORECASE)
_BETWEEN = re.compile(r"[_./:\s-]")  # what stands between words, where no capital begins them
_HUMP = re.compile(r"[a-z][A-Z]")
_LEET = str.maketrans("@01345$", "aoieass")


def is_secret_name(name: str) -> bool:
    """Whether a key says that its value is a secret.

    >>> [is_secret_name(name) for name in ("password", "clientSecret", "X-API-Key", "max_tokens", "nextPageToken")]
    [True, True, True, False, False]
    """
    plain = _plain(name)
    return _NAME.search(plain) is not None and not _HARMLESS_NAME.search(plain)


def is_secret_value(value: str) -> bool:
    """Whether a value under a secret's name is a secret, not a placeholder, a number or a word.

    >>> [is_secret_value(value) for value in ("Tr0ub4dor&3", "${DB_PASSWORD}", "your-key-here", "12345678", "string")]
    [True, False, False, False, False]
    """
    return _secret(value) and not any(char.isspace() for char in value)


def is_assigned(text: str, start: int, end: int) -> bool:
    """Whether the value at a place in a text, with a telling name before it, is a secret.

    >>> [is_assigned(t, 9, len(t) - 1) for t in ("password=Tr0ub4dor&3;", "password=ui.field1(", "token_id=8f14e45;")]
    [True, False, False]
    """
    value = text[start:end]
    if not _secret(value) or (text[end : end + 1] in ("(", "[") and _CODE.fullmatch(value)):
        return False
    return not _harmless(text[max(0, start - 96) : start])


def is_random(text: str, start: int, end: int) -> bool:
    """Whether a value that only stands near a telling word was drawn by chance, and is no word.

    It has both cases and digits, or letters that change their case more often than in names.
    """
    value = text[start:end].rstrip(".,;:!?)")
    if len(value) < 14 or "://" in value or stands_for_another(value) or _in_words(value):
        return False
    if _BRACKET.search(value) or _harmless(text[max(0, start - 96) : start]):
        return False
    mixed = all(any(map(test, value)) for test in (str.islower, str.isupper, str.isdigit)) or _jagged(value)
    return mixed and _entropy(value) >= 3.3


def is_issued(text: str, start: int, end: int) -> bool:
    """Whether a value in a provider's form could have been issued: documents show the form with stand-ins.

    >>> [is_issued(text, 0, 20) for text in ("AKIAIOSFODNN7EXAMPLE", "AKIAXXXXXXXXXXXXXXXX", "AKIA2Q7ZRKV5LWBN3XYT")]
    [False, False, True]
    """
    value = text[start:end]
    return not _STAND_IN.search(value) and len(set(value)) >= 8


def stands_for_another(value: str) -> bool:
    """Whether a value is a placeholder, the name of a variable, or a password that everybody knows to replace."""
    if _PLACEHOLDER.search(value) or _IDENTIFIER.fullmatch(value):
        return True
    return value.lower().strip("_-") in _COMMON or value.lower().rstrip("!?.#*0123456789").translate(_LEET) in _COMMON


def _harmless(before: str) -> bool:
    """Whether what stands before a value says that it is no secret: the end of a name, or of an ARN."""
    if "arn:" in before and not any(map(str.isspace, before[before.rindex("arn:") :])):
        return True
    name = _LAST_NAME.search(before.rstrip(" \t\"'`*\\]=:>|"))
    return name is not None and _HARMLESS_NAME.search(_plain(name.group())) is not None


def _plain(name: str) -> str:
    return _CAMEL.sub("_", name[-128:]).lower()


def _secret(value: str) -> bool:
    if not 8 <= len(value) <= 512 or "://" in value or not any(map(str.isalpha, value)):
        return False
    if _SYMBOLS.isdisjoint(value) and not any(map(str.isdigit, value)) and not _jagged(value):
        return False  # the cheap questions first: a hostile text is made of values
    if stands_for_another(value) or _in_words(value):
        return False
    return _entropy(value) >= 2.75 and (len(value) >= 16 or _classes(value) >= 3)


def _in_words(value: str) -> bool:
    """Whether a value is put together from words, as names, paths and messages are, and no symbol of passwords."""
    if not _SYMBOLS.isdisjoint(value):
        return False
    pieces = _PIECE.findall(value)
    words = [piece for piece in pieces if len(piece) >= 3 and _WORD.match(piece)]
    few = 1 if any(word.lower() in _COMMON for word in words) else 2
    share = 0.6 if few == 1 else 0.7 if _BETWEEN.search(value) else 0.8 if _HUMP.search(value) else 2.0
    return len(words) >= few and sum(map(len, words)) >= share * sum(map(len, pieces))


def _jagged(value: str) -> bool:
    """Whether letters change their case as often as chance does, and names do not."""
    if len(value) < 12 or not value.isalpha():
        return False
    return sum(a.islower() != b.islower() for a, b in itertools.pairwise(value)) >= 0.4 * len(value)


def _entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())


def _classes(value: str) -> int:
    """How many of lower case, upper case, digits and other characters occur."""
    tests: tuple[Callable[[str], bool], ...] = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
    return sum(any(test(char) for char in value) for test in tests)
