import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import (
    CasefileIsActive,
    CasefileIsAt,
    CasefileView,
    DeleteCasefile,
    OpenRecordSession,
    PutCasefile,
    Status,
)
from casekeeper.casefiles.commands import CreateCasefile, GetCasefile, ListCasefiles, UpdateCasefile
from casekeeper.errors import (
    CasefileArchived,
    CasefileNotFound,
    CursorInvalid,
    OperatorOnly,
    RoleTooLow,
    StaleVersion,
)
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.sessions.manager import At
from tests.unit.support import ANNA, BEN, CARA, NOW, ROOT, House, open_house


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


async def see(house: House, caller: Principal, casefile_id: str) -> CasefileView:
    return await house.casefiles.get(caller, GetCasefile(casefile_id=casefile_id))


# Creating


async def test_who_makes_a_casefile_owns_it(house: House, anna: Principal):
    made = await house.casefile(anna, title="Rent dispute", tags=["rent"])

    assert made.model_dump(exclude={"casefile_id", "record_session_id"}) == {
        "title": "Rent dispute",
        "description": "",
        "tags": ["rent"],
        "status": "active",
        "public_role": "none",
        "owner": ANNA,
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
        "user_permission": "owner",
    }


async def test_a_casefile_begins_its_own_record(house: House, anna: Principal):
    made = await house.casefile(anna)

    facts = await house.facts(made.record_session_id or "")
    assert [(f["seq"], f["kind"], f["inputs"]) for f in facts] == [
        (1, "casefile_created", {"title": "Rent dispute"})
    ]


async def test_a_repeated_create_makes_one_casefile(house: House, anna: Principal):
    command = CreateCasefile(title="Rent dispute")

    answers = await asyncio.gather(
        *(house.casefiles.create(anna, command, house.ask(anna, "req")) for _ in range(10))
    )

    assert len({casefile.casefile_id for casefile, _ in answers}) == 1
    assert sorted(repeated for _, repeated in answers) == [False] + [True] * 9


async def test_an_id_that_is_taken_is_drawn_again(house: House, anna: Principal):
    taken = list[str]()

    async def rival(commit: Commit) -> None:
        """Somebody else drew the same id a moment earlier."""
        await house.storage.commits.commit(commit)
        taken.extend(r.casefile.casefile_id for r in commit.records if isinstance(r, PutCasefile))

    house.commits.meanwhile(rival)
    made = await house.casefile(anna)

    assert taken
    assert made.casefile_id not in taken


async def test_a_record_sessions_id_that_is_taken_is_drawn_again(house: House, anna: Principal):
    taken = list[str]()

    async def rival(commit: Commit) -> None:
        sessions = [r for r in commit.records if isinstance(r, OpenRecordSession)]
        await house.storage.commits.commit(Commit(records=sessions))
        taken.extend(r.session_id for r in sessions)

    house.commits.meanwhile(rival)
    made = await house.casefile(anna)

    assert taken
    assert made.record_session_id not in taken


async def test_a_server_may_leave_creating_to_operators(directory: Path):
    async with open_house(directory, everybody_creates=False) as house:
        with pytest.raises(OperatorOnly):
            await house.casefile(await house.caller(ANNA))
        assert (await house.casefile(await house.caller(ROOT))).owner == ROOT


BAD_FIELDS: list[dict[str, Any]] = [
    {"title": ""},
    {"title": " "},
    {"title": "x" * 201},
    {"title": "a\nb"},
    {"title": "a\x00b"},
    {"title": "a\x7fb"},
    {"title": None},
    {"title": "a", "description": "x" * 10_001},
    {"title": "a", "description": "\x00"},
    {"title": "a", "tags": [""]},
    {"title": "a", "tags": ["x"] * 51},
    {"title": "a", "tags": "rent"},
    {"title": "a", "public_role": "editor"},
    {"title": "a", "owner": BEN},
]


@pytest.mark.parametrize("fields", BAD_FIELDS)
def test_a_casefile_that_does_not_fit_is_refused(fields: dict[str, Any]):
    with pytest.raises(ValidationError):
        CreateCasefile(**fields)


