from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.documents.query import (
    EVERYTHING,
    QUERY_MAX_CHARS,
    TERMS_MAX,
    And,
    ExactTerm,
    Field,
    Near,
    Not,
    Or,
    Phrase,
    Sent,
    Size,
    Term,
    Word,
    leaves,
)
from casekeeper.documents.query_parser import parse_query
from casekeeper.documents.query_values import age, day, size

NOW = datetime(2026, 3, 31, 12, 30, tzinfo=UTC)
A, B, C, D = (Word(letter) for letter in "abcd")


def at(year: int, month: int = 1, day: int = 1) -> datetime:
    return datetime(year, month, day, tzinfo=UTC)


def parsed(text: str) -> Term:
    return parse_query(text, NOW, "me@example.com")


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("a", A),
        ("a b", And((A, B))),
        ("a AND b", And((A, B))),
        ("a OR b", Or((A, B))),
        ("a | b", Or((A, B))),
        ("{a b}", Or((A, B))),
        ("a b OR c d", And((A, Or((B, C)), D))),
        ("(a b) OR c", Or((And((A, B)), C))),
        ("-a", Not(A)),
        ("+a", A),
        ("-(a b)", Not(And((A, B)))),
        ("-{a b} c", And((Not(Or((A, B))), C))),
        ("a-b", Word("a-b")),
        ('rent "flat 4"', And((Word("rent"), Phrase("flat 4")))),
        ('a"b c"d', And((A, Phrase("b c"), D))),
        ("a AROUND 5 b", Near(A, B, 5)),
        ('a AROUND(5) "b c"', Near(A, Phrase("b c"), 5)),
        ("from:a", Field("from", A)),
        ('SUBJECT:"rent due" To:a', And((Field("subject", Phrase("rent due")), Field("to", A)))),
        ("from:(a b)", And((Field("from", A), Field("from", B)))),
        ("from:{a b}", Or((Field("from", A), Field("from", B)))),
        ("from:(a OR to:b)", Or((Field("from", A), Field("to", B)))),
        ("-from:a", Not(Field("from", A))),
        ("from:me to:ME subject:me", And((
            Field("from", Word("me@example.com")), Field("to", Word("me@example.com")), Field("subject", Word("me"))
        ))),
        ("deliveredto:a", Field("to", A)),
        ("after:2024/1/5 before:2025-01-01", And((Sent(True, at(2024, 1, 5)), Sent(False, at(2025))))),
        ('newer:"2024/01/05"', Sent(True, at(2024, 1, 5))),
        ("older_than:1y", Sent(False, NOW.replace(year=2025))),
        ("newer_than:2d", Sent(True, NOW - timedelta(days=2))),
        ("larger:10M", Size(True, 10 * 1024**2)),
        ("size:5", Size(True, 5)),
        ("smaller_than:2k", Size(False, 2048)),
        ("label:Work", ExactTerm("label", "Work")),
        ("l:work", ExactTerm("label", "work")),
        ("in:inbox", ExactTerm("label", "inbox")),
        ("in:anywhere", EVERYTHING),
        ("is:read", Not(ExactTerm("label", "unread"))),
        ("is:starred", ExactTerm("label", "starred")),
        ("in:drafts", Or((ExactTerm("label", "draft"), ExactTerm("label", "drafts")))),
        ("is:chat", Or((ExactTerm("label", "chat"), ExactTerm("label", "chats")))),
        ("in:archive", ExactTerm("label", "archived")),
        ("category:primary", ExactTerm("label", "category personal")),
        ("has:attachment", ExactTerm("has", "attachment")),
        ("has:userlabels", ExactTerm("has", "userlabels")),
        ("has:nouserlabels", Not(ExactTerm("has", "userlabels"))),
        ("has:youtube", Phrase("youtube.com")),
        ("has:yellow-star", ExactTerm("label", "yellow-star")),
        ("list:news@example.com", ExactTerm("list", "news@example.com")),
        ("rfc822msgid:1@x", ExactTerm("id", "1@x")),
        ("kind:PDF", ExactTerm("kind", "pdf")),
    ],
)  # fmt: skip
def test_a_query_is_read(text: str, term: Term):
    assert parsed(text) == term


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("", EVERYTHING),
        ('- : "" "  " ()', EVERYTHING),
        ("OR a OR", A),
        ("a OR OR b", Or((A, B))),
        ("a AND OR b", Or((A, B))),
        ("a OR AND b", And((A, B))),
        ("a) b", And((A, B))),
        ("(a", A),
        ("{a (b", Or((A, B))),
        ("a AROUND 5", A),
        ("AROUND 5 b", B),
        ("(a AROUND 5 )", A),
        ("a AROUND 5 from:b", And((A, Field("from", B)))),
        ("a around 5 b", And((A, Word("around"), Word("5"), B))),
        ("--a", Word("--a")),
        ("-()", EVERYTHING),
        ("a -)", A),
        ('"flat 4', Phrase("flat 4")),
        ('subject:"flat', Field("subject", Phrase("flat"))),
        ("from:", EVERYTHING),
        ('from: nora to:""', Word("nora")),
        ("colour:red http://example.com/x", And((Word("colour:red"), Word("http://example.com/x")))),
        ("colour:(red)", And((Word("colour:(red)"[:7]), Word("red")))),
        ("after:2024/02/30", Word("after:2024/02/30")),
        ("before:2024/01-05 after:soon", And((Word("before:2024/01-05"), Word("after:soon")))),
        ('after:"not a day"', Phrase("not a day")),
        ("before:0000-01-01 larger:big", And((Word("before:0000-01-01"), Word("larger:big")))),
        ("from:from:a", Field("from", Word("from:a"))),
        ("tax\x00\ud8002024", And((Word("tax"), Word("2024")))),
    ],
)
def test_a_malformed_query_is_read_as_well_as_can_be(text: str, term: Term):
    assert parsed(text) == term


