"""Tests of the pattern engine that gates share."""

from __future__ import annotations

import pytest
import re2

from guardrails_mw.errors import GateError
from guardrails_mw.patterns import PatternSet


def test_names_of_all_matching_patterns_are_given_in_order():
    """Every pattern that matches is named, and no other."""
    patterns = PatternSet({"b": "beta", "a": "al.ha", "c": "gamma"})
    assert patterns.matching("alpha and beta") == ["b", "a"]


def test_alternatives_and_groups_change_nothing_but_the_time():
    """One of several patterns is enough, the first place of any of them is given, whatever engine they sit in."""
    patterns = {"b": ["beta", "be"], "none": "zeta", "a": ["al.ha", "gamma"]}
    for groups in (1, 2, 5):
        split = PatternSet(patterns, groups=groups)
        assert split.matching("gamma alpha beta") == ["b", "a"]
        assert (split.search("a", "gamma alpha"), split.search("none", "beta")) == ((0, 5), None)
        assert list(split.spans("b", "beta be")) == [(0, 4), (5, 7)]


def test_line_anchors_are_not_disturbed_by_the_canary():
    """A pattern anchored at the end of the text still matches although a canary follows it."""
    assert PatternSet({"end": "last$"}).matching("first and last") == ["end"]


def test_a_scan_that_lost_its_canary_is_an_error_not_an_all_clear():
    """An engine that reports nothing at all, as RE2 does when it runs out of memory, fails closed."""
    patterns = PatternSet({"word": "hello", "other": "world"}, groups=2)
    deaf = re2.Filter()
    deaf.Add("hello")
    deaf.Compile()
    patterns._engines[1] = (deaf, [1])
    for text in ("nothing here", "hello"):
        with pytest.raises(GateError, match="pattern_memory"):
            patterns.matching(text)


def test_spans_are_code_points_and_take_the_group():
    """Offsets count code points, also after characters outside the basic plane."""
    assert list(PatternSet({"value": "key=(\\d+)"}).spans("value", "😀key=12 é key=3")) == [(5, 7), (14, 15)]


def test_a_match_hides_none_that_begins_in_its_value():
    """In a row of names every value is found, once, however many names come before it."""
    patterns = PatternSet({"value": "key:\\s(\\S+)"})
    for times in (1, 2, 3, 30):
        text = "key: " * times + "end"
        found = list(patterns.spans("value", text))
        assert text[slice(*found[-1])] == "end"
        assert len(found) == len(set(found)) == times


def test_a_wrong_pattern_is_named():
    """The author of a pattern that RE2 does not know learns which one it was."""
    with pytest.raises(ValueError, match="mirror: not an RE2 pattern"):
        PatternSet({"mirror": r"(a)\1"})