# Reading


async def test_the_record_session_is_named_to_admins_only(house: House, anna: Principal):
    made = await house.casefile(anna)
    named = dict[str, bool]()
    for user, role in ((BEN, Role.ADMIN), (CARA, Role.EDITOR)):
        await house.account(user)
        await house.grant(anna, made.casefile_id, user, role)
        named[user] = (
            await see(house, await house.caller(user), made.casefile_id)
        ).record_session_id is not None

    assert named == {BEN: True, CARA: False}


async def test_a_public_reader_sees_that_they_are_one(house: House, anna: Principal):
    made = await house.casefile(anna, public_role="viewer")

    seen = await see(house, await house.caller(BEN), made.casefile_id)

    assert (seen.user_permission, seen.record_session_id) == ("public", None)


async def test_a_casefile_that_vanishes_while_it_is_read_is_missing(house: House, anna: Principal):
    made = await house.casefile(anna)
    await house.freshness.stands(ANNA, "", 0)
    caller = await house.caller(ANNA, made.casefile_id)
    # The tombstone alone, without its number in the feed: what a reader may see between two reads.
    await house.storage.commits.commit(Commit(records=(tombstone(made.casefile_id),)))

    with pytest.raises(CasefileNotFound):
        await see(house, caller, made.casefile_id)
    with pytest.raises(CasefileNotFound):
        await house.update(caller, made.casefile_id, title="Gone")


def tombstone(casefile_id: str) -> Any:
    return DeleteCasefile(casefile_id, NOW)


# Listing


async def test_pages_list_every_casefile_of_the_caller_once_newest_first(house: House, anna: Principal):
    made = list[str]()
    for number in range(5):
        made.append((await house.casefile(anna)).casefile_id)
        house.clock.advance(seconds=number % 2)
    await house.casefile(await house.caller(BEN))
    seen, cursor = list[str](), None

    while True:
        page = await house.casefiles.page(anna, ListCasefiles(limit=2, cursor=cursor))
        seen += [casefile.casefile_id for casefile in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert sorted(seen) == sorted(made)
    assert len(seen) == 5


async def test_a_list_can_be_cut_to_one_status(house: House, anna: Principal):
    active, archived = await house.casefile(anna), await house.casefile(anna)
    await house.update(anna, archived.casefile_id, status="archived")

    found = {
        status: [
            c.casefile_id for c in (await house.casefiles.page(anna, ListCasefiles(status=status))).items
        ]
        for status in Status
    }

    assert found == {Status.ACTIVE: [active.casefile_id], Status.ARCHIVED: [archived.casefile_id]}


async def test_a_cursor_of_another_list_is_refused(house: House, anna: Principal):
    for _ in range(2):
        await house.casefile(anna)
    page = await house.casefiles.page(anna, ListCasefiles(limit=1))

    with pytest.raises(CursorInvalid):
        await house.casefiles.page(
            anna, ListCasefiles(limit=1, status=Status.ACTIVE, cursor=page.next_cursor)
        )
    with pytest.raises(CursorInvalid):
        await house.casefiles.page(await house.caller(BEN), ListCasefiles(cursor=page.next_cursor))


async def test_public_casefiles_are_not_in_the_lists_of_strangers(house: House, anna: Principal):
    await house.casefile(anna, public_role="viewer")

    assert (await house.casefiles.page(await house.caller(BEN), ListCasefiles())).items == []


async def test_what_was_revoked_expired_or_deleted_is_not_listed(house: House, anna: Principal):
    made = [await house.casefile(anna) for _ in range(4)]
    await house.account(BEN)
    for casefile in made:
        until = house.clock.now.replace(hour=13) if casefile is made[1] else None
        await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER, until=until)
    await house.revoke(anna, made[0].casefile_id, BEN)
    house.clock.advance(hours=1)
    await house.delete(anna, made[2].casefile_id)

    page = await house.casefiles.page(await house.caller(BEN), ListCasefiles())

    assert [c.casefile_id for c in page.items] == [made[3].casefile_id]


# Changing