def test_only_the_first_characters_and_terms_count():
    assert parsed("a " * 200) == And((A,) * TERMS_MAX)
    assert parsed(" " * (QUERY_MAX_CHARS - 5) + "rents and more") == Word("rents")


def test_brackets_beyond_the_limit_are_left_out():
    assert parsed("(" * 300 + "a" + ")" * 300) == A


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["(", ")", "{", "}", '"', "-", "a", "from:", " OR "])).map("".join)
)
def test_any_text_is_a_query_of_searchable_terms(text: str):
    for term in leaves(parsed(text)):
        value = term.term if isinstance(term, Field) else term
        if isinstance(value, Word | Phrase):
            assert any(character.isalnum() for character in value.text)
            value.text.encode()


@given(st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=2, max_size=20))
def test_plain_words_are_themselves(words: list[str]):
    assert parsed(" ".join(words)) == And(tuple(Word(word) for word in words))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2024", at(2024)),
        ("2024/02", at(2024, 2)),
        ("2024/2/5", at(2024, 2, 5)),
        ("02/05/2024", at(2024, 2, 5)),
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("2024/13/01", None),
        ("13/13/2024", None),
        ("yesterday", None),
    ],
)
def test_a_day_begins_at_midnight_utc(text: str, instant: datetime | None):
    assert day(text) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("3h", NOW - timedelta(hours=3)),
        ("2w", NOW - timedelta(weeks=2)),
        ("1m", datetime(2026, 2, 28, 12, 30, tzinfo=UTC)),
        ("99999y", at(1)),
        ("99999w", NOW - timedelta(weeks=99999)),
        ("99999d", NOW - timedelta(days=99999)),
        ("3", None),
        ("d", None),
    ],
)
def test_an_age_reaches_back_as_calendars_do(text: str, instant: datetime | None):
    assert age(text, NOW) == instant


def test_an_age_before_the_calendar_is_its_beginning():
    assert age("99999w", at(1500)) == at(1)


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("10kb", 10240), ("1m", 1024**2), ("2g", 2 * 1024**3), ("1t", None)]
)
def test_a_size_is_in_binary_units(text: str, number: int | None):
    assert size(text) == number
