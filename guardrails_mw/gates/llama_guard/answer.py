r"""What a Llama Guard model answers: ``safe``, or ``unsafe`` and on the next line the categories.

Llama Guard 3 puts two newlines before the word (``"\n\nunsafe\nS1,S9"``); anything that is not this
form is no answer at all, and never counts as safe.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import re2

from guardrails_mw.errors import GateError
from guardrails_mw.verdict import Usage

__all__ = ["MAX_ANSWER_TOKENS", "Answer", "parse", "probability", "side"]

MAX_ANSWER_TOKENS = 20
"""Room for the word and its categories; the figure of the Llama Guard 3 model card."""

_CATEGORY = re2.compile(r"[A-Z]\d{1,2}")


@dataclass(frozen=True, slots=True)
class Answer:
    """One judgement.

    Attributes:
        score: P(unsafe), 0 to 1.
        categories: codes as the model listed them, empty when it listed none.
        used: the tokens that it took, where somebody has told.
    """

    score: float
    categories: tuple[str, ...] = ()
    used: Usage | None = field(default=None, repr=False, compare=False)


def parse(text: str) -> tuple[bool, tuple[str, ...]]:
    r"""Whether the answer is unsafe, and its category codes; whatever else it lists is dropped.

    Raises:
        GateError: ``llama_guard.unparsable`` when the answer is not clearly one or the other.

    >>> parse("\n\nunsafe\nS1, S9"), parse("safe")
    ((True, ('S1', 'S9')), (False, ()))
    """
    word, _, rest = text.strip().partition("\n")
    verdict = word.strip().lower()
    if verdict == "safe" and not rest.strip():
        return False, ()
    if verdict == "unsafe":
        codes = (code.strip().upper() for code in rest.split("\n")[0].split(","))
        return True, tuple(code for code in codes if _CATEGORY.fullmatch(code))
    raise GateError("llama_guard.unparsable")


def side(token: str) -> str:
    r"""Which word a first token begins: ``safe``, ``unsafe``, or nothing.

    A tokenizer may cut "unsafe" into "un" and "safe"; no beginning of one word begins the other.

    >>> side(" un"), side("safe"), side("\n\n"), side("sure")
    ('unsafe', 'safe', '', '')
    """
    word = token.strip().lower()
    return next((full for full in ("unsafe", "safe") if word and full.startswith(word)), "")


def probability(candidates: Iterable[tuple[str, float]]) -> float:
    """P(unsafe): softmax over the tokens that begin one of the two words.

    Args:
        candidates: the word each token begins, and the token's logit or log-probability (nats).

    Raises:
        GateError: ``llama_guard.unparsable`` when no token begins either word.

    >>> probability([("safe", 0.0), ("unsafe", 0.0), ("", 9.0)])
    0.5
    """
    known = [(word, value) for word, value in candidates if word and not math.isnan(value)]
    top = max((value for _, value in known), default=-math.inf)
    if math.isinf(top):
        raise GateError("llama_guard.unparsable")
    weights = [(word, math.exp(value - top)) for word, value in known]
    return sum(weight for word, weight in weights if word == "unsafe") / sum(weight for _, weight in weights)