async def test_what_is_not_given_stays(house: House, anna: Principal):
    made = await house.casefile(anna, description="The rent", tags=["rent"])

    changed = await house.update(anna, made.casefile_id, title="Flat 4")

    assert (changed.title, changed.description, changed.tags) == ("Flat 4", "The rent", ["rent"])


async def test_an_archived_casefile_can_only_be_made_active_again(house: House, anna: Principal):
    made = await house.casefile(anna)
    archived = await house.update(anna, made.casefile_id, status="archived")

    for changes in ({"title": "Flat 4"}, {"public_role": "viewer"}, {"status": "archived"}):
        with pytest.raises(CasefileArchived):
            await house.update(anna, made.casefile_id, **changes)
    active = await house.update(anna, made.casefile_id, status="active", title="Flat 4")

    assert (archived.status, active.status, active.title) == ("archived", "active", "Flat 4")


async def test_the_record_tells_archiving_apart(house: House, anna: Principal):
    made = await house.casefile(anna)
    for changes in ({"title": "Flat 4"}, {"status": "archived"}, {"status": "active"}):
        await house.update(anna, made.casefile_id, **changes)

    assert await house.kinds(made.record_session_id) == [
        "casefile_created",
        "casefile_updated",
        "casefile_archived",
        "casefile_updated",
    ]


@pytest.mark.parametrize(("public_role", "numbers"), [("viewer", 1), ("none", 0)])
async def test_only_a_change_of_the_public_role_takes_a_number_of_the_feed(
    house: House, anna: Principal, public_role: str, numbers: int
):
    made = await house.casefile(anna)
    before = (await house.storage.accounts.head()).number

    await house.update(anna, made.casefile_id, public_role=public_role, title="Flat 4")

    assert (await house.storage.accounts.head()).number - before == numbers


async def test_an_editor_changes_no_casefile(house: House, anna: Principal):
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.EDITOR)

    with pytest.raises(RoleTooLow):
        await house.update(await house.caller(BEN), made.casefile_id, title="Mine")


def test_an_update_knows_no_other_fields():
    with pytest.raises(ValidationError, match="owner"):
        UpdateCasefile.model_validate({"casefile_id": "cf_251023_5acf44", "owner": BEN})


# Deleting


async def test_a_deleted_casefile_is_missing_for_everybody(house: House, anna: Principal):
    made = await house.casefile(anna, public_role="viewer")
    await house.delete(anna, made.casefile_id)

    for caller in (anna, await house.caller(BEN)):
        with pytest.raises(CasefileNotFound):
            await see(house, caller, made.casefile_id)


async def test_an_admin_deletes_nothing(house: House, anna: Principal):
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.ADMIN)

    with pytest.raises(RoleTooLow):
        await house.delete(await house.caller(BEN), made.casefile_id)


async def test_what_runs_in_a_deleted_casefile_is_stopped(directory: Path):
    async with open_house(directory) as house:
        anna = await house.caller(ANNA)
        made = await house.casefile(anna)
        started = await house.start(anna, At(casefile_id=made.casefile_id), "sleepy")

        await house.delete(anna, made.casefile_id)
        outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.failure.type == "rights_lost"


# Conditions, as other commits use them


@pytest.mark.parametrize(
    "condition", [CasefileIsActive("cf_251023_000000"), CasefileIsAt("cf_251023_000000", 1)]
)
async def test_a_condition_on_a_missing_casefile_finds_nothing(house: House, condition: Any):
    with pytest.raises(CasefileNotFound):
        await house.commits.commit(Commit(conditions=(condition,)))


async def test_the_conditions_on_a_casefile_tell_what_is_wrong(house: House, anna: Principal):
    made = await house.casefile(anna)
    await house.update(anna, made.casefile_id, status="archived")

    with pytest.raises(CasefileArchived):
        await house.commits.commit(Commit(conditions=(CasefileIsActive(made.casefile_id),)))
    with pytest.raises(StaleVersion):
        await house.commits.commit(Commit(conditions=(CasefileIsAt(made.casefile_id, 1),)))
    await house.commits.commit(Commit(conditions=(CasefileIsAt(made.casefile_id, 2),)))
