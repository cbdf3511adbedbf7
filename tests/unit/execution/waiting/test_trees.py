"""Waiting operations inside each other: they end together, from the inside out, and wake nobody who ends as well."""

from collections.abc import Awaitable
from typing import TypeVar

from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.permissions import RevokeRole
from casekeeper.execution.nesting import LOOK_AGAIN
from casekeeper.execution.recovery import Recovery
from casekeeper.execution.status import CancelOperation
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.sessions.manager import At
from tests.unit.execution.waiting.stage import Stage
from tests.unit.execution.waiting.steps import copy_rows, runs_elsewhere, until, waiting_inside, wake
from tests.unit.support import BEN, NOW, House

T = TypeVar("T")


async def test_what_waits_inside_what_is_lost_for_good_ends_before_it(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient")
    inner = await waiting_inside(house, casefile)

    assert await Recovery(house.storage.events, house.detached, owner="the next process").run() == 1

    ends = [(f["operation_name"], f["kind"]) for f in (await house.facts(started.fact.session_id))[-2:]]
    assert ends == [("pauses", "cancelled"), ("impatient", "interrupted")]
    assert await house.row(inner) is None


async def test_what_could_go_on_inside_what_is_lost_for_good_ends_with_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient", name="works")
    await until(lambda: stage.runs["works"] == 1)

    assert await Recovery(house.storage.events, house.detached, owner="the next process").run() == 2

    ends = [(f["operation_name"], f["kind"]) for f in (await house.facts(started.fact.session_id))[-2:]]
    assert ends == [("works", "cancelled"), ("impatient", "interrupted")]
    stage.go.set()
    await started.running.ended


async def test_what_ends_while_it_is_closed_is_looked_at_again(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "impatient")
    inner = await waiting_inside(house, casefile)

    async def overtakes(_: Commit) -> None:
        await house.stopping.operation(inner, "enough")

    house.commits.meanwhile(overtakes)
    await Recovery(house.storage.events, house.detached, owner="the next process").run()

    await started.running.ended
    assert await house.storage.events.open_of(casefile.casefile_id, None) == []
    ends = [(f["operation_name"], f["kind"]) for f in (await house.facts(started.fact.session_id))[3:]]
    assert ends[0] == ("pauses", "cancelled")
    assert len(ends) == 2


async def test_what_waits_for_a_call_that_another_process_runs_looks_for_its_end_by_itself(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(
        anna, At(casefile_id=casefile.casefile_id), "follows", steps=["pauses", "posts"]
    )
    outer = await started.running.ended
    [around] = await house.storage.events.opened([outer.event_id])
    ends = await runs_elsewhere(house, around, "posts", "step 1")
    inner = await waiting_inside(house, casefile)

    await wake(house, inner)
    await house.wake()
    row = await house.row(outer.event_id)
    await house.storage.commits.commit(ends)
    house.clock.advance(seconds=LOOK_AGAIN.total_seconds())
    [ended] = await house.wake()

    assert row is not None
    assert row.wake_at == NOW + LOOK_AGAIN
    assert (ended.event_id, ended.status) == (outer.event_id, "completed")


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
    await copy_rows(house, await waiting_inside(house, casefile), copies)

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
    inner = await waiting_inside(house, casefile)

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
    inner = await waiting_inside(house, casefile)

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
