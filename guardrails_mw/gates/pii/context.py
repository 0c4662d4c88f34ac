"""Words near a match that make it likelier: "ssn" before nine digits.

The rule is Presidio's (five words before the match, a word that contains a recognizer's context word,
0.35 on top and 0.4 at least) with three differences. Words further away than `REACH` do not count. Nor do placeholders
and whatever has been found already, so that hiding a value does not change what its neighbours mean. And short context
words count only as whole words.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from operator import or_

from guardrails_mw.gates.pii.matching import Match
from guardrails_mw.placeholder import CHECK_LETTERS

__all__ = ["PLACEHOLDER", "REACH", "boosted", "occurring", "split_name"]

PLACEHOLDER = re.compile(rf"\[[A-Z][A-Z_]{{2,40}}(?::[0-9a-f]{{8}}|_[0-9]{{1,5}}_[{CHECK_LETTERS}]{{6}})?\]")
"""What replaces a value: ``[EMAIL_ADDRESS]``, ``[EMAIL_ADDRESS:1f0c22aa]`` or ``[[EMAIL_ADDRESS_1_kvqdzw]]``."""

_WORD = re.compile(rf"{PLACEHOLDER.pattern}|[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FILLERS = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in", "is", "it",
        "its", "my", "of", "on", "or", "our", "the", "to", "was", "with", "your",
    }
)  # fmt: skip
_WORDS_BEFORE = 5
REACH = 384
"""Characters before a match in which words count."""
_GAIN, _FLOOR = 0.35, 0.4
_SHORT = 4
"""Context words up to this long must be the whole word, or its plural: "call" is in "callback"."""


def split_name(name: str) -> list[str]:
    """The words of an identifier, in lower case.

    >>> split_name("customerSSN_no")
    ['customer', 'ssn', 'no']
    """
    return [word.lower() for piece in re.split(r"[\W_]+", name) for word in _HUMP.split(piece) if word]


def boosted(
    text: str,
    matches: Sequence[Match],
    words: Mapping[str, Sequence[str]],
    keeps: Callable[[str, Match], bool],
    given: Sequence[str] = (),
) -> Iterator[Match]:
    """The matches that count, with their final scores, in order.

    Args:
        text: what was searched.
        matches: sorted matches.
        words: context words of each entity, in lower case.
        keeps: whether a match with its final score counts.
        given: words that hold for the whole text, such as the key it stands under.
    """
    unsure = {match.entity for match in matches if match.score < 1}
    support = _Support({entity: occurring(words.get(entity, ()), text, given) for entity in unsure}, given)
    if not support:
        yield from (match for match in matches if keeps(text, match))
        return
    near: deque[tuple[int, int]] = deque(maxlen=_WORDS_BEFORE)
    ahead = _words(text)
    word, taken = next(ahead, None), 0
    for match in matches:
        while word is not None and word.start() < match.start:
            if word.start() >= taken:
                near.extend((word.start(), each) for each in support.said(word.group()))
            word = next(ahead, None)
        while near and near[0][0] < match.start - REACH:
            near.popleft()
        final = match
        if match.score < 1 and support.of(match.entity, near):
            final = match._replace(score=min(max(match.score + _GAIN, _FLOOR), 1.0))
        if keeps(text, final):
            taken = max(taken, final.end)
            yield final


def occurring(wanted: Iterable[str], text: str, given: Sequence[str] = ()) -> list[str]:
    """The context words, and phrases by their first word, that can be found in the text or among the given words."""
    lower = " ".join((text, *given)).lower()
    return [word for word in wanted if word.split()[0] in lower]


def _words(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _WORD.finditer(text) if match.group()[0] != "[")


class _Support:
    """Which entities some words support. Each word of a text is read once; sets of words are bits."""

    def __init__(self, wanted: Mapping[str, Sequence[str]], given: Sequence[str]) -> None:
        atoms = sorted({atom for phrases in wanted.values() for phrase in phrases for atom in phrase.split()})
        self._atoms = [(1 << i, atom) for i, atom in enumerate(atoms)]
        bits = {atom: bit for bit, atom in self._atoms}
        self._wanted = {
            entity: [sum({bits[atom] for atom in phrase.split()}) for phrase in phrases]
            for entity, phrases in wanted.items()
        }
        self._said: dict[str, tuple[int, ...]] = {}
        self._given = reduce(or_, map(self._stands, given), 0)

    def __bool__(self) -> bool:
        return bool(self._atoms)

    def said(self, word: str) -> tuple[int, ...]:
        """For each word of an identifier that is no filler, the wanted ones that it stands for."""
        known = self._said.get(word)
        if known is None:
            pieces = [word] if word.islower() else split_name(word)
            known = self._said[word] = tuple(self._stands(each) for each in pieces if each not in _FILLERS)
        return known

    def of(self, entity: str, near: Iterable[tuple[int, int]]) -> bool:
        """Whether what stands near, or is given, supports the entity."""
        around = self._given
        for _, stands in near:
            around |= stands
        return around > 0 and any(each & around == each for each in self._wanted[entity])

    def _stands(self, word: str) -> int:
        return sum(bit for bit, atom in self._atoms if _is(atom, word))


def _is(wanted: str, word: str) -> bool:
    return word in (wanted, f"{wanted}s") if len(wanted) <= _SHORT else wanted in word
