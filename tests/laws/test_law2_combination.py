"""Law 2: verdicts combine by `max`, edits by union on the original content."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.event import Content
from guardrails_mw.redaction import apply, resolve
from guardrails_mw.verdict import Action, Check, Edit, Finding, Operator, Verdict, combine

TEXT = "0123456789abcdef"


@st.composite
def edits(draw: st.DrawFn) -> Edit:
    start = draw(st.integers(0, len(TEXT) - 1))
    return Edit(start, draw(st.integers(start + 1, len(TEXT))), draw(st.sampled_from(["", "*", "[X]"])), 0,
                draw(st.sampled_from(Operator)))  # fmt: skip


verdicts = st.builds(
    Verdict,
    st.sampled_from(Action),
    st.sampled_from(["", "a", "b"]),
    st.lists(edits(), max_size=4).map(tuple),
    st.lists(st.builds(Finding, st.sampled_from(["T", "U"]), st.integers(0, 3), st.integers(4, 9)), max_size=2).map(
        tuple
    ),
)
checks = st.lists(
    st.builds(Check, st.sampled_from(["g1", "g2", "g3", "g4"]), verdicts), max_size=5, unique_by=lambda c: c.gate
)


def _flat(verdict: Verdict) -> Check:
    return Check("g0", verdict)


@given(checks, st.randoms())
def test_order_never_matters(given_checks: list[Check], rng: random.Random) -> None:
    """Commutative: any order of gates gives the same verdict."""
    shuffled = list(given_checks)
    rng.shuffle(shuffled)
    assert combine(shuffled) == combine(given_checks)


@given(checks)
def test_saying_it_twice_changes_nothing(given_checks: list[Check]) -> None:
    """Idempotent."""
    assert combine([*given_checks, *given_checks]) == combine(given_checks)


@given(checks, checks)
def test_grouping_never_matters(left: list[Check], right: list[Check]) -> None:
    """Associative, in what is enforced: action, edits and findings of parts combined are those of the whole."""
    whole, parts = combine([*left, *right]), combine([_flat(combine(left)), _flat(combine(right))])
    assert (parts.action, set(parts.edits), set(parts.findings)) == (
        whole.action,
        set(whole.edits),
        set(whole.findings),
    )


@given(checks)
def test_strictest_wins_and_no_edit_is_lost(given_checks: list[Check]) -> None:
    """`max` of actions, a block absorbs, and every edit is kept under every action."""
    verdict = combine(given_checks)
    assert verdict.action == max((c.verdict.action for c in given_checks), default=Action.ALLOW)
    assert set(verdict.edits) == {edit for c in given_checks for edit in c.verdict.edits}


@given(st.lists(edits(), min_size=1, max_size=6), st.randoms())
def test_overlapping_edits_hide_all_they_cover(some: list[Edit], rng: random.Random) -> None:
    """Characters that any edit covers are gone, all others stay in order, whatever order the edits come in."""
    shuffled = list(some)
    rng.shuffle(shuffled)
    marked = [Edit(e.start, e.end, "", e.part, e.operator) for e in some]
    left = apply(Content(TEXT), marked).value
    covered = {i for e in some for i in range(e.start, e.end)}
    assert left == "".join(char for i, char in enumerate(TEXT) if i not in covered)
    assert resolve(some) == resolve(shuffled)


@given(st.lists(edits(), min_size=2, max_size=6))
def test_the_stronger_operator_shows(some: list[Edit]) -> None:
    """Where spans overlap, the replacement is that of the strongest operator: remove > mask > hash > token."""
    for span in resolve(some):
        inside = [e for e in some if e.start >= span.start and e.end <= span.end]
        assert span.operator == max(e.operator for e in inside)
        assert span.text in {e.text for e in inside if e.operator == span.operator}
