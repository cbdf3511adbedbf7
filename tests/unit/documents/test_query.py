from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.documents.query import (
    TERMS_MAX,
    After,
    Before,
    Field,
    Phrase,
    Query,
    Term,
    Word,
    parse_query,
)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("tax 2024", [Word("tax"), Word("2024")]),
        ('rent "flat 4"', [Word("rent"), Phrase("flat 4")]),
        ('a"b c"d', [Word("a"), Phrase("b c"), Word("d")]),
        ("from:nora@example.com", [Field("from", Word("nora@example.com"))]),
        (
            'SUBJECT:"rent adjustment" To:mira',
            [Field("subject", Phrase("rent adjustment")), Field("to", Word("mira"))],
        ),
        ("after:2024/1/5 before:2025-01-01", [After(date(2024, 1, 5)), Before(date(2025, 1, 1))]),
        ('after:"2024/01/05"', [After(date(2024, 1, 5))]),
    ],
)
def test_a_query_is_read(text: str, terms: list[Term]):
    assert parse_query(text) == Query(tuple(terms))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ('- : "" "  " ()', []),
        ('"flat 4', [Phrase("flat 4")]),
        ('subject:"flat', [Field("subject", Phrase("flat"))]),
        ("from:", []),
        ('from: nora to:""', [Word("nora")]),
        ("colour:red http://example.com/x", [Word("colour:red"), Word("http://example.com/x")]),
        ("after:2024/02/30", [Word("after:2024/02/30")]),
        ("before:2024/01-05 after:soon", [Word("before:2024/01-05"), Word("after:soon")]),
        ("before:0000-01-01", [Word("before:0000-01-01")]),
        ("from:from:a", [Field("from", Word("from:a"))]),
        ("tax\x00\ud8002024", [Word("tax"), Word("2024")]),
    ],
)
def test_a_malformed_query_is_read_as_well_as_can_be(text: str, terms: list[Term]):
    assert parse_query(text) == Query(tuple(terms))


def test_days_begin_at_midnight_utc():
    assert (
        After(date(2024, 1, 5)).instant
        == Before(date(2024, 1, 5)).instant
        == datetime(2024, 1, 5, tzinfo=UTC)
    )


def test_only_the_first_characters_and_terms_count():
    assert parse_query("a " * 200) == Query((Word("a"),) * TERMS_MAX)
    assert parse_query(" " * 995 + "rents and more") == Query((Word("rents"),))


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(['"', "from:", "after:", "2024/01/01", " ", "é", ":", "-", "\ud800"])).map(
        "".join
    )
)
def test_any_text_is_a_query_of_searchable_terms(text: str):
    for term in parse_query(text).terms:
        value = term.term if isinstance(term, Field) else term
        if isinstance(value, Word | Phrase):
            assert any(character.isalnum() for character in value.text)
            value.text.encode()


@given(st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), max_size=20))
def test_plain_words_are_themselves(words: list[str]):
    assert parse_query(" ".join(words)) == Query(tuple(Word(word) for word in words))
