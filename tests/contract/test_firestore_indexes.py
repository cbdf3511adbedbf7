"""`firestore.indexes.json` declares what production Firestore needs for the store's queries, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import DeleteCasefile, EraseContents
from casekeeper.journal.commits import Commit, ForgetExpired
from casekeeper.journal.requests import ReleaseClaim
from casekeeper.journal.things import Topic
from casekeeper.sessions.reading import QueryEvents
from casekeeper.sessions.session import SessionFilter, SessionIsIdle
from tests.contract.conftest import Opening
from tests.contract.indexes import declared, watched_queries
from tests.contract.shelf import GUEST, LATER, NOW, OWNER, Shelf

pytestmark = [pytest.mark.timeout(120), pytest.mark.parametrize("opening", ["firestore"], indirect=True)]

ACROSS: list[dict[str, Any]] = [
    {"view": "journal"},
    {"view": "operations"},
    {"event_ids": ["evt_1"]},
    {"operation_type": "tool"},
    {"operation_name": "noop"},
    {"parent_event_id": "evt_1"},
    {"request_id": "r"},
    {"actor": OWNER},
    {"kinds": ["failed"]},
]

INSIDE: list[dict[str, Any]] = [
    {"view": "journal"},
    {"view": "operations"},
    {"operation_name": "noop"},
    {"kinds": ["failed"]},
]


async def test_the_indexes_are_those_that_the_queries_need(opening: Opening):
    async with opening() as storage:
        with watched_queries() as needed:
            shelf = await Shelf.filled(storage)
            await _read_everything(shelf)

    assert needed == declared()


async def _read_everything(shelf: Shelf) -> None:
    storage = shelf.storage
    await shelf.grant(GUEST, Role.VIEWER)
    fact = await shelf.operation()
    for order in ("asc", "desc"):
        for wanted in (*ACROSS, {"session_ids": [shelf.session_id]}):
            page = QueryEvents.model_validate({**wanted, "order": order})
            await storage.events.facts_seen_by(GUEST, NOW, page, None, 10)
        for wanted in INSIDE:
            await shelf.facts(None, order=order, **wanted)
    await storage.events.operation(fact.event_id)
    await storage.events.open_operations(shelf.session_id)
    await storage.events.children(fact.event_id)
    await storage.events.opened([fact.event_id])
    await storage.events.due(10)
    await storage.events.open_of(shelf.casefile_id, OWNER)
    await storage.events.asked_to_stop("alive")
    await storage.events.orphans("alive", 10)
    await storage.events.heads([shelf.session_id])
    await storage.tail.read(shelf.casefile_id, None, 10)
    await storage.tail.casefiles_with_news(await storage.tail.end(shelf.casefile_id))
    await shelf.check()
    for user_id in (OWNER, GUEST):
        await storage.sessions.sessions_seen_by(user_id, NOW, SessionFilter(), None, 10)
        for before in (None, (1, "cf_260301_abc123")):
            await storage.casefiles.casefiles_of(user_id, NOW, None, before, 10)
    await storage.casefiles.grants(shelf.casefile_id, "", 10)
    await storage.casefiles.expired_grants(NOW, 10)
    await storage.accounts.accounts("", 10)
    await storage.accounts.keys(OWNER)
    await storage.accounts.changes(0)
    await storage.accounts.number_before(0)
    for kind in (None, "mail"):
        await storage.documents.documents(shelf.casefile_id, kind, None, 10)
    await storage.documents.counts(shelf.casefile_id)
    await shelf.commit(Commit(records=(shelf.document("text"),)))
    await storage.documents.counts(shelf.casefile_id)
    await storage.documents.old_uploads(NOW, 10)
    for state in (None, "asked"):
        await storage.things.page("parking_permit", Topic("casefile", shelf.casefile_id), state, None, 10)
    for thing_kind in (None, "parking_permit"):
        await storage.things.due(thing_kind, NOW, 10)
    await shelf.commit(Commit((), (SessionIsIdle(shelf.session_id),)))
    await shelf.commit(Commit(records=(ReleaseClaim("evt_1", LATER),)))
    await shelf.commit(Commit(records=(ForgetExpired(NOW + timedelta(days=1)),)))
    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
    await storage.casefiles.deleted_casefiles(10)
    await shelf.commit(Commit(records=(EraseContents(shelf.casefile_id),)))
