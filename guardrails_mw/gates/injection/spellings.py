"""Spellings: folded texts as they read when look-alike letters, leet, rot13, mirror writing and typos are undone.

What is worth undoing is known by a vocabulary, the words that attacks are made of: a text that does not hold one of
them in disguise has no such view and costs one look at its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import re2

from guardrails_mw.gates.injection.folding import View, Way, rewritten

__all__ = ["Speller"]

_WORD = re.compile("[a-z]{3,}")
_MIXED = re.compile(r"(?<![a-z0-9@$!|])(?:[a-z]+[0-9@$!|]|[0-9@$!|]+[a-z])[a-z0-9@$!|]*")
_DIGITS = re.compile(r"(?<![\w.,:-])[0134579]{1,4}(?![\w,:-])")
_TOKEN = re.compile(r"[^\W_]+")
_LEET = str.maketrans("01345789@$!|", "oieastbgasil")
_TWINS = str.maketrans(
    # Cyrillic, Greek, Armenian, small capitals and phonetic letters, by the Latin letter that they look like
    "авсԁеёнһіїјкӏмпорԛгѕтѵԝхуьαβεηικνορτυχγωσһսօոհցզյϲϳᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡıɩʋƅϝλ",
    "abcdeehhiijklmnopqrstvwxybabenikvoptuxywohuonhgqjcjabcdefghijklmnoprstuvwyzagiivbfl",
)
_BLENDED = re2.compile("[a-z][{0}]|[{0}][a-z]".format("".join(map(chr, _TWINS))))
_LEETISH = re2.compile("[a-z][013457@$|]|[013457@$|][a-z]")
_ROT13 = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")
_COMMON = ("the", "you", "your", "this", "that", "with", "from", "have", "what", "are", "all", "and", "not", "will")
_REAL = frozenset({"era", "ton", "dna", "saw", "was", "lla", "liew", "evil", "live", "stop", "pots", "tool", "loot"})


class Speller:
    """Undoes spellings of a vocabulary: lower-case words.

    >>> speller = Speller(["ignore", "previous"])
    >>> [(view.name, view.text) for view in speller.respelled(View("text", "1gn0re the pervious"))]
    [('letters', 'ignore the previous')]
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        words = frozenset(vocabulary) | frozenset(_COMMON)
        self._words = words
        self._rot13 = frozenset(word.translate(_ROT13) for word in words) - words
        self._mirrored = frozenset(word[::-1] for word in words) - words - _REAL
        self._typos = {typo: word for word in words if len(word) > 4 for typo in _swapped(word)}
        for word in words:
            self._typos.pop(word, None)
        self._misspelt = frozenset(self._typos)
        self._odd = self._rot13 | self._mirrored | self._misspelt

    def respelled(self, view: View) -> Iterator[View]:
        """The views of a view's folded text in which something reads differently."""
        words = set(_WORD.findall(view.text))
        if not self._odd.isdisjoint(words):
            if len(words & self._rot13) > 1:
                yield View("rot13", view.text.translate(_ROT13), view.span, folded=True)
            if len(words & self._mirrored) > 1:
                yield from _mirrored(view)
        letters = self._letters(view.text)
        if letters != view.text:
            words = set(_WORD.findall(letters))
        if not words.isdisjoint(self._misspelt):
            text, way = self._corrected(letters, view.span)
            yield View("respelled" if letters == view.text else "letters", text, way, folded=True)
        elif letters != view.text:
            yield View("letters", letters, view.span, folded=True)

    def _corrected(self, text: str, way: Way) -> tuple[str, Way]:
        found = ((match, self._typos.get(match.group())) for match in _WORD.finditer(text))
        return rewritten(text, [(*match.span(), word) for match, word in found if word], way)

    def _letters(self, text: str) -> str:
        """Look-alike letters and digits replaced, one by one, so that offsets stay."""
        if not text.isascii() and _BLENDED.search(text):
            text = _latin(text)
        if not _LEETISH.search(text):
            return text
        plain: list[bool] = []

        def read(match: re.Match[str]) -> str:
            token = match.group()
            ending = token[len(token.rstrip("!|")) :]  # an exclamation, not a letter
            body = token[: len(token) - len(ending)]
            first = body.translate(_LEET)
            other = body.replace("1", "l").translate(_LEET)
            best = other if other in self._words and first not in self._words else first
            plain.append(best in self._words)
            return best + ending

        new = _MIXED.sub(read, text)
        if not any(plain):
            return text
        return _DIGITS.sub(lambda match: match.group().translate(_LEET), new) if len(plain) > 3 else new


def _latin(text: str) -> str:
    """Words that mix Latin letters with their twins from other scripts, in Latin letters."""
    mixed = False

    def read(match: re.Match[str]) -> str:
        nonlocal mixed
        token = match.group()
        if token.isascii():
            return token
        new = token.translate(_TWINS)
        if not new.isascii():
            return token
        mixed = mixed or any(char.isascii() and char.isalpha() for char in token)
        return new

    new = _TOKEN.sub(read, text)
    return new if mixed else text


def _mirrored(view: View) -> Iterator[View]:
    """The text read from its end, and every word of it read from its end."""
    length = len(view.text)
    yield View("reversed", view.text[::-1], lambda start, end: view.span(length - end, length - start), folded=True)
    words = " ".join(word[::-1] for word in view.text.split(" "))
    yield View("mirrored", words, view.span, folded=True)


def _swapped(word: str) -> Iterator[str]:
    """The word with two neighbouring letters in the wrong order, or one doubled letter missing or too many."""
    for index in range(len(word) - 1):
        if word[index] != word[index + 1]:
            yield word[:index] + word[index + 1] + word[index] + word[index + 2 :]
    if len(word) > 6:
        for index in range(1, len(word) - 1):
            yield word[:index] + word[index + 1 :]
            yield word[:index] + word[index] + word[index:]
