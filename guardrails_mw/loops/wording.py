"""How a call's arguments put it: enough of their words to tell a question in other words from another question.

Arguments that are names, numbers, paths or ids have no wording: a call with others asks for another thing. Free text
has: what is asked again in other words shares words with what was asked before. Of a text only the few words with the
lowest hashes are kept, the same few of texts that have most words in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import islice

import re2

from guardrails_mw.event import Json
from guardrails_mw.loops.gist import encodable

__all__ = ["alike", "asks", "is_path_of_words", "mostly_in", "same_text", "wording_of"]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BOUND = 500  # characters of a text whose words are read
_KEPT = 8  # words that are kept
_SIZE = 2  # bytes of a word's hash
_SHARED = 3  # one word of so many in common, of the shorter text, makes two texts alike
_DEPTH = 4  # levels of arguments in which texts are looked for
_LEAVES = 32  # texts of one call that are read
_QUESTIONS = _set("q query question search keyword keywords term terms pattern topic")
_NAMING = ("name", "title", "address", "author", "city", "path", "file", "id")  # arguments that name something
_PATHS = ("path", "file", "filename", "url", "uri")
_FORMAL = (
    "select ",
    "with ",
    "insert ",
    "update ",
    "delete ",
    "match ",
    "{",
    "(",
    "explain ",
)  # a language for queries
_VALUES = re2.compile(r"(?i)\b(from|into|join|update|table)\s+[^\s;,()]+|'[^'%]*'")
_NUMBERS = (int, float)
_IDS = frozenset("/.\\@_")  # within a word they make it a path, a file, an address, a name in a program
_DIGITS = frozenset("0123456789")
_IN_IDS = _IDS | _DIGITS
_MARKS = str.maketrans(dict.fromkeys("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。、，？！：；（）「」", " "))
_EAST = "\u2e80"  # from here on a letter is a word


def wording_of(args: Mapping[str, Json], searches: bool, secret: bytes = b"") -> str:
    """The free text in a call's arguments as one short hash, and its words as a few; empty if there is none.

    What has a digit in it is an id, and no word; but a question to what `searches` is also rephrased by numbers.

    >>> wording_of({"path": "src/a.py", "line": 3}, searches=False)
    ''
    >>> wording_of({"q": "select 1 from t"}, searches=False) == wording_of({"q": "select 2 from t"}, searches=False)
    True
    """
    if all(map(_is_plain, args, args.values())):
        return ""
    shown = [
        text if searches and _is_question(name) else _without_ids(_without_values(text))
        for name, text in _texts(args)
        if _is_free(name, text)
    ]
    words = {word for text in shown for word in _words(_named_in(text) or text)}
    if not words:
        return ""
    exact = _digest(" ".join(shown), secret)
    return exact + "".join(sorted(_hashed(word, secret) for word in words)[:_KEPT])


def asks(args: Mapping[str, Json], searching: bool) -> bool:
    """Whether one of the arguments is a question in free text, and neither a formal query nor a name or an id.

    Of a tool that is searching any free text is one that is no name.
    """
    if not searching and _QUESTIONS.isdisjoint(map(str.casefold, args)):
        return False
    return any(
        isinstance(text, str)
        and (searching or _is_question(name))
        and _is_free(name, text)
        and not text.lower().startswith(_FORMAL)
        for name, text in args.items()
    )


def same_text(one: str, other: str) -> bool:
    """Whether two wordings are of the same free text, ids apart."""
    return one[: 2 * _SIZE] == other[: 2 * _SIZE]


def alike(one: str, other: str) -> bool:
    """Whether two wordings have a third of their words in common.

    >>> asked = ("refund policy", "policy of refunds", "opening hours")
    >>> one, same, other = (wording_of({"q": text}, searches=True) for text in asked)
    >>> alike(one, same), alike(one, other)
    (True, False)
    """
    mine, others = _parts(one), _parts(other)
    return _SHARED * len(mine & others) >= min(len(mine), len(others)) > 0


def mostly_in(one: str, others: Iterable[str]) -> bool:
    """Whether most of a wording's words are in others."""
    mine = _parts(one)
    return 2 * len(mine & frozenset[str]().union(*map(_parts, others))) > len(mine)


def is_path_of_words(args: Mapping[str, Json]) -> bool:
    """Whether a call names a path in which nothing is numbered."""
    paths = [text for name, text in _texts(args) if "/" in text and name.casefold().endswith(_PATHS)]
    return bool(paths) and not any(letter.isdigit() for text in paths for letter in text)


def _texts(args: Mapping[str, Json], depth: int = _DEPTH) -> list[tuple[str, str]]:
    """The texts in arguments, with the name of what they are in."""
    texts: list[tuple[str, str]] = []
    for name, value in islice(args.items(), _LEAVES):
        if isinstance(value, str):
            texts.append((name, value[:_BOUND]))
        elif depth and value is not None and not isinstance(value, _NUMBERS):
            inner = [value] if isinstance(value, Mapping) else [{name: item} for item in value[:_LEAVES]]
            for each in inner:
                texts += _texts(each, depth - 1)
    return texts


def _is_plain(name: str, value: Json) -> bool:
    """Whether an argument is no free text, for certain and at a glance."""
    if isinstance(value, str):
        return " " not in value and value.isascii() and not _is_question(name)
    return isinstance(value, _NUMBERS)


def _is_free(name: str, text: str) -> bool:
    """Whether a text is more than a name: several words, or a pattern in what a question is in, or without blanks."""
    if name.casefold().endswith(_NAMING):
        return False
    if not text.isascii() or (" " in text and len(text.split(maxsplit=1)) > 1):
        return True
    return _is_question(name) and not text.isalpha() and _DIGITS.isdisjoint(text)


def _is_question(name: str) -> bool:
    return name.casefold() in _QUESTIONS


def _words(text: str) -> Iterable[str]:
    words = encodable(text.casefold()).translate(_MARKS).split()
    if text.isascii():
        return words
    return [part for word in words for part in (word if word[0] >= _EAST else [word])]


def _without_ids(text: str) -> str:
    """A text with ``#`` for what has a digit in it, and for paths and names of files."""
    words = text.split()
    if not _IN_IDS.isdisjoint(text):
        words = ["#" if not (_IDS.isdisjoint(word[:-1]) and _DIGITS.isdisjoint(word)) else word for word in words]
    return " ".join(words)


def _named_in(text: str) -> str:
    """The names of a program in a text: where there are some, it asks about them."""
    return " ".join(word for word in text.split() if "_" in word.strip("_")) if "_" in text else ""


def _without_values(text: str) -> str:
    """A query in a formal language with ``#`` for the tables that it names and the values in quotes."""
    return _VALUES.sub(r"\1 #", text) if text.lower().startswith(_FORMAL) else text


def _digest(text: str, secret: bytes) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_SIZE, key=secret[:64]).hexdigest()


_hashed = lru_cache(maxsize=4096)(_digest)  # of words, of which the same ones come again


@lru_cache(maxsize=4096)
def _parts(wording: str) -> frozenset[str]:
    return frozenset(wording[at : at + 2 * _SIZE] for at in range(2 * _SIZE, len(wording), 2 * _SIZE))
