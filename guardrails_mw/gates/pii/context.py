"""Words near a match that make it likelier: "ssn" before nine digits.

The rule is Presidio's (five words before the match, a word that contains a recognizer's context word,
0.35 on top and 0.4 at least) with two differences. Placeholders and whatever has been found already do not count
as words, so that hiding a value does not change what its neighbours mean; and short context words count
only as whole words.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from guardrails_mw.gates.pii.matching import Match
from guardrails_mw.placeholder import CHECK_LETTERS

__all__ = ["PLACEHOLDER", "boosted", "split_name"]

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
    if not any(match.score < 1 and words.get(match.entity) for match in matches):
        yield from (match for match in matches if keeps(text, match))
        return
    near: deque[str] = deque(maxlen=_WORDS_BEFORE)
    ahead = _words(text)
    word, taken = next(ahead, None), 0
    supported: dict[str, bool] = {}  # holds until the next word
    for match in matches:
        while word is not None and word.start() < match.start:
            if word.start() >= taken:
                near.extend(w for w in split_name(word.group()) if w not in _FILLERS)
                supported.clear()
            word = next(ahead, None)
        score = match.score
        if score < 1:
            if match.entity not in supported:
                supported[match.entity] = _supported(words.get(match.entity, ()), (*near, *given))
            if supported[match.entity]:
                score = min(max(score + _GAIN, _FLOOR), 1.0)
        final = match._replace(score=score)
        if keeps(text, final):
            taken = max(taken, final.end)
            yield final


def _words(text: str) -> Iterator[re.Match[str]]:
    return (match for match in _WORD.finditer(text) if match.group()[0] != "[")


def _supported(wanted: Sequence[str], near: Iterable[str]) -> bool:
    around = list(near)
    return any(_stands(word, around) for word in wanted)


def _stands(word: str, around: Sequence[str]) -> bool:
    if " " in word:
        return all(_stands(each, around) for each in word.split())
    if len(word) <= _SHORT:
        return any(w in (word, f"{word}s") for w in around)
    return any(word in w for w in around)
