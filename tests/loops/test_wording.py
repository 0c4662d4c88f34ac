"""Which questions are the same in other words, and which are others."""

from __future__ import annotations

import pytest

from guardrails_mw.loops.wording import alike, asks, is_path_of_words, mostly_in, same_text, wording_of


def of(text: str, name: str = "q", searches: bool = True) -> str:
    return wording_of({name: text}, searches)


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"id": 17},
        {"path": "src/main.py"},
        {"email": "ann@x.org"},
        {"name": "Ann Lee"},
        {"key": "user:ann"},
        {"q": "ORD-17"},
    ],
)
def test_names_numbers_and_paths_are_no_free_text(args: dict[str, object]) -> None:
    """Arguments that name a thing have no wording: with others the call asks for another thing."""
    assert wording_of(args, searches=True) == ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("refund policy for broken goods", "broken goods refund"),
        ("退款政策", "退款规则"),
        ("Frist Elternzeit", "Elternzeit Antrag Frist"),
        ("foo a", "foo b"),
        ("foo 1", "foo 2"),
    ],
)
def test_the_same_in_other_words(one: str, other: str) -> None:
    """Questions that share a third of their words are alike, in any script, and none is the other's text."""
    assert alike(of(one), of(other))
    assert not same_text(of(one), of(other))


def test_other_questions() -> None:
    """Questions with no word in common are not alike, unless most words were asked before."""
    assert not alike(of("opening hours"), of("refund policy"))
    assert mostly_in(of("opening policy"), [of("opening hours"), of("refund policy")])
    assert not mostly_in(of("parking lot"), [of("opening hours"), of("refund policy")])


def test_what_is_numbered_is_the_same_text() -> None:
    """A query, a command or a sentence that differs in ids and paths only is the same text about other things."""
    for one, other in (
        ("select * from t where id = 17", "select * from t where id = 18"),
        ("git mv old/a.py new/a.py", "git mv old/b.py new/b.py"),
        ("Summarise chapter 3", "Summarise chapter 4"),
    ):
        assert same_text(of(one, "command", False), of(other, "command", False))


def test_who_asks() -> None:
    """A question is free text under a question's name, or anything free that a searching tool is told."""
    assert asks({"query": "refund policy"}, searching=False)
    assert asks({"what": "refund policy"}, searching=True)
    assert not asks({"what": "refund policy"}, searching=False)
    assert not asks({"query": "SELECT a FROM t"}, searching=True)
    assert not asks({"query": "INV-1042"}, searching=True)
    assert not asks({"name": "Ann Lee"}, searching=True)


def test_paths_of_words() -> None:
    """A path without a number may be a guess; one with a number is of a list, and a name is no path."""
    assert is_path_of_words({"path": "src/main.py"})
    assert not is_path_of_words({"path": "src/part-3.py"})
    assert not is_path_of_words({"key": "src/main.py"})


def test_words_are_hashes() -> None:
    """Of the words only short hashes are kept, no more than eight, others under another secret."""
    wording = of(" ".join(f"word{n}x" for n in "abcdefghijklmnop"))
    assert len(wording) == 4 + 8 * 4
    assert wording != wording_of({"q": " ".join(f"word{n}x" for n in "abcdefghijklmnop")}, True, b"secret")


def test_queries_about_other_tables_and_values() -> None:
    """A formal query over another table, or for another value, is the same text about another thing."""
    for one, other in (
        ("select count(*) from orders where open", "select count(*) from invoices where open"),
        ("select id from users where name = 'Ann'", "select id from users where name = 'Bob'"),
        ("grep -rn first_name src/", "grep -rn last_name src/"),
    ):
        assert same_text(of(one, "command", searches=False), of(other, "command", searches=False))
    assert not same_text(
        of("select id from users where name = 'Ann'", "sql", searches=False),
        of("select id from users where name like '%ann%'", "sql", searches=False),
    )


def test_names_of_a_program_are_what_a_pattern_asks_about() -> None:
    """Patterns for other names are other questions, whatever keyword they have in common."""
    assert not alike(of("def open_door", "pattern"), of("def read_mail", "pattern"))
    assert alike(of("def open_door", "pattern"), of("open_door called by", "pattern"))
    assert of("kubernetes") == ""
    assert of("open|close") != ""
