"""Where a text that still arrives may be cut."""

from __future__ import annotations

import random

from hypothesis import example, given
from hypothesis import strategies as st

from guardrails_mw.gates.cutting import apart, until_apart, words_back


@given(st.text("a1 .-(\n", max_size=60), st.integers(0, 60))
@example("ab - - - - - - 12 c", 2)
def test_the_next_cut_is_the_first_that_is_one(text: str, position: int) -> None:
    """Forwards and backwards agree on where a text may be cut."""
    position = min(position, len(text))
    cuts = [index for index in range(position, len(text)) if index and apart(text, index) == index]
    assert until_apart(text, position) == min(cuts, default=len(text))


def test_words_far_apart_are_counted() -> None:
    """Counting words ends, and goes back far enough, however much stands between them."""
    rng = random.Random(3)
    for _ in range(300):
        starts, text = [], ""
        for _ in range(rng.randint(0, 9)):
            text += rng.choice((" ", "1 " * rng.randint(0, 300), "x.y-z " * rng.randint(0, 90)))
            starts.append(len(text))
            text += rng.choice(("word", "another,", "last. ")) + " "
        for count in (1, 3, 12):
            found = words_back(text, len(text), count)
            assert found in (0, *starts)
            assert found <= (starts[-count] if len(starts) >= count else 0)


def test_words_in_addresses_count_only_far_away() -> None:
    """What may be hidden as a whole does not stand for words around it."""
    text = "phone " + "https://alpha.example/beta/gamma " * 20
    assert words_back(text, len(text), 1) == 0
    assert words_back("phone " + "https://alpha.example/beta " * 300, 8000, 1) > 0
