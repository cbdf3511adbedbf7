import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.acl import Effect, Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.errors import (
    RoleTooLow,
    SessionNotFound,
    StoreUnavailable,
)
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.recovery import Recovery
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool
from casekeeper.sessions.manager import At
from casekeeper.sessions.session import PutSession
from tests.unit.support import ANNA, BEN, House, open_house


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


def happens(work: Callable[[], Awaitable[Any]]) -> Callable[[Commit], Awaitable[None]]:
    async def happen(_: Commit) -> None:
        await work()

    return happen


async def nothing(_: Commit) -> None:
    pass


async def away(_: Commit) -> None:
    raise StoreUnavailable("The store is away.")


# Races at the start


async def test_two_first_calls_at_once_open_one_session(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)

    outcomes = await asyncio.gather(*(house.run(anna, place, "echo") for _ in range(10)))

    assert len({outcome.session_id for outcome in outcomes}) == 1


async def test_a_session_that_appears_at_the_last_moment_is_used(
    house: House, anna: Principal, casefile: CasefileView
):
    place = At(casefile_id=casefile.casefile_id)
    house.commits.meanwhile(happens(lambda: house.run(anna, place, "echo")))

    outcome = await house.run(anna, place, "echo")

    assert (await house.kinds(outcome.session_id)).count("opened") == 1


async def test_a_session_id_that_is_taken_is_drawn_again(
    house: House, anna: Principal, casefile: CasefileView
):
    taken = list[str]()

    async def rival(commit: Commit) -> None:
        for record in commit.records:
            if isinstance(record, PutSession):
                taken.append(record.session.session_id)
                other = type(record.session)(
                    session_id=record.session.session_id,
                    casefile_id=casefile.casefile_id,
                    user_id=BEN,
                    created_at=house.clock(),
                    last_activity_at=house.clock(),
                )
                await house.storage.commits.commit(Commit(records=(PutSession(other),)))

    house.commits.meanwhile(rival)
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "echo")

    assert taken
    assert outcome.session_id not in taken


async def test_a_permission_that_was_renewed_meanwhile_is_read_again(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN, casefile.casefile_id)

    async def renew() -> None:
        await house.revoke(anna, casefile.casefile_id, BEN)
        await house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)

    house.commits.meanwhile(happens(renew))
    started = await house.start(ben, At(casefile_id=casefile.casefile_id), "echo")

    assert started.fact.permission is not None
    assert (started.fact.permission.role, started.fact.permission.source) == ("viewer", "store")


async def test_nothing_starts_once_the_permission_is_gone(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN, casefile.casefile_id)
    session_id = await house.session(ben, casefile.casefile_id)
    house.commits.meanwhile(happens(lambda: house.revoke(anna, casefile.casefile_id, BEN)))

    with pytest.raises(SessionNotFound):
        await house.start(ben, At(session_id), "echo")

    assert await house.kinds(session_id) == ["opened"]


async def test_a_role_that_sank_meanwhile_is_denied_and_recorded(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN, casefile.casefile_id)
    session_id = await house.session(ben, casefile.casefile_id)
    house.commits.meanwhile(happens(lambda: house.grant(anna, casefile.casefile_id, BEN, Role.VIEWER)))

    with pytest.raises(RoleTooLow):
        await house.start(ben, At(session_id), "note_add", text="x")

    assert await house.kinds(session_id) == ["opened", "denied"]


async def test_a_call_that_loses_every_race_gives_up_and_says_so(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    rival = happens(lambda: house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR))
    house.commits.meanwhile(*[rival, nothing] * 8)

    with pytest.raises(StoreUnavailable) as gave_up:
        await house.start(ben, At(casefile_id=casefile.casefile_id), "echo")

    assert gave_up.value.retryable


async def test_a_store_that_is_away_starts_nothing(house: House, anna: Principal, casefile: CasefileView):
    session_id = await house.session(anna, casefile.casefile_id)
    house.commits.meanwhile(away)

    with pytest.raises(StoreUnavailable):
        await house.start(anna, At(session_id), "echo")

    assert await house.kinds(session_id) == ["opened"]


# A caller who goes away while the operation starts


