"""Operations that wait: parking, going on, and what reaches them meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from dirty_equals import IsPartialDict
from pydantic_core import from_json, to_json

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import CasefileView, PutCasefile, PutGrant, Status
from casekeeper.casefiles.permissions import RevokeRole
from casekeeper.documents.document import NewDocument
from casekeeper.errors import SessionBusy, ShuttingDown, StoreUnavailable
from casekeeper.execution.facts import terminal_fact
from casekeeper.execution.nesting import LOOK_AGAIN
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.recovery import CRASHES_MAX, Recovery
from casekeeper.execution.runner import Ending
from casekeeper.execution.service import Execute
from casekeeper.execution.status import CancelOperation, GetOperation
from casekeeper.identity.accounts import DeactivateAccount
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind, Payload, fact_of
from casekeeper.journal.operations import (
    AT_ONCE,
    NOBODY,
    AskToStop,
    CloseOperation,
    OpenedOperation,
    OperationEnded,
    OperationIsOpen,
    Wake,
    operation_of,
)
from casekeeper.journal.requests import Ask
from casekeeper.operations.context import NestedFailed, Parked
from casekeeper.operations.operation import ToolCall
from casekeeper.sessions.manager import At
from casekeeper.sessions.session import CloseSession
from tests.unit.execution.waiting import Stage
from tests.unit.support import ANNA, BEN, NOW, ROOT, House, open_house

T = TypeVar("T")


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def house(directory: Path, stage: Stage) -> AsyncGenerator[House]:
    async with open_house(directory, tools=stage.tools()) as opened:
        yield opened


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile, in which Ben is editor."""
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.EDITOR)
    return made


async def parked(house: House, caller: Principal, casefile: CasefileView, tool: str, **more: Any) -> Outcome:
    outcome = await house.run(caller, At(casefile_id=casefile.casefile_id), tool, **more)
    assert outcome.status == "pending"
    return outcome


async def wake(house: House, event_id: str) -> None:
    """What it waits for has come."""
    row = await house.row(event_id)
    assert row is not None
    await house.commits.commit(Commit(records=(Wake(row.ref, house.clock()),)))


async def ended_kind(house: House, outcome: Outcome) -> tuple[str, str | None]:
    last = (await house.facts(outcome.session_id))[-1]
    assert last["event_id"] == outcome.event_id
    return last["kind"], last.get("error_type")


# Parking and going on


