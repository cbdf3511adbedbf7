"""An operation never ends before what is inside it, and leaves nothing in there behind, whatever ends it."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from casekeeper.acl import Effect
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.permissions import RevokeRole
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.status import CancelOperation
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import OpenedOperation
from casekeeper.operations.context import MDSContext, NestedFailed, NestedWaits
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import tool
from casekeeper.sessions.manager import At
from tests.unit.execution.waiting.stage import Stage
from tests.unit.execution.waiting.steps import runs_elsewhere, until, waiting_inside
from tests.unit.support import BEN, House


def inner(name: str) -> ToolCall:
    return ToolCall(operation_type="tool", tool_name=name)


async def last(house: House, session_id: str, count: int = 2) -> list[tuple[str, str, str | None]]:
    """How the last facts ended what, in their order."""
    facts = (await house.facts(session_id))[-count:]
    return [(fact["operation_name"], fact["kind"], fact.get("error_type")) for fact in facts]


async def around(house: House, caller: Principal, casefile: CasefileView, name: str) -> Outcome:
    """An operation that waits for one that waits inside it."""
    return await house.run(caller, At(casefile_id=casefile.casefile_id), "follows", steps=[name, "posts"])


async def opened(house: House, event_id: str) -> OpenedOperation:
    [found] = await house.storage.events.opened([event_id])
    return found


def _all_asked(found: Sequence[OpenedOperation]) -> bool:
    return all(one.stop for one in found)


CANCELLED = [("pauses_then_works", "cancelled", "cancelled"), ("follows", "cancelled", "cancelled")]


async def test_what_runs_here_inside_what_is_cancelled_ends_before_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    outer = await around(house, anna, casefile, "pauses_then_works")
    await house.resume(await waiting_inside(house, casefile))
    await until(lambda: stage.runs["works_on"] == 1)

    answer = await house.operations.cancel(anna, CancelOperation(event_id=outer.event_id))

    assert (answer.status, stage.sent) == ("failed", [])
    assert await last(house, outer.session_id) == CANCELLED


async def test_what_runs_elsewhere_inside_what_is_cancelled_is_asked_and_waited_for(
    house: House, anna: Principal, casefile: CasefileView
):
    outer = await around(house, anna, casefile, "pauses")
    ends = await runs_elsewhere(house, await opened(house, outer.event_id), "posts", "step 1")
    [fact] = ends.facts
    cancel = asyncio.create_task(house.operations.cancel(anna, CancelOperation(event_id=outer.event_id)))
    asked = [fact.event_id, outer.event_id]
    async with asyncio.timeout(5):
        while not _all_asked(await house.storage.events.opened(asked)):
            await asyncio.sleep(0.01)
    assert not cancel.done()

    await house.storage.commits.commit(ends)
    answer = await asyncio.wait_for(cancel, 5)

    assert answer.status == "failed"
    assert await last(house, outer.session_id) == [
        ("posts", "succeeded", None),
        ("follows", "cancelled", "cancelled"),
    ]


async def test_a_wish_to_stop_outlives_the_process_that_was_told_of_it(
    house: House, anna: Principal, casefile: CasefileView
):
    outer = await around(house, anna, casefile, "pauses")
    ends = await runs_elsewhere(house, await opened(house, outer.event_id), "posts", "step 1")
    session_id = outer.session_id
    assert await house.stopping.session(session_id, "Enough.")
    await house.storage.commits.commit(ends)

    assert await house.wake() == []

    assert await last(house, session_id, 1) == [("follows", "cancelled", "cancelled")]


async def test_what_does_not_heed_inside_what_is_cancelled_is_ended_over_its_head(
    house: House, anna: Principal, casefile: CasefileView
):
    house.runner.grace = timedelta(seconds=-0.9)
    outer = await around(house, anna, casefile, "pauses")
    ends = await runs_elsewhere(house, await opened(house, outer.event_id), "posts", "step 1")

    await house.operations.cancel(anna, CancelOperation(event_id=outer.event_id))

    kinds = await last(house, outer.session_id)
    assert kinds == [("posts", "cancelled", "cancelled"), ("follows", "cancelled", "cancelled")]
    with pytest.raises(Exception, match=ends.facts[0].event_id):
        await house.storage.commits.commit(ends)


async def test_a_receipt_names_what_waits_for_what_still_runs_with_its_process(
    house: House, anna: Principal, casefile: CasefileView
):
    outer = await around(house, await house.caller(BEN), casefile, "pauses")
    pauses = await waiting_inside(house, casefile)
    ends = await runs_elsewhere(house, await opened(house, outer.event_id), "posts", "step 1")
    [fact] = ends.facts

    command = RevokeRole(casefile_id=casefile.casefile_id, user_id=BEN)
    receipt, _ = await house.permissions.revoke(anna, command, house.ask(anna))
    await house.storage.commits.commit(ends)
    house.clock.advance(seconds=2)
    await house.wake()

    assert list(receipt.waiting) == [pauses]
    assert {owner: set(ids) for owner, ids in receipt.unconfirmed.items()} == {
        "elsewhere": {fact.event_id, outer.event_id}
    }
    assert await last(house, outer.session_id, 1) == [("follows", "denied", "rights_lost")]


async def test_what_waits_inside_what_ends_by_itself_ends_before_it(
    house: House, anna: Principal, casefile: CasefileView
):
    @tool(effects={Effect.READ}, parks=True)
    async def forgets(call: MDSContext) -> str:
        """Call what waits, and do not wait for it."""
        with pytest.raises(NestedWaits):
            await call.invoke(inner("pauses"))
        return "done"

    house.tools.add(forgets)
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "forgets")

    assert outcome.outputs == b'"done"'
    assert await last(house, outcome.session_id) == [
        ("pauses", "cancelled", "cancelled"),
        ("forgets", "succeeded", None),
    ]


async def test_what_runs_on_inside_what_ends_by_itself_ends_before_it_and_nothing_begins_after(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    tasks = list[asyncio.Task[Any]]()

    @tool(effects={Effect.READ})
    async def leaves(call: MDSContext) -> str:
        """Call what works, without waiting for it, and something else much later."""

        async def late() -> Any:
            await stage.go.wait()
            return await call.invoke(inner("posts"))

        tasks.append(asyncio.create_task(call.invoke(inner("works"))))
        tasks.append(asyncio.create_task(late()))
        await until(lambda: stage.runs["works"] == 1)
        return "done"

    house.tools.add(leaves)
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "leaves")
    stage.go.set()
    told = await asyncio.gather(*tasks, return_exceptions=True)

    assert await last(house, outcome.session_id) == [
        ("works", "cancelled", "cancelled"),
        ("leaves", "succeeded", None),
    ]
    assert [type(one) for one in told] == [NestedFailed, NestedFailed]
    assert stage.sent == []


async def test_what_is_on_its_way_to_the_disk_when_all_around_it_is_stopped_ends_before_it(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    @tool(effects={Effect.READ})
    async def calls(call: MDSContext) -> None:
        """Call what works."""

        async def stops(_: Commit) -> None:
            house.runner.stop("Revoked.", user_id=anna.user_id)

        house.commits.meanwhile(stops)
        await call.invoke(inner("works"))

    house.tools.add(calls)
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "calls")

    assert outcome.status == "failed"
    assert await last(house, outcome.session_id) == [
        ("works", "cancelled", "cancelled"),
        ("calls", "cancelled", "rights_lost"),
    ]


async def test_what_parks_while_something_inside_it_runs_can_be_stopped_still(
    house: House, stage: Stage, anna: Principal, casefile: CasefileView
):
    @tool(effects={Effect.READ}, parks=True)
    async def gathers(call: MDSContext) -> None:
        """Call what waits and what works, and wait when the first of them does."""
        working = asyncio.create_task(call.invoke(inner("works")))
        await until(lambda: stage.runs["works"] == 1)
        await call.invoke(inner("pauses"))
        await working

    house.tools.add(gathers)
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "gathers")
    await waiting_inside(house, casefile)

    await house.operations.cancel(anna, CancelOperation(event_id=started.fact.event_id))

    kinds = await last(house, started.fact.session_id, 3)
    assert {kind for _, kind, _ in kinds} == {"cancelled"}
    assert kinds[-1][0] == "gathers"