async def leave_while_starting(
    house: House,
    caller: Principal,
    casefile_id: str,
    *,
    outlives: bool = False,
    then: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Go away while the commit of `started` is on its way to the disk."""
    reached, release = asyncio.Event(), asyncio.Event()

    async def slow_disk(_: Commit) -> None:
        reached.set()
        await release.wait()

    house.commits.meanwhile(slow_disk)
    call = house.call(caller, At(casefile_id=casefile_id), "sleepy", seconds=0.2)
    waiting = asyncio.create_task(house.executor.execute(replace(call, outlives_caller=outlives)))
    await reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if then:
        await then()
    release.set()


async def ended(house: House, casefile_id: str) -> list[str]:
    """The kinds of facts in Anna's auto session, once its operation has ended."""
    async with asyncio.timeout(5):
        while True:
            since = house.clock() - timedelta(hours=1)
            session = await house.storage.sessions.auto_session(ANNA, casefile_id, since)
            kinds = await house.kinds(session.session_id) if session else []
            if len(kinds) == 3:
                return kinds
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("outlives", "end"), [(False, "cancelled"), (True, "succeeded")])
async def test_a_caller_who_leaves_while_it_starts_takes_the_operation_along_unless_it_outlives_them(
    house: House, anna: Principal, casefile: CasefileView, outlives: bool, end: str
):
    await leave_while_starting(house, anna, casefile.casefile_id, outlives=outlives)

    assert await ended(house, casefile.casefile_id) == ["opened", "started", end]


async def test_a_caller_who_leaves_while_it_is_refused_leaves_nothing(
    house: House, anna: Principal, casefile: CasefileView
):
    ben = await house.caller(BEN)
    await leave_while_starting(
        house, ben, casefile.casefile_id, then=lambda: house.revoke(anna, casefile.casefile_id, BEN)
    )
    await house.commits.commit(Commit())

    since = house.clock() - timedelta(hours=1)
    assert await house.storage.sessions.auto_session(BEN, casefile.casefile_id, since) is None


async def test_a_loop_that_ends_takes_what_starts_along_without_a_word(
    house: House, anna: Principal, casefile: CasefileView
):
    reached, release = asyncio.Event(), asyncio.Event()

    async def slow_disk(_: Commit) -> None:
        reached.set()
        await release.wait()

    house.commits.meanwhile(slow_disk)
    before = asyncio.all_tasks()
    call = house.call(anna, At(casefile_id=casefile.casefile_id), "echo")
    waiting = asyncio.create_task(house.executor.execute(call))
    await reached.wait()
    for task in asyncio.all_tasks() - before:
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await house.kinds(casefile.record_session_id) == ["casefile_created", "granted"]


# The end


async def test_an_end_is_told_once_the_store_is_back(house: House, anna: Principal, casefile: CasefileView):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "echo", value=1)
    house.commits.meanwhile(away, away)

    outcome = await asyncio.wait_for(started.running.ended, 5)

    assert outcome.status == "completed"
    assert await house.kinds(outcome.session_id) == ["opened", "started", "succeeded"]


async def test_an_operation_that_somebody_else_ended_is_not_ended_twice(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "sleepy", seconds=0.1)
    await Recovery(house.storage.events, house.detached, owner="another").run()

    await asyncio.wait_for(started.running.ended, 5)

    assert await house.kinds(started.fact.session_id) == ["opened", "started", "interrupted"]


async def test_a_stopping_server_gives_up_on_a_store_that_stays_away(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "sleepy")
    house.commits.meanwhile(*[away] * 6)

    await house.runner.drain(timedelta())

    with pytest.raises(StoreUnavailable):
        await started.running.ended
    assert await house.kinds(started.fact.session_id) == ["opened", "started"]


async def test_whoever_waits_for_what_is_ended_over_its_head_is_answered_when_that_is_on_the_disk(
    directory: Path,
):
    returned = asyncio.Event()

    @tool(effects={Effect.READ})
    async def stubborn(call: MDSContext) -> None:
        """Ignore its cancellation until its end is on its way."""
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await returned.wait()

    async def returns(_: Commit) -> None:
        returned.set()
        await asyncio.sleep(0.05)

    async with open_house(directory, grace=timedelta(milliseconds=20), tools=[stubborn]) as house:
        anna = await house.caller(ANNA)
        place = At(casefile_id=(await house.casefile(anna)).casefile_id)
        call = replace(house.call(anna, place, "stubborn"), until="ended")
        waiting = asyncio.create_task(house.executor.execute(call))
        async with asyncio.timeout(5):
            while not house.runner.all():
                await asyncio.sleep(0.01)

        house.commits.meanwhile(returns)
        house.runner.stop("Revoked.", user_id=ANNA)
        _, outcome = await asyncio.wait_for(waiting, 5)

    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert (outcome.status, outcome.failure.type) == ("failed", "rights_lost")