async def test_what_parks_leaves_a_row_that_nobody_owns_and_no_fact(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")

    row = await house.row(outcome.event_id)
    assert row is not None
    assert (row.state, row.owner, row.attempt, row.wake_at) == ("waiting", NOBODY, 1, None)
    assert house.runner.all() == []
    assert await house.kinds(outcome.session_id) == ["opened", "started"]


async def test_what_was_woken_goes_on_from_its_snapshot(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")
    assert await house.wake() == []

    await wake(house, outcome.event_id)
    [ended] = await house.wake()

    assert (ended.status, ended.outputs) == ("completed", b'{"attempt":2,"snapshot":8}')
    assert await house.kinds(outcome.session_id) == ["opened", "started", "succeeded"]
    assert await house.row(outcome.event_id) is None


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_snapshot_of_any_size_is_kept_for_each_time_and_forgotten_at_the_end(
    house: House, anna: Principal, casefile: CasefileView, size: int
):
    outcome = await parked(house, anna, casefile, "pauses", times=2, size=size)
    await wake(house, outcome.event_id)
    [again] = await house.wake()
    await wake(house, outcome.event_id)
    [ended] = await house.wake()

    assert again.status == "pending"
    assert ended.outputs == b'{"attempt":3,"snapshot":%d}' % (size + 8)
    left = [path for path in (house.storage.directory / "blobs").rglob("*") if "snapshot" in path.name]
    assert left == []


async def test_what_waits_until_a_time_is_due_then(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    stage.until = NOW + timedelta(hours=2)
    outcome = await parked(house, anna, casefile, "pauses")

    house.clock.advance(hours=1)
    early = await house.wake()
    house.clock.advance(hours=1)
    [ended] = await house.wake()

    assert early == []
    assert (ended.event_id, ended.status) == (outcome.event_id, "completed")


async def test_waiting_counts_neither_against_the_deadline_nor_as_work(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses", timeout=timedelta(seconds=5))
    house.clock.advance(days=3)
    await wake(house, outcome.event_id)
    [ended] = await house.wake()
    closed, _ = await house.sessions.close_session(
        anna, CloseSession(session_id=outcome.session_id), house.ask(anna)
    )

    last = (await house.facts(outcome.session_id))[2]
    assert ended.status == "completed"
    assert (last["duration_ms"], last["waited_ms"]) == (3 * 86_400_000, 3 * 86_400_000)
    assert closed.statistics.busy_ms == 0


async def test_the_time_that_is_left_is_what_it_had_when_it_parked(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    await parked(house, anna, casefile, "pauses", timeout=timedelta(seconds=5))
    before = stage.contexts[0].deadline
    house.clock.advance(days=1)
    row = (await house.storage.events.open_of(casefile.casefile_id, None))[0].row
    await wake(house, row.event_id)
    await house.wake()

    assert before == NOW + timedelta(seconds=5)
    assert stage.contexts[1].deadline == NOW + timedelta(days=1, seconds=5)


async def test_a_word_that_comes_before_it_parks_is_not_lost(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "pauses")
    await wake(house, started.fact.event_id)
    await started.running.ended

    [ended] = await house.wake()

    assert ended.status == "completed"


async def test_two_that_go_on_with_it_at_once_run_it_once(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")

    begun = await asyncio.gather(*(house.resume(outcome.event_id) for _ in range(5)))

    assert len([one for one in begun if one is not None]) == 1
    assert stage.runs["pauses"] == 2


async def test_what_runs_or_has_ended_is_not_taken_up(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    [opened] = await house.storage.events.opened([started.fact.event_id])

    assert await house.executor.resume(opened) is None
    stage.go.set()
    await started.running.ended
    outcome = await parked(house, anna, casefile, "pauses")
    [waiting] = await house.storage.events.opened([outcome.event_id])
    await house.stopping.operation(outcome.event_id, "enough")
    assert await house.executor.resume(waiting) is None
    assert stage.runs["works"] == 1


async def test_nothing_is_taken_up_while_the_server_stops(
    house: House, anna: Principal, casefile: CasefileView
):
    outcome = await parked(house, anna, casefile, "pauses")
    await house.runner.drain(timedelta())

    assert await house.resume(outcome.event_id) is None
    assert (await house.row(outcome.event_id)) is not None


async def test_only_what_says_that_it_parks_may(house: House, anna: Principal, casefile: CasefileView):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "lies")

    assert outcome.failure is not None
    assert (outcome.status, outcome.failure.type) == ("failed", "operation_raised")


@pytest.mark.parametrize("size", [0, 10 * 2**20])
async def test_a_snapshot_that_cannot_be_kept_is_a_failure(
    house: House, anna: Principal, casefile: CasefileView, size: int
):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "unfit", size=size)

    assert outcome.failure is not None
    assert outcome.failure.type == "snapshot_unfit"


# What callers are told


async def test_execute_answers_that_it_waits_and_for_what_and_so_does_a_repeat(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    stage.until = NOW + timedelta(hours=2)
    operation = ToolCall(operation_type="tool", tool_name="pauses")
    command = Execute(casefile_id=casefile.casefile_id, operation=operation)
    ask = house.ask(anna, "req-1", route="execute")

    first, repeated = await house.sessions.execute_operation(anna, command, ask)
    async with asyncio.timeout(5):
        again, is_again = await house.sessions.execute_operation(anna, command, ask)
    seen = await house.operations.get(anna, GetOperation(event_id=first.event_id))

    told = [(one.kind, one.id, one.until) for one in first.waiting_for]
    assert told == [("signal", "go", stage.until)]
    assert (repeated, is_again) == (False, True)
    for answer in (first, again, seen):
        assert (answer.status, answer.success, answer.event_id) == ("pending", None, first.event_id)
        assert answer.waiting_for == first.waiting_for
    assert stage.runs["pauses"] == 1


async def test_a_repeat_after_its_end_answers_the_end(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    operation = ToolCall(operation_type="tool", tool_name="pauses")
    command = Execute(casefile_id=casefile.casefile_id, operation=operation)
    ask = house.ask(anna, "req-1", route="execute")
    first, _ = await house.sessions.execute_operation(anna, command, ask)
    await wake(house, first.event_id)
    await house.wake()

    again, repeated = await house.sessions.execute_operation(anna, command, ask)

    assert (again.status, again.event_id, repeated) == ("completed", first.event_id, True)
    # Kept for 24 hours after the end, like any other.
    house.clock.advance(hours=25)
    once_more, repeated = await house.sessions.execute_operation(anna, command, ask)
    assert not repeated
    assert once_more.event_id != first.event_id


async def test_the_session_shows_what_waits(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses")
    context = await house.manager.validate_and_get_session(anna, At(outcome.session_id))

    [shown] = await house.reading.open(context)

    assert (shown.event_id, shown.state) == (outcome.event_id, "waiting")
    assert [(one.kind, one.id) for one in shown.waiting_for] == [("signal", "go")]


async def test_a_stream_ends_where_the_operation_waits(house: House, anna: Principal, casefile: CasefileView):
    operation = ToolCall(operation_type="tool", tool_name="pauses")
    command = Execute(casefile_id=casefile.casefile_id, operation=operation)

    async with asyncio.timeout(5):
        items = [item async for item in house.sessions.stream_operation(anna, command, house.ask(anna))]

    assert [getattr(item, "kind", getattr(item, "status", None)) for item in items] == ["started", "pending"]


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
        await _copy_rows(house, first.row.event_id, copies)

        receipt = await house.stopping.stop("enough", casefile_id=casefile.casefile_id)

        assert len(receipt.waiting) == 1_000
        assert await house.storage.events.open_of(casefile.casefile_id, None) == []


async def _copy_rows(house: House, event_id: str, copies: int) -> None:
    """Rows of further waiting operations, without the time that starting so many takes."""

    [opened] = await house.storage.events.opened([event_id])
    [stored] = await house.storage.events.operation(event_id)

    fact = fact_of(from_json(stored.header), Payload.of(b'{"inputs":{}}'))
    for number in range(copies):
        one = f"{event_id}x{number}"
        started = replace(fact, event_id=one)
        root = opened.row.root_event_id if opened.row.parent else one
        row = replace(opened.row, event_id=one, root_event_id=root)
        await house.storage.commits.commit(Commit((started,), (), (row,)))


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


# What is missing


async def test_an_operation_that_is_not_here_waits_and_says_so(directory: Path, stage: Stage):
    async with open_house(directory, tools=stage.tools()) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        outcome = await parked(house, anna, casefile, "pauses")
        await wake(house, outcome.event_id)
    async with open_house(directory) as house:
        anna = await house.caller(ANNA)

        assert await house.wake() == []

        seen = await house.operations.get(anna, GetOperation(event_id=outcome.event_id))
        assert (seen.status, [(one.kind, one.id) for one in seen.waiting_for]) == (
            "pending",
            [("operation", "tool/pauses")],
        )
    async with open_house(directory, tools=stage.tools()) as house:
        house.clock.advance(minutes=2)
        [ended] = await house.wake()
        assert ended.status == "completed"


async def test_a_snapshot_of_a_newer_version_waits_for_a_newer_server(directory: Path, stage: Stage):

    newer = [replace(one, snapshot_version=2) if one.name == "pauses" else one for one in stage.tools()]
    async with open_house(directory, tools=newer) as house:
        anna = await house.caller(ANNA)
        outcome = await parked(house, anna, await house.casefile(anna), "pauses")
        await wake(house, outcome.event_id)
    async with open_house(directory, tools=stage.tools()) as house:
        assert await house.wake() == []
        row = await house.row(outcome.event_id)
        assert row is not None
        assert row.held is not None
        assert [one.kind for one in row.held.waiting_for] == ["operation"]
    async with open_house(directory, tools=newer) as house:
        house.clock.advance(minutes=2)
        [ended] = await house.wake()
        assert ended.status == "completed"
        assert stage.contexts[-1].resumed is not None
        assert stage.contexts[-1].resumed.version == 2


async def test_a_snapshot_that_is_lost_is_a_failure(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses", size=100_000)
    await house.storage.blobs.remove(casefile.casefile_id, f"snapshot_{outcome.event_id}_1")
    await wake(house, outcome.event_id)

    assert await house.wake() == []

    assert await ended_kind(house, outcome) == ("failed", "snapshot_lost")


# Processes that are lost


def recovery(house: House) -> Recovery:
    return Recovery(house.storage.events, house.life, owner="the next process")


async def test_what_parks_goes_on_in_another_process_when_its_own_is_lost(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    await _until(lambda: stage.runs["works"] == 1)

    assert await recovery(house).run() == 1
    successor = await house.resume(started.fact.event_id)
    assert successor is not None
    stage.go.set()
    ended = await successor.running.ended

    # The lost process was only taken for lost: what it says now does not count.
    zombie = await started.running.ended
    assert ended.outputs == b"2"
    assert (zombie.status, zombie.outputs) == ("completed", b"2")
    assert await house.kinds(started.fact.session_id) == ["opened", "started", "succeeded"]


async def test_what_waits_is_no_orphan(house: House, anna: Principal, casefile: CasefileView):
    outcome = await parked(house, anna, casefile, "pauses")

    assert await recovery(house).run() == 0
    assert await house.row(outcome.event_id) is not None


async def test_what_ends_process_after_process_is_closed(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    for _ in range(CRASHES_MAX):
        await recovery(house).run()
        assert await house.resume(started.fact.event_id) is not None

    await recovery(house).run()

    assert (await house.kinds(started.fact.session_id))[-1] == "interrupted"


async def test_what_waits_inside_what_is_lost_for_good_ends_before_it(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient")
    inner = await _waiting_inside(house, casefile)

    assert await recovery(house).run() == 1

    ends = [(f["operation_name"], f["kind"]) for f in (await house.facts(started.fact.session_id))[-2:]]
    assert ends == [("pauses", "cancelled"), ("impatient", "interrupted")]
    assert await house.row(inner) is None


async def test_what_could_go_on_inside_what_is_lost_for_good_ends_with_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient", name="works")
    await _until(lambda: stage.runs["works"] == 1)

    assert await recovery(house).run() == 2

    ends = [(f["operation_name"], f["kind"]) for f in (await house.facts(started.fact.session_id))[-2:]]
    assert ends == [("works", "cancelled"), ("impatient", "interrupted")]
    stage.go.set()
    await started.running.ended


async def test_what_ends_while_it_is_closed_is_looked_at_again(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient")
    inner = await _waiting_inside(house, casefile)

    async def overtakes(_: Commit) -> None:
        await house.stopping.operation(inner, "enough")

    house.commits.meanwhile(overtakes)
    await recovery(house).run()

    await started.running.ended
    assert await house.storage.events.open_of(casefile.casefile_id, None) == []
    ends = [(f["operation_name"], f["kind"]) for f in (await house.facts(started.fact.session_id))[3:]]
    assert ends[0] == ("pauses", "cancelled")
    assert len(ends) == 2


async def test_a_zombie_starts_writes_and_ends_nothing(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    await _until(lambda: stage.runs["works"] == 1)
    zombie = house.context_of(started)
    await recovery(house).run()
    successor = await house.resume(started.fact.event_id)
    assert successor is not None
    before = await house.kinds(started.fact.session_id)

    with pytest.raises(NestedFailed) as refused:
        await zombie.invoke(ToolCall(operation_type="tool", tool_name="posts"))
    await zombie.note_refusal(name="x", inputs={}, error_type="t", message="m", call_id="c")
    with pytest.raises(OperationEnded):
        await zombie.documents.add(
            [NewDocument(kind="note", title="n", raw=b"n", sha256="00", source="test")]
        )
    assert refused.value.type == "cancelled"
    assert await house.kinds(started.fact.session_id) == before
    assert stage.sent == []
    stage.go.set()
    await successor.running.ended


async def test_a_server_that_stops_lets_what_parks_go_on_elsewhere(directory: Path, stage: Stage):
    async with open_house(directory, tools=stage.tools()) as house:
        anna = await house.caller(ANNA)
        casefile = await house.casefile(anna)
        started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
        plain = await house.start(anna, At(session_id=started.fact.session_id), "sleepy")
        await _until(lambda: stage.runs["works"] == 1)
        await house.runner.drain(timedelta())
        assert (await started.running.ended).status == "pending"
        assert (await plain.running.ended).status == "failed"
    async with open_house(directory, tools=stage.tools()) as house:
        stage.go.set()
        [ended] = await house.wake()
        assert ended.outputs == b"2"
        assert await house.kinds(started.fact.session_id) == [
            "opened",
            "started",
            "started",
            "interrupted",
            "succeeded",
        ]


async def test_a_stop_that_was_asked_for_elsewhere_while_it_parked_ends_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):

    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "pauses")
    ref = operation_of(started.fact)
    await house.commits.commit(Commit((), (OperationIsOpen(ref),), (AskToStop(ref, "enough"),)))
    outcome = await started.running.ended

    assert await house.wake() == []
    assert await ended_kind(house, outcome) == ("cancelled", "cancelled")


async def test_what_is_asked_to_stop_while_it_waits_is_due_at_once(
    house: House, anna: Principal, casefile: CasefileView
):

    outcome = await parked(house, anna, casefile, "pauses")
    row = await house.row(outcome.event_id)
    assert row is not None
    await house.commits.commit(Commit((), (OperationIsOpen(row.ref),), (AskToStop(row.ref, "enough"),)))

    assert (await house.row(outcome.event_id)).wake_at == AT_ONCE  # pyright: ignore[reportOptionalMemberAccess]
    assert await house.wake() == []
    assert await ended_kind(house, outcome) == ("cancelled", "cancelled")


# Operations inside operations


async def test_what_waits_inside_lets_the_one_around_it_wait_too_and_wakes_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["posts", "pauses", "posts"])
    [inner] = [
        one.row for one in await house.storage.events.open_of(casefile.casefile_id, None) if one.row.parent
    ]

    await wake(house, inner.event_id)
    ends = await house.wake()

    assert [(one.kind, one.id) for one in outcome.waiting_for] == [("signal", "go")]
    assert [end.status for end in ends] == ["completed", "completed"]
    assert len(stage.sent) == 2
    assert stage.runs["follows"] == 2
    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[1:]]
    assert kinds == [
        ("follows", "started"),
        ("posts", "started"),
        ("posts", "succeeded"),
        ("pauses", "started"),
        ("pauses", "succeeded"),
        ("posts", "started"),
        ("posts", "succeeded"),
        ("follows", "succeeded"),
    ]


async def test_a_call_with_a_key_answers_what_became_of_the_first(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["breaks", "nothing_like_it", "pauses"])
    [inner] = [
        one.row for one in await house.storage.events.open_of(casefile.casefile_id, None) if one.row.parent
    ]
    house.clock.advance(days=400)
    await wake(house, outcome.event_id)
    again = await house.wake()
    await wake(house, inner.event_id)
    ends = await house.wake()

    assert [end.status for end in again] == ["pending"]
    assert ends[-1].outputs == b'["operation_raised","arguments_invalid",{"attempt":2,"snapshot":8}]'
    assert len(stage.sent) == 1
    denied = [f for f in await house.facts(outcome.session_id) if f["kind"] == "denied"]
    assert len(denied) == 1


async def test_what_waits_for_a_call_that_another_process_runs_looks_for_its_end_by_itself(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(
        anna, At(casefile_id=casefile.casefile_id), "follows", steps=["pauses", "posts"]
    )
    outer = await started.running.ended
    [around] = await house.storage.events.opened([outer.event_id])
    ends = await _runs_elsewhere(house, around, "posts", "step 1")
    inner = await _waiting_inside(house, casefile)

    await wake(house, inner)
    await house.wake()
    row = await house.row(outer.event_id)
    await house.storage.commits.commit(ends)
    house.clock.advance(seconds=LOOK_AGAIN.total_seconds())
    [ended] = await house.wake()

    assert row is not None
    assert row.wake_at == NOW + LOOK_AGAIN
    assert (ended.event_id, ended.status) == (outer.event_id, "completed")


async def _runs_elsewhere(house: House, around: OpenedOperation, name: str, key: str) -> Commit:
    """Let a call with a key run in a process that was taken for lost; returns its end, by which it wakes nobody."""
    row, [stored, *_] = around.row, await house.storage.events.operation(around.row.event_id)
    event_id = f"{row.event_id}x"
    fact = replace(
        fact_of(from_json(stored.header), Payload.of(b'{"inputs":{}}')),
        event_id=event_id,
        parent_event_id=row.event_id,
        operation_name=name,
    )
    inner = replace(row, event_id=event_id, parent_event_id=row.event_id, operation_name=name, held=None)
    inner = replace(inner, owner="elsewhere", state="running", wake_at=None)
    body = to_json(["tool", name, {}])
    ask = Ask(row.user_id, "nested", key, body, is_repeatable=True, within=(row.event_id, key))
    claim = house.requests.claim(ask, event_id, is_operation=True)
    [sealed] = await house.storage.commits.commit(Commit((fact,), claim, (*claim, inner)))
    payload, nothing = Payload.of(b'{"outputs":"sent"}'), timedelta()
    end = terminal_fact(
        fact, sealed.seq, Ending(Kind.SUCCEEDED), payload, house.clock(), is_tainted=False, waited=nothing
    )
    return Commit((end,), (inner.ownership,), (CloseOperation(inner.ref),))


async def test_a_key_that_belongs_to_another_call_is_refused(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    call = house.context_of(started)
    first = await call.invoke(ToolCall(operation_type="tool", tool_name="posts"), key="a")
    again = await call.invoke(ToolCall(operation_type="tool", tool_name="posts"), key="a", call_id="other")

    errors: list[str] = []
    for key in ("a", "", "x" * 201):
        with pytest.raises(NestedFailed) as refused:
            await call.invoke(ToolCall(operation_type="tool", tool_name="echo"), key=key)
        errors.append(refused.value.type)

    assert first == again
    assert errors == ["key_reused", "key_unfit", "key_unfit"]
    stage.go.set()
    await started.running.ended


async def test_twenty_calls_with_one_key_at_once_run_once(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    call = house.context_of(started)

    posts = ToolCall(operation_type="tool", tool_name="posts")
    answers = await asyncio.gather(*(call.invoke(posts, key="a") for _ in range(20)))

    assert len(set(answers)) == len(stage.sent) == 1
    stage.go.set()
    await started.running.ended


async def test_what_cannot_wait_itself_waits_for_the_end_of_what_does(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient", key="k")
    inner = await _waiting_inside(house, casefile)
    await wake(house, inner)
    await house.wake()

    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.outputs == b'{"attempt":2,"snapshot":8}'


async def test_a_deadline_ends_what_waits_inside(house: House, anna: Principal, casefile: CasefileView):
    place, timeout = At(casefile_id=casefile.casefile_id), timedelta(seconds=0.3)
    started = await house.start(anna, place, "impatient", timeout=timeout)

    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.failure is not None
    assert outcome.failure.type == "deadline_exceeded"
    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[3:]]
    assert kinds == [("pauses", "cancelled"), ("impatient", "timed_out")]


async def test_cancelling_what_waits_ends_what_is_inside_it_first(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["follows", "pauses"])
    assert outcome.status == "failed" or outcome.status == "pending"
    outcome = await house.run(anna, place, "follows", steps=["pauses"])

    await house.operations.cancel(anna, CancelOperation(event_id=outcome.event_id))

    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[-2:]]
    assert kinds == [("pauses", "cancelled"), ("follows", "cancelled")]


async def test_nothing_of_what_is_cancelled_goes_on_when_what_is_inside_it_has_ended(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["pauses", "posts"])

    await _woken_after(1, house, house.operations.cancel(anna, CancelOperation(event_id=outcome.event_id)))

    assert stage.runs["follows"] == 1
    assert stage.sent == []
    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[-2:]]
    assert kinds == [("pauses", "cancelled"), ("follows", "cancelled")]


async def test_more_than_a_commit_takes_is_cancelled_inside_out(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "follows", steps=["pauses"])
    copies = 120
    await _copy_rows(house, await _waiting_inside(house, casefile), copies)

    await _woken_after(1, house, house.operations.cancel(anna, CancelOperation(event_id=outcome.event_id)))

    ends = (await house.facts(outcome.session_id))[-copies - 2 :]
    assert [f["kind"] for f in ends] == ["cancelled"] * (copies + 2)
    assert ends[-1]["event_id"] == outcome.event_id
    assert stage.runs["follows"] == 1


async def test_a_receipt_names_what_waited_around_what_waited(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    outcome = await house.run(ben, At(casefile_id=casefile.casefile_id), "follows", steps=["pauses"])
    inner = await _waiting_inside(house, casefile)

    command = RevokeRole(casefile_id=casefile.casefile_id, user_id=BEN)
    receipt, _ = await _woken_after(2, house, house.permissions.revoke(anna, command, house.ask(anna)))

    assert set(receipt.waiting) == {inner, outcome.event_id}
    kinds = [(f["operation_name"], f["kind"]) for f in (await house.facts(outcome.session_id))[-2:]]
    assert kinds == [("pauses", "cancelled"), ("follows", "cancelled")]


async def test_what_is_taken_up_while_all_around_it_is_cancelled_is_asked_to_stop(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["pauses", "posts"])
    inner = await _waiting_inside(house, casefile)

    async def taken_up(_: Commit) -> None:
        await house.resume(inner)

    house.commits.meanwhile(taken_up)
    await house.operations.cancel(anna, CancelOperation(event_id=outcome.event_id))

    assert stage.sent == []
    ended = {f["operation_name"]: f["kind"] for f in (await house.facts(outcome.session_id))[-2:]}
    assert ended["follows"] == "cancelled"


async def _woken_after(commits: int, house: House, work: Awaitable[T]) -> T:
    """Do this, while a waker takes up what is due after so many of its commits."""

    async def nothing(_: Commit) -> None:
        pass

    async def wakes(_: Commit) -> None:
        await house.wake()

    house.commits.meanwhile(*[nothing] * commits, wakes)
    done = await work
    house.commits.queue.clear()
    return done


async def test_what_waits_inside_what_has_ended_ends_when_it_would_go_on(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    outcome = await house.run(anna, place, "follows", steps=["pauses"])
    inner = await _waiting_inside(house, casefile)

    [around] = await house.storage.events.opened([outcome.event_id])
    await house.life.end_other(around, Ending(Kind.CANCELLED))
    await wake(house, inner)

    assert await house.wake() == []
    assert (await house.facts(outcome.session_id))[-1] == IsPartialDict(event_id=inner, kind="cancelled")


async def test_a_server_that_stops_lets_nothing_new_begin_inside_what_parks(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "works")
    call = house.context_of(started)
    assert not call.is_stopping()
    house.runner.is_leaving = house.runner.is_draining = True

    with pytest.raises(Parked):
        await call.invoke(ToolCall(operation_type="tool", tool_name="posts"))
    with pytest.raises(ShuttingDown):
        await house.start(anna, At(casefile_id=casefile.casefile_id), "echo")
    assert call.is_stopping()
    assert stage.sent == []
    stage.go.set()
    await started.running.ended


async def _waiting_inside(house: House, casefile: CasefileView) -> str:
    async with asyncio.timeout(5):
        while True:
            found = await house.storage.events.open_of(casefile.casefile_id, None)
            for one in found:
                if one.row.parent and one.row.state == "waiting":
                    return one.row.event_id
            await asyncio.sleep(0.01)


async def _until(is_so: Any) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.005)
