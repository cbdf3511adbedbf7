"""What every store promises about search: Gmail's language, order, pages, facets, threads."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from casekeeper.documents.query_parser import parse_query
from casekeeper.documents.search import Facet, Hit, Order, PageStart, SearchDocuments, find
from casekeeper.documents.threads import thread_of
from casekeeper.errors import CursorInvalid
from casekeeper.journal.commits import Commit
from casekeeper.paging import Cursors
from tests.contract.shelf import LATER, NOW, OWNER, Shelf

ELSEWHERE = "cf_260301_ffffff"
MAILS: dict[str, dict[str, Any]] = {
    "rent": {
        "title": "Rent is due",
        "sender": "Ann Lee <ann@example.com>",
        "recipients": ["bob@example.org"],
        "cc": ["Lawyer <law@example.net>"],
        "text": "Please pay the rent until Friday.",
        "labels": ["Inbox", "Flat/Rent 2026"],
        "message_id": "1@example.com",
        "day": 3,
    },
    "reply": {
        "title": "Re: Rent is due",
        "sender": "bob@example.org",
        "recipients": ["ann@example.com"],
        "bcc": ["spy@example.net"],
        "text": "I paid. The heating is broken!",
        "labels": ["Sent"],
        "filenames": ["proof of payment.pdf"],
        "message_id": "2@example.org",
        "references": ["1@example.com"],
        "day": 4,
    },
    "umlaut": {
        "title": "Über die Heizung",
        "sender": "käthe@example.com",
        "recipients": ["ann@example.com"],
        "text": "Naïve café, straße",
        "labels": ["Inbox", "Unread"],
        "metadata": {"lists": ["tenants.example.com"]},
        "day": 5,
    },
    "long": {
        "title": "Minutes",
        "sender": "Ann Lee <ann@example.com>",
        "recipients": ["all@example.com"],
        "text": "until Friday the rent " + "and more " * 3000,
        "message_id": "4@example.com",
        "references": ["2@example.org"],
        "day": 9,
    },
    "scan": {
        "kind": "pdf",
        "title": "scan.pdf",
        "filenames": ["scan.pdf"],
        "text": "Lease of the flat",
        "day": 0,
    },
}


async def file(shelf: Shelf, casefile_id: str | None = None) -> dict[str, str]:
    ids: dict[str, str] = {}
    for name, fields in MAILS.items():
        values = {**fields, **({"casefile_id": casefile_id} if casefile_id else {})}
        day, text = int(str(values.pop("day"))), values.pop("text")
        sent_at = datetime(2026, 2, day, 9, tzinfo=UTC) if day else None
        added = shelf.document(text, sent_at=sent_at, **values)
        await shelf.commit(Commit(records=(added,)))
        ids[added.document.document_id] = name
    return ids


async def search(
    shelf: Shelf, query: str, order: Order = Order.RELEVANCE, place: PageStart | None = None, limit: int = 50
) -> list[Hit]:
    term = parse_query(query, LATER, "ann@example.com")
    rows = await shelf.storage.search.search(shelf.casefile_id, term, order, place or PageStart(), limit)
    return [row.hit for row in rows]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("rent", "rent reply long"),
        ("RENT", "rent reply long"),
        ("rent heating", "reply"),
        ("from:ann", "rent long"),
        ("from:me", "rent long"),
        ("to:ann@example.com", "reply umlaut"),
        ("to:law", "rent"),
        ("cc:law", "rent"),
        ("cc:bob", ""),
        ("bcc:spy", "reply"),
        ("subject:rent", "rent reply"),
        ("subject:(rent due)", "rent reply"),
        ("subject:{heizung minutes}", "umlaut long"),
        ('"until Friday"', "rent long"),
        ('"Friday until"', ""),
        ("after:2026/02/04", "reply umlaut long"),
        ("before:2026/02/04", "rent"),
        ("older:2026/02/04 OR newer:2026/02/09", "rent long"),
        ("from:ann after:2026-02-05", "long"),
        ("newer_than:21d", "long"),
        ("older_than:21d", "rent reply umlaut"),
        ("-older_than:21d", "long scan"),
        ("cafe uber", "umlaut"),
        ("rent -heating", "rent long"),
        ("-rent", "umlaut scan"),
        ("-rent -heizung", "scan"),
        ("heating OR cafe", "reply umlaut"),
        ("{heating cafe lease}", "reply umlaut scan"),
        ("rent (heating OR minutes)", "reply long"),
        ("rent heating OR minutes", "reply long"),
        ("-{rent lease}", "umlaut"),
        ("rent -(heating OR minutes)", "rent"),
        ("pay AROUND 3 Friday", "rent"),
        ("pay AROUND 1 Friday", ""),
        ("label:inbox", "rent umlaut"),
        ("label:flat-rent-2026", "rent"),
        ('label:"Flat/Rent 2026"', "rent"),
        ("label:flat", ""),
        ("in:sent", "reply"),
        ("in:anywhere rent", "rent reply long"),
        ("is:unread", "umlaut"),
        ("is:read", "rent reply long scan"),
        ("has:attachment", "reply"),
        ("-has:attachment rent", "rent long"),
        ("has:userlabels", "rent"),
        ("has:nouserlabels", "reply umlaut long scan"),
        ("filename:pdf", "reply scan"),
        ('filename:"proof of payment"', "reply"),
        ("larger:10K", "long"),
        ("smaller:10K label:inbox", "rent umlaut"),
        ("larger:10K OR cafe", "umlaut long"),
        ("-(larger:10K OR cafe)", "rent reply scan"),
        ("larger:999999999999999G", ""),
        ("list:tenants.example.com", "umlaut"),
        ("rfc822msgid:1@example.com", "rent"),
        ("rfc822msgid:<1@example.com>", "rent"),
        ("kind:pdf", "scan"),
        ("nothing-like-this", ""),
        ("", "rent reply umlaut long scan"),
        ('" OR * NEAR( ) AND : ^', ""),
    ],
)
async def test_search_finds_exactly_what_was_asked_for(shelf: Shelf, query: str, found: str):
    ids = await file(shelf)

    hits = await search(shelf, query)

    assert {ids[hit.document_id] for hit in hits} == set(found.split())


async def test_search_stays_inside_its_casefile(shelf: Shelf):
    await shelf.casefile(ELSEWHERE)
    here, _ = await file(shelf), await file(shelf, ELSEWHERE)

    for query in ("rent", "-rent", "", "larger:1 OR rent", "label:inbox", "-larger:10M"):
        assert {hit.document_id for hit in await search(shelf, query)} <= here.keys()


async def test_a_word_in_the_subject_weighs_more_than_in_the_text(shelf: Shelf):
    ids = await file(shelf)

    hits = await search(shelf, "rent")

    assert [ids[hit.document_id] for hit in hits] == ["rent", "reply", "long"]


@pytest.mark.parametrize(
    ("order", "names"),
    [(Order.NEWEST, "scan long umlaut reply rent"), (Order.OLDEST, "rent reply umlaut long scan")],
)
async def test_hits_come_by_date(shelf: Shelf, order: Order, names: str):
    ids = await file(shelf)

    assert [ids[hit.document_id] for hit in await search(shelf, "", order)] == names.split()


async def test_a_snippet_shows_where_the_words_stand(shelf: Shelf):
    await file(shelf)

    [hit] = await search(shelf, "heating")

    assert hit.snippet == "I paid. The heating is broken!"
    assert [hit.snippet[start:end] for start, end in hit.highlights] == ["heating"]


async def test_a_snippet_of_what_is_found_elsewhere_is_the_beginning(shelf: Shelf):
    await file(shelf)

    [hit] = await search(shelf, "subject:minutes")

    assert hit.snippet.startswith("until Friday the rent")
    assert hit.highlights == []


async def test_a_word_deep_in_a_long_text_is_shown_where_it_stands(shelf: Shelf):
    await shelf.commit(
        Commit(records=(shelf.document("filler " * 50_000 + "the needle " + "hay " * 50_000),))
    )

    [hit] = await search(shelf, "needle")

    assert [hit.snippet[start:end] for start, end in hit.highlights] == ["needle"]


async def test_a_word_that_stands_a_hundred_thousand_times_is_found_at_once(shelf: Shelf):
    # By the index's own snippets it takes minutes.
    await shelf.commit(Commit(records=(shelf.document("same " * 100_000),)))

    [hit] = await search(shelf, "same")

    assert hit.snippet.startswith("same same")


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("query", ["", "rent OR heizung OR lease", "larger:1"])
async def test_pages_hold_every_hit_once(shelf: Shelf, order: Order, query: str):
    ids = await file(shelf)
    cursors = Cursors(b"secret")
    wanted = SearchDocuments(query=query, order=order, limit=2)
    whole = await search(shelf, query, order)

    walked: list[str] = []
    for _ in range(10):
        page = await find(shelf.storage.search, cursors, lambda: NOW, shelf.casefile_id, OWNER, wanted)
        walked += [hit.document_id for hit in page.items]
        if page.next_cursor is None:
            break
        wanted = wanted.model_copy(update={"cursor": page.next_cursor})

    assert len(walked) == len(ids)
    assert sorted(walked) == sorted(hit.document_id for hit in whole)


async def test_a_cursor_of_another_search_is_refused(shelf: Shelf):
    await file(shelf)
    cursors = Cursors(b"secret")
    wanted = SearchDocuments(query="rent", limit=1)
    page = await find(shelf.storage.search, cursors, lambda: NOW, shelf.casefile_id, OWNER, wanted)

    other = wanted.model_copy(update={"query": "lease", "cursor": page.next_cursor})

    with pytest.raises(CursorInvalid):
        await find(shelf.storage.search, cursors, lambda: NOW, shelf.casefile_id, OWNER, other)


async def test_facets_count_what_was_found(shelf: Shelf):
    await file(shelf)

    facets = await shelf.storage.search.facets(shelf.casefile_id, parse_query("rent OR lease", NOW))

    assert facets.total == 4
    assert facets.kinds == [Facet(value="mail", count=3), Facet(value="pdf", count=1)]
    assert facets.senders[0] == Facet(value="Ann Lee <ann@example.com>", count=2)
    assert facets.years == [Facet(value="2026", count=3)]
    assert {facet.value for facet in facets.labels} == {"Inbox", "Flat/Rent 2026", "Sent"}


async def test_facets_come_with_the_first_page_where_asked_for(shelf: Shelf):
    await file(shelf)
    wanted = SearchDocuments(query="rent", kind="mail", facets=True)

    found = await find(shelf.storage.search, Cursors(b"s"), lambda: NOW, shelf.casefile_id, OWNER, wanted)

    assert found.facets is not None
    assert [(facet.value, facet.count) for facet in found.facets.kinds] == [("mail", 3)]


@pytest.mark.parametrize("start", ["rent", "reply", "long"])
async def test_a_conversation_is_found_from_any_of_its_mails(shelf: Shelf, start: str):
    ids = await file(shelf)
    [document_id] = [one for one, name in ids.items() if name == start]
    document = await shelf.storage.documents.document(shelf.casefile_id, document_id)
    assert document is not None

    mails = await thread_of(shelf.storage.search, shelf.casefile_id, document)

    assert [ids[mail.document_id] for mail in mails] == ["rent", "reply", "long"]


async def test_gmails_thread_number_decides_where_there_is_one(shelf: Shelf):
    added = [
        shelf.document(name, title=name, thread_id=thread, message_id=f"{name}@x", references=["a@x"])
        for name, thread in (("a", "17"), ("b", "18"), ("c", "17"))
    ]
    await shelf.commit(Commit(records=tuple(added)))

    mails = await thread_of(shelf.storage.search, shelf.casefile_id, added[0].document)

    assert {mail.title for mail in mails} == {"a", "c"}


async def test_what_was_acknowledged_is_found_while_others_write(shelf: Shelf):
    async def add_and_find(number: int) -> None:
        await shelf.commit(Commit(records=(shelf.document(f"word{number}x"),)))
        assert len(await search(shelf, f"word{number}x")) == 1

    await asyncio.gather(*(add_and_find(number) for number in range(30)))


PIECES = [
    *(
        "(",
        ")",
        "{",
        "}",
        '"',
        "-",
        "+",
        " ",
        " OR ",
        " AND ",
        " AROUND 2 ",
        "|",
        "from:",
        "to:",
        "label:",
        "has:",
    ),
    *(
        "after:",
        "older_than:",
        "larger:",
        "2026/02/04",
        "3d",
        "10k",
        "rent",
        "é",
        "*",
        "^",
        ":",
        "\ud800",
        "𐐀",
        "²",
    ),
    *("is:read", "subject:(", "ann", "\x00", "'", "NEAR(", "scope"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
async def test_any_text_can_be_searched_for(shelf: Shelf, text: str):
    for order in Order:
        await search(shelf, text, order, limit=5)
    await shelf.storage.search.facets(shelf.casefile_id, parse_query(text, NOW))


async def test_the_deepest_and_longest_query_can_be_searched_for(shelf: Shelf):
    await file(shelf)
    deep = "(" * 500 + "rent" + ")" * 500
    negated = " ".join(f"-w{number}" for number in range(400))
    mixed = " OR ".join(f"(w{number} larger:{number})" for number in range(200))

    for query in (
        deep,
        negated,
        mixed,
        "-(" * 300 + "a",
        "{" * 900 + "larger:1 b",
        "-{a (b " * 200,
        "-{larger:1 (b " * 200,
    ):
        await search(shelf, query)
