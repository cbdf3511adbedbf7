"""What reaches an operation while it waits, and under which rights it goes on."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import CasefileView, PutCasefile, PutGrant, Status
from casekeeper.casefiles.permissions import RevokeRole
from casekeeper.errors import SessionBusy, StoreUnavailable
from casekeeper.execution.runner import Ending
from casekeeper.execution.status import CancelOperation
from casekeeper.identity.accounts import DeactivateAccount, PutAccount
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Failure, Kind
from casekeeper.journal.operations import Wake
from casekeeper.sessions.manager import At
from casekeeper.sessions.session import CloseSession
from tests.unit.execution.waiting.stage import Stage
from tests.unit.execution.waiting.steps import copy_rows, ended_kind, parked, wake
from tests.unit.support import ANNA, BEN, NOW, ROOT, House, open_house

# What reaches it while it waits


async def test_it_is_cancelled_at_once(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses", size=100_000)
    command = CancelOperation(event_id=outcome.event_id, reason="not needed")

    async with asyncio.timeout(3):
        answer = await house.operations.cancel(anna, command)

    assert answer.error is not None
    assert (answer.status, answer.error.type, answer.error.message) == ("failed", "cancelled", "not needed")
    assert await ended_kind(house, outcome) == ("cancelled", "cancelled")
    assert await house.storage.blobs.get(casefile.casefile_id, f"snapshot_{outcome.event_id}_1") is None


async def test_closing_a_session_needs_cancel_and_ends_it(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")
    command = CloseSession(session_id=outcome.session_id)

    with pytest.raises(SessionBusy):
        await house.sessions.close_session(anna, command, house.ask(anna))
    async with asyncio.timeout(3):
        await house.sessions.close_session(anna, command.model_copy(update={"cancel": True}), house.ask(anna))

    assert await house.kinds(outcome.session_id) == ["opened", "started", "cancelled", "closed"]


async def test_a_revoke_ends_it_and_names_it(house: House, anna: Principal, casefile: CasefileView):
    ben = await house.caller(BEN)
    waits = await parked(house, ben, casefile, "pauses")
    annas = await parked(house, anna, casefile, "pauses")
    command = RevokeRole(casefile_id=casefile.casefile_id, user_id=BEN)

    async with asyncio.timeout(0.9):
        revoked, _ = await house.permissions.revoke(anna, command, house.ask(anna))

    assert (revoked.waiting, revoked.stopped, revoked.unconfirmed) == ([waits.event_id], [], {})
    assert await ended_kind(house, waits) == ("cancelled", "rights_lost")
    assert await house.row(annas.event_id) is not None


async def test_a_lower_role_ends_only_what_it_does_not_cover(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    reads, writes = (
        await parked(house, ben, casefile, "pauses"),
        await parked(house, ben, casefile, "pauses_writing"),
    )

    await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)

    assert await ended_kind(house, writes) == ("cancelled", "rights_lost")
    assert await house.row(reads.event_id) is not None


async def test_deactivating_its_user_ends_it(house: House, anna: Principal, casefile: CasefileView):
    root = await house.caller(ROOT)
    outcome = await parked(house, await house.caller(BEN), casefile, "pauses")

    await house.accounts.deactivate(root, DeactivateAccount(user_id=BEN), house.ask(root))

    assert await ended_kind(house, outcome) == ("cancelled", "rights_lost")


async def test_deleting_the_casefile_ends_it(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses")

    await house.delete(anna, casefile.casefile_id)

    assert await house.row(outcome.event_id) is None


async def test_archiving_ends_what_would_change_something(
    house: House, anna: Principal, casefile: CasefileView
):
    reads, writes = (
        await parked(house, anna, casefile, "pauses"),
        await parked(house, anna, casefile, "pauses_writing"),
    )

    await house.update(anna, casefile.casefile_id, status=Status.ARCHIVED)

    assert await ended_kind(house, writes) == ("cancelled", "casefile_archived")
    await wake(house, reads.event_id)
    [ended] = await house.wake()
    assert ended.status == "completed"


async def test_more_waiting_work_than_a_page_holds_is_ended_by_one_revoke(directory: Path, stage: Stage):
    async with open_house(directory, tools=stage.tools()) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        outcomes = [await parked(house, anna, casefile, "pauses") for _ in range(3)]
        [first, *_] = await house.storage.events.opened([outcomes[0].event_id])
        copies = 1_100
        await copy_rows(house, first.row.event_id, copies)

        receipt = await house.stopping.stop("enough", casefile_id=casefile.casefile_id)

        assert len(receipt.waiting) == 1_000
        assert await house.storage.events.open_of(casefile.casefile_id, None) == []


# Going on under the rights of the moment


async def test_lost_rights_that_nobody_told_of_deny_it_when_it_goes_on(
    house: House, anna: Principal, casefile: CasefileView
):
    await house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR, until=NOW + timedelta(hours=1))
    outcome = await parked(house, await house.caller(BEN), casefile, "pauses")
    house.clock.advance(hours=2)
    await wake(house, outcome.event_id)

    assert await house.wake() == []

    assert await ended_kind(house, outcome) == ("denied", "rights_lost")


async def test_a_role_that_was_lowered_by_hand_denies_it(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    outcome = await parked(house, ben, casefile, "pauses_writing")
    grant = await house.storage.casefiles.grant(casefile.casefile_id, BEN)
    assert grant is not None

    lowered = grant.model_copy(update={"role": Role.VIEWER})
    await house.storage.commits.commit(Commit(records=(PutGrant(lowered),)))
    await wake(house, outcome.event_id)

    assert await house.wake() == []
    assert await ended_kind(house, outcome) == ("denied", "role_too_low")


async def test_an_archived_casefile_lets_nothing_go_on_that_changes_it(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses_writing")

    stored = await house.storage.casefiles.casefile(casefile.casefile_id)
    assert stored is not None
    archived = PutCasefile(stored.model_copy(update={"status": Status.ARCHIVED}))
    await house.storage.commits.commit(Commit(records=(archived,)))
    await wake(house, outcome.event_id)

    assert await house.wake() == []
    assert await ended_kind(house, outcome) == ("cancelled", "casefile_archived")


async def test_a_permission_that_changes_while_it_is_taken_up_is_looked_up_again(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    outcome = await parked(house, ben, casefile, "pauses")
    await wake(house, outcome.event_id)

    async def meanwhile(_: Commit) -> None:
        await house.grant(anna, casefile.casefile_id, BEN, Role.ADMIN)

    house.commits.meanwhile(meanwhile)
    [ended] = await house.wake()

    assert ended.status == "completed"


async def test_an_outage_leaves_it_waiting(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses")
    await wake(house, outcome.event_id)

    async def outage(_: Commit) -> None:
        raise StoreUnavailable("The store cannot be reached.")

    house.commits.meanwhile(outage)
    with pytest.raises(StoreUnavailable):
        await house.resume(outcome.event_id)
    [ended] = await house.wake()

    assert ended.status == "completed"


async def test_parking_is_tried_again_until_it_is_on_disk(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "pauses")

    async def outage(_: Commit) -> None:
        raise StoreUnavailable("The store cannot be reached.")

    house.commits.meanwhile(outage, outage)
    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.status == "pending"
    assert (await house.row(outcome.event_id)) is not None


async def test_parking_twice_because_an_answer_was_lost_is_parking_once(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "pauses")

    async def lost(commit: Commit) -> None:
        await house.commits.behind.commit(commit)
        raise StoreUnavailable("The answer was lost.")

    house.commits.meanwhile(lost)
    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.status == "pending"
    assert [one.kind for one in outcome.waiting_for] == ["signal"]


async def test_what_was_taken_up_in_the_meantime_is_not_ended_from_outside(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses_then_works")
    [opened] = await house.storage.events.opened([outcome.event_id])
    successor = await house.resume(outcome.event_id)
    assert successor is not None

    lost = Ending(
        Kind.CANCELLED, failure=Failure(type="rights_lost", message="The permission for it was lost.")
    )
    assert await house.detached.end([opened], lost) == ([], {})

    stage.go.set()
    assert (await successor.running.ended).status == "completed"


async def test_what_runs_when_it_is_asked_to_stop_is_stopped_after_it_was_taken_up(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses_then_works")
    successor = await house.resume(outcome.event_id)
    assert successor is not None

    await house.operations.cancel(anna, CancelOperation(event_id=outcome.event_id))

    assert await ended_kind(house, outcome) == ("cancelled", "cancelled")


async def test_an_account_that_is_not_active_any_more_denies_it(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, await house.caller(BEN), casefile, "pauses")
    stored = await house.storage.accounts.account(BEN)
    assert stored is not None
    inactive = replace(stored, account=stored.account.model_copy(update={"is_active": False}))
    await house.storage.commits.commit(Commit(records=(PutAccount(inactive),)))
    await wake(house, outcome.event_id)

    assert await house.wake() == []

    assert await ended_kind(house, outcome) == ("denied", "rights_lost")


async def test_waking_it_twice_or_late_is_waking_it_once(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")
    row = await house.row(outcome.event_id)
    assert row is not None
    for _ in range(2):
        await wake(house, outcome.event_id)
    [ended] = await house.wake()

    await house.commits.commit(Commit(records=(Wake(row.ref, house.clock()),)))
    await house.delete(anna, casefile.casefile_id)
    await house.commits.commit(Commit(records=(Wake(row.ref, house.clock()),)))

    assert ended.status == "completed"
    assert await house.wake() == []
    assert stage.runs["pauses"] == 2
