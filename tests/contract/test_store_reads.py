"""What every store promises about reading: access, walks while others write, filters, search, blobs, erasure."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, Scope
from casekeeper.casefiles.casefile import (
    DeleteCasefile,
    EraseContents,
    PublicRole,
    PutCasefile,
    RemoveGrant,
)
from casekeeper.clock import to_us
from casekeeper.documents.document import DropUpload, PutUpload, Upload
from casekeeper.documents.query import Word
from casekeeper.documents.search import Order, PageStart
from casekeeper.errors import BodyTooLarge
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.sessions.reading import EventPage, QueryEvents
from casekeeper.sessions.session import SessionFilter, Visibility
from tests.contract.shelf import GUEST, LATER, NOW, OWNER, Shelf

pytestmark = pytest.mark.timeout(60)

ENDS = NOW + timedelta(hours=1)
ALL = SessionFilter()


# Access


async def test_a_grant_is_found_with_the_feeds_number_of_the_same_moment(shelf: Shelf):
    granted = await shelf.grant(GUEST, Role.EDITOR, expires_at=ENDS)

    found = await shelf.storage.casefiles.access(GUEST, shelf.casefile_id)

    assert found is not None
    assert found.grant == granted
    assert found.asof == (await shelf.storage.accounts.head()).number
    assert found.user_changed == 0


async def test_whoever_has_no_grant_finds_the_casefile_without_one(shelf: Shelf):
    found = await shelf.storage.casefiles.access(GUEST, shelf.casefile_id)

    assert found is not None
    assert (found.grant, found.public_role) == (None, PublicRole.NONE)


async def test_the_casefiles_tags_come_with_the_permission(shelf: Shelf):
    casefile = await shelf.storage.casefiles.casefile(shelf.casefile_id)
    assert casefile is not None
    await shelf.commit(
        Commit(records=(PutCasefile(casefile.model_copy(update={"tags": ["hr", "é", "hr"]})),))
    )

    found = await shelf.storage.casefiles.access(GUEST, shelf.casefile_id)

    assert found is not None
    assert found.tags == {"hr", "é"}


async def test_a_missing_and_a_deleted_casefile_have_no_access(shelf: Shelf):
    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))

    assert await shelf.storage.casefiles.access(OWNER, shelf.casefile_id) is None
    assert await shelf.storage.casefiles.access(OWNER, "cf_260301_ffffff") is None
    assert await shelf.storage.casefiles.casefile(shelf.casefile_id) is None
    assert await shelf.storage.sessions.session(shelf.session_id) is None


async def test_a_deactivated_account_has_no_access_whatever_its_grants(shelf: Shelf):
    await shelf.account(OWNER, active=False)

    assert await shelf.storage.casefiles.access(OWNER, shelf.casefile_id) is None


@pytest.mark.parametrize(("after", "is_there"), [(-1, True), (0, False), (1, False)])
async def test_an_expired_grant_is_hidden_from_the_instant_of_its_end(
    shelf: Shelf, after: int, is_there: bool
):
    await shelf.grant(GUEST, Role.ADMIN, expires_at=ENDS)
    now = ENDS + timedelta(microseconds=after)
    casefile_ids = [shelf.casefile_id]

    casefiles = await shelf.storage.casefiles.casefiles_of(GUEST, now, None, None, 10)
    sessions = await shelf.storage.sessions.sessions_seen_by(GUEST, now, ALL, None, 10)
    events = await shelf.storage.events.facts_seen_by(GUEST, now, QueryEvents(view="journal"), None, 10)
    snapshot = await shelf.storage.accounts.snapshot(GUEST, casefile_ids, to_us(now))

    assert [bool(x) for x in (casefiles, sessions, events, snapshot.scopes)] == [is_there] * 4


async def test_expired_grants_are_listed_until_their_end_is_recorded(shelf: Shelf):
    await shelf.grant(GUEST, Role.VIEWER, expires_at=ENDS)
    expired = shelf.storage.casefiles.expired_grants

    assert await expired(ENDS - timedelta(microseconds=1), 10) == []
    assert [grant.user_id for grant in await expired(ENDS, 10)] == [GUEST]
    await shelf.commit(Commit(records=(RemoveGrant(shelf.casefile_id, GUEST),)))
    assert await expired(ENDS, 10) == []


async def test_a_snapshot_holds_scopes_and_numbers_of_one_moment(shelf: Shelf):
    await shelf.grant(GUEST, Role.EDITOR, expires_at=ENDS)
    await shelf.commit(Commit(records=(shelf.change(GUEST, ANY),)))
    ids = [shelf.casefile_id, "cf_260301_ffffff"]

    snapshot = await shelf.storage.accounts.snapshot(GUEST, ids, to_us(NOW))

    head = await shelf.storage.accounts.head()
    assert snapshot.scopes == {shelf.casefile_id: Scope(Role.EDITOR, int(ENDS.timestamp()))}
    assert (snapshot.epoch, snapshot.asof) == (head.epoch, head.number)
    assert snapshot.user_changed == await shelf.storage.accounts.user_changed(GUEST) == head.number


async def test_a_guest_sees_shared_sessions_and_an_admin_all(shelf: Shelf):
    shared = await shelf.session(visibility=Visibility.CASEFILE)
    see = shelf.storage.sessions.sessions_seen_by
    await shelf.grant(GUEST, Role.VIEWER)
    assert [s.session_id for s in await see(GUEST, NOW, ALL, None, 10)] == [shared.session_id]

    await shelf.grant(GUEST, Role.ADMIN)

    assert {s.session_id for s in await see(GUEST, NOW, ALL, None, 10)} == {
        shared.session_id,
        shelf.session_id,
    }


# Walks


async def test_a_walk_over_sessions_meets_each_once_while_others_are_made(shelf: Shelf):
    made = [await shelf.session(created_at=NOW + timedelta(seconds=n // 3)) for n in range(30)]
    expected = {session.session_id for session in made} | {shelf.session_id}
    seen: list[str] = []
    before: tuple[int, str] | None = None
    for turn in range(100):
        page = await shelf.storage.sessions.sessions_seen_by(OWNER, NOW, ALL, before, 4)
        if not page:
            break
        seen += [session.session_id for session in page]
        before = (to_us(page[-1].created_at), page[-1].session_id)
        # Newer than everything: it comes before the walk, which never turns back.
        await shelf.session(created_at=LATER + timedelta(seconds=turn))

    assert len(seen) == len(set(seen))
    assert set(seen) == expected


@pytest.mark.parametrize("view", ["operations", "journal"])
async def test_a_walk_over_a_record_meets_each_fact_once_while_it_grows(shelf: Shelf, view: str):
    for number in range(15):
        await shelf.operation(f"op{number}")
    page = EventPage.model_validate({"view": view})
    seen: list[int] = []
    beyond: int | None = None
    for _ in range(100):
        rows = await shelf.storage.events.facts(shelf.session_id, page, beyond, 4)
        if not rows:
            break
        seen += [row.seq for row in rows]
        beyond = seen[-1]
        if len(seen) < 24:
            await shelf.operation("later")

    assert seen == [row.seq for row in await shelf.facts(view=view)]
    assert len(seen) > 20


async def test_a_walk_backwards_does_not_meet_what_was_added_meanwhile(shelf: Shelf):
    for _ in range(10):
        await shelf.operation()
    page = EventPage(view="journal", order="desc")
    seen: list[int] = []
    beyond: int | None = None
    for _ in range(100):
        rows = await shelf.storage.events.facts(shelf.session_id, page, beyond, 3)
        if not rows:
            break
        seen += [row.seq for row in rows]
        beyond = seen[-1]
        await shelf.operation()

    assert seen == list(range(21, 0, -1))


async def test_events_of_all_sessions_are_walked_by_time(shelf: Shelf):
    sessions = [shelf.session_id, (await shelf.session()).session_id]
    for number in range(12):
        at = NOW + timedelta(seconds=number // 4)
        await shelf.commit(Commit((shelf.fact(Kind.DENIED, sessions[number % 2], started_at=at),)))
    wanted = QueryEvents(view="journal", order="asc")
    seen: list[tuple[int, str, int]] = []
    for _ in range(100):
        rows = await shelf.storage.events.facts_seen_by(OWNER, NOW, wanted, seen[-1] if seen else None, 5)
        if not rows:
            break
        seen += [(row.at_us, row.session_id, row.seq) for row in rows]

    assert len(seen) == 14
    assert seen == sorted(set(seen))


async def test_filters_find_what_they_say_and_nothing_else(shelf: Shelf):
    parent = await shelf.operation("agent", body="the needle is here")
    await shelf.operation("mail_search", Kind.FAILED, parent=parent, request_id="call-1")
    await shelf.operation("note_add", body="100% hay_stack")

    async def names(**wanted: object) -> list[str]:
        page = QueryEvents.model_validate({"order": "asc", **wanted})
        rows = await shelf.storage.events.facts_seen_by(OWNER, NOW, page, None, 10)
        return sorted(json.loads(row.header)["operation_name"] for row in rows)

    assert await names(operation_name="note_add") == ["note_add"]
    assert await names(kinds=["failed"]) == ["mail_search"]
    assert await names(parent_event_id=parent.event_id) == ["mail_search"]
    assert await names(request_id="call-1") == ["mail_search"]
    assert await names(event_ids=[parent.event_id]) == ["agent"]
    assert await names(text="NEEDLE") == ["agent"]
    # What means something to a database means nothing here.
    assert await names(text="100%") == ["note_add"]
    assert await names(text="y_s") == ["note_add"]
    assert await names(text="0_h") == []
    assert await names(actor=GUEST) == []
    assert await names(after=LATER + timedelta(seconds=1)) == []
    assert await names(session_ids=["ts_260301_none_000000"]) == []


async def test_totals_count_how_operations_ended(shelf: Shelf):
    for name, kind in (("a", Kind.SUCCEEDED), ("a", Kind.SUCCEEDED), ("a", Kind.FAILED), ("b", Kind.DENIED)):
        await shelf.operation(name, kind)

    totals = await shelf.storage.sessions.totals(shelf.session_id)

    counted = {(t.operation_name, t.kind): (t.count, t.busy_ms) for t in totals}
    hour_ms = 3_600_000
    assert counted == {
        ("a", "succeeded"): (2, 2 * hour_ms),
        ("a", "failed"): (1, hour_ms),
        ("b", "denied"): (1, hour_ms),
    }


# Documents


async def test_the_same_bytes_twice_add_nothing(shelf: Shelf):
    first, second = shelf.document("same", sha256="a" * 64), shelf.document("same", sha256="a" * 64)

    await asyncio.gather(*(shelf.commit(Commit(records=(added,))) for added in (first, second)))

    stored = await shelf.storage.documents.documents(shelf.casefile_id, None, None, 10)
    assert len(stored) == 1
    known = await shelf.storage.documents.known(shelf.casefile_id, ["a" * 64, "b" * 64])
    assert known == {"a" * 64: stored[0].document_id}


async def test_a_document_is_found_in_its_own_casefile_only(shelf: Shelf):
    added = shelf.document("text")
    await shelf.commit(Commit(records=(added,)))
    documents, document_id = shelf.storage.documents, added.document.document_id

    assert await documents.document(shelf.casefile_id, document_id) == added.document
    assert await documents.raw(shelf.casefile_id, document_id) == b"text"
    assert await documents.document("cf_260301_ffffff", document_id) is None
    assert await documents.raw("cf_260301_ffffff", document_id) is None


async def test_an_upload_waits_until_it_is_dropped(shelf: Shelf):
    upload = Upload("upl_" + "0" * 32, shelf.casefile_id, OWNER, "a.mbox", "a" * 64, 3, NOW)
    await shelf.commit(Commit(records=(PutUpload(upload),)))
    uploads = shelf.storage.documents

    assert await uploads.upload(upload.upload_id) == upload
    assert await uploads.old_uploads(NOW, 10) == []
    assert await uploads.old_uploads(LATER, 10) == [upload]
    await shelf.commit(Commit(records=(DropUpload(upload.upload_id),)))
    assert await uploads.upload(upload.upload_id) is None


# Erasure


async def test_erasing_takes_contents_and_leaves_a_chain_that_verifies(shelf: Shelf):
    await shelf.operation(body="secret")
    await shelf.commit(Commit(records=(shelf.document("secret papers", title="secret"),)))
    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
    assert await shelf.storage.casefiles.deleted_casefiles(10) == [shelf.casefile_id]

    await shelf.commit(Commit(records=(EraseContents(shelf.casefile_id),)))

    assert await shelf.storage.casefiles.deleted_casefiles(10) == []
    rows = await shelf.storage.events.record(shelf.session_id, 0, 100)
    assert [(salt, body) for *_, salt, body, _ in rows] == [(None, None)] * 3
    found = await shelf.storage.search.search(
        shelf.casefile_id, Word("secret"), Order.NEWEST, PageStart(), 10
    )
    assert found == []
    assert await shelf.storage.documents.documents(shelf.casefile_id, None, None, 10) == []
    assert await shelf.storage.casefiles.grants(shelf.casefile_id, "", 10) == []


async def test_a_changed_casefile_is_not_a_new_one(shelf: Shelf):
    casefile = await shelf.storage.casefiles.casefile(shelf.casefile_id)
    assert casefile is not None
    changed = casefile.model_copy(update={"title": "Rent dispute, flat 4", "tags": ["a", "é"], "version": 2})

    await shelf.commit(Commit(records=(PutCasefile(changed),)))

    assert await shelf.storage.casefiles.casefile(shelf.casefile_id) == changed
    mine = await shelf.storage.casefiles.casefiles_of(OWNER, NOW, None, None, 10)
    assert [(c.title, role) for c, role in mine] == [("Rent dispute, flat 4", Role.OWNER)]


# Blobs


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_blob_belongs_to_its_casefile(shelf: Shelf):
    blobs = shelf.storage.blobs
    await blobs.put(shelf.casefile_id, "name", b"bytes")

    assert await blobs.get(shelf.casefile_id, "name") == b"bytes"
    assert await blobs.get("cf_260301_ffffff", "name") is None
    await blobs.erase("cf_260301_ffffff")
    assert await blobs.get(shelf.casefile_id, "name") == b"bytes"
    await blobs.erase(shelf.casefile_id)
    assert await blobs.get(shelf.casefile_id, "name") is None


async def test_a_streamed_blob_tells_its_digest_and_size(shelf: Shelf):
    blobs, parts = shelf.storage.blobs, (b"a" * 100_000, b"", b"b")
    whole = b"".join(parts)

    told = await blobs.put_stream(shelf.casefile_id, "upload", _chunks(*parts), 200_000)

    assert told == (hashlib.sha256(whole).hexdigest(), len(whole))
    with await blobs.open(shelf.casefile_id, "upload") as file:
        assert file.read() == whole


async def test_a_blob_that_is_too_large_leaves_nothing(shelf: Shelf):
    with pytest.raises(BodyTooLarge):
        await shelf.storage.blobs.put_stream(shelf.casefile_id, "upload", _chunks(b"12", b"34"), 3)

    assert await shelf.storage.blobs.get(shelf.casefile_id, "upload") is None


async def test_a_walk_over_casefiles_goes_by_their_age_whenever_they_were_granted(shelf: Shelf):
    ages = {"cf_260301_aaaaaa": 3, "cf_260301_bbbbbb": 1, "cf_260301_cccccc": 2, "cf_260301_dddddd": 2}
    for casefile_id, hours in ages.items():
        await shelf.casefile(casefile_id, created_at=NOW + timedelta(hours=hours))
    for casefile_id in sorted(ages, reverse=True):
        await shelf.grant(GUEST, Role.VIEWER, casefile_id=casefile_id)
    # A role that is changed stays where it is.
    await shelf.grant(GUEST, Role.ADMIN, casefile_id="cf_260301_bbbbbb")

    walked: list[tuple[str, Role]] = []
    before: tuple[int, str] | None = None
    while page := await shelf.storage.casefiles.casefiles_of(GUEST, NOW, None, before, 1):
        walked += [(casefile.casefile_id, role) for casefile, role in page]
        before = (to_us(page[-1][0].created_at), page[-1][0].casefile_id)

    assert walked == [
        ("cf_260301_aaaaaa", Role.VIEWER),
        ("cf_260301_dddddd", Role.VIEWER),
        ("cf_260301_cccccc", Role.VIEWER),
        ("cf_260301_bbbbbb", Role.ADMIN),
    ]


async def test_grants_are_walked_by_user(shelf: Shelf):
    granted = {user_id: await shelf.grant(user_id, Role.VIEWER) for user_id in ("b@example.com", GUEST)}
    casefiles, walked, after = shelf.storage.casefiles, list[str](), ""
    while page := await casefiles.grants(shelf.casefile_id, after, 1):
        walked += [grant.user_id for grant in page]
        after = walked[-1]

    assert walked == ["b@example.com", GUEST, OWNER]
    assert await casefiles.grant(shelf.casefile_id, GUEST) == granted[GUEST]
    assert await casefiles.grant(shelf.casefile_id, "nobody@example.com") is None


async def test_grants_are_listed_expired_ones_too(shelf: Shelf):
    granted = await shelf.grant(GUEST, Role.VIEWER, expires_at=NOW - timedelta(days=1))

    listed = await shelf.storage.casefiles.grants(shelf.casefile_id, "", 10)

    assert listed[0] == granted
    assert [grant.user_id for grant in listed] == [GUEST, OWNER]


async def test_a_tainted_operation_says_so_in_both_its_facts(shelf: Shelf):
    tainted, other = await shelf.operation(is_tainted=True), await shelf.operation()

    told = {
        event["event_id"]: event.get("tainted")
        for fact in await shelf.facts(view="operations")
        for event in [json.loads(fact.json())]
    }
    headers = [json.loads(fact.header) for fact in await shelf.facts()]
    marked = [(h["event_id"], h["kind"]) for h in headers if "tainted" in h]
    assert told == {tainted.event_id: 1, other.event_id: None}
    assert marked == [(tainted.event_id, "started"), (tainted.event_id, "succeeded")]
    assert (await shelf.check()).exit_code == 0
