import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from datetime import timedelta

import pytest

from casekeeper.acl import Grant, Role
from casekeeper.casefiles.casefile import CasefileView, PutGrant
from casekeeper.errors import StoreUnavailable
from casekeeper.execution.recovery import Erasure, Expiry, Recovery, in_turn
from casekeeper.identity.principal import Principal
from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import CloseOperation, operation_of
from casekeeper.sessions.manager import At
from tests.unit.support import ANNA, BEN, NOW, House


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile, in which Ben is editor for an hour."""
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.EDITOR, until=NOW + timedelta(hours=1))
    return made


def happens(work: Callable[[], Awaitable[object]]) -> Callable[[Commit], Awaitable[None]]:
    async def happen(_: Commit) -> None:
        await work()

    return happen


# Orphans: what this house runs is an orphan in the eyes of the next process


def recovery(house: House, owner: str = "the next process") -> Recovery:
    return Recovery(house.storage.events, house.detached, owner=owner)


async def orphaned(house: House, anna: Principal, casefile: CasefileView) -> str:
    """A session in which a parent and its child run; returns its id."""
    place = At(casefile_id=casefile.casefile_id)
    parameters = {"tool_name": "sleepy", "parameters": {"seconds": 60}}
    started = await house.start(anna, place, "nest", request_id="req", **parameters)
    async with asyncio.timeout(5):
        while len(await house.kinds(started.fact.session_id)) < 3:
            await asyncio.sleep(0.01)
    return started.fact.session_id


async def test_what_lost_its_process_is_interrupted_children_first(
    house: House, anna: Principal, casefile: CasefileView
):
    session_id = await orphaned(house, anna, casefile)

    count = await recovery(house).run()

    ends = (await house.facts(session_id))[3:]
    assert count == 2
    assert [(f["kind"], f["operation_name"], f["error_type"]) for f in ends] == [
        ("interrupted", "sleepy", "process_gone"),
        ("interrupted", "nest", "process_gone"),
    ]


async def test_a_tree_is_interrupted_in_one_commit(house: House, anna: Principal, casefile: CasefileView):
    session_id = await orphaned(house, anna, casefile)
    commits: list[Commit] = []

    async def seen(commit: Commit) -> None:
        commits.append(commit)

    house.commits.meanwhile(seen, seen)
    await recovery(house).run()

    [only] = commits
    assert [fact.operation_name for fact in only.facts] == ["sleepy", "nest"]
    assert (await house.kinds(session_id))[-2:] == ["interrupted", "interrupted"]


async def test_an_interrupted_end_tells_the_whole_story(
    house: House, anna: Principal, casefile: CasefileView
):
    session_id = await orphaned(house, anna, casefile)
    house.clock.advance(seconds=30)

    await recovery(house).run()

    _, began, _, _, ended = await house.facts(session_id)
    assert (
        ended["event_id"],
        ended["started_seq"],
        ended["inputs"],
        ended["duration_ms"],
        ended["request_id"],
    ) == (
        began["event_id"],
        began["seq"],
        began["inputs"],
        30_000,
        "req",
    )
    assert ended["error"]["retryable"]


async def test_recovering_again_finds_nothing(house: House, anna: Principal, casefile: CasefileView):
    session_id = await orphaned(house, anna, casefile)
    await recovery(house).run()
    before = await house.kinds(session_id)

    assert await recovery(house).run() == 0
    assert await house.kinds(session_id) == before


async def test_two_recoveries_at_once_end_each_operation_once(
    house: House, anna: Principal, casefile: CasefileView
):
    session_id = await orphaned(house, anna, casefile)

    await asyncio.gather(recovery(house).run(), recovery(house, "a third one").run())

    assert (await house.kinds(session_id)).count("interrupted") == 2


async def test_what_runs_here_is_no_orphan(house: House, anna: Principal, casefile: CasefileView):
    await orphaned(house, anna, casefile)

    assert await recovery(house, owner="this").run() == 0


async def test_a_clock_that_stepped_back_ends_nothing_before_it_began(
    house: House, anna: Principal, casefile: CasefileView
):
    session_id = await orphaned(house, anna, casefile)
    house.clock.advance(hours=-1)

    await recovery(house).run()

    assert {f["duration_ms"] for f in (await house.facts(session_id))[3:]} == {0}


async def test_the_day_of_an_interrupted_request_begins_with_its_end(
    house: House, anna: Principal, casefile: CasefileView
):
    await orphaned(house, anna, casefile)
    await recovery(house).run()
    ask = house.ask(anna, "req", route="execute")

    held = await house.requests.find(ask)
    house.clock.advance(hours=25)

    assert held is not None
    assert await house.requests.find(ask) is None


async def test_an_operation_that_ends_by_itself_meanwhile_keeps_its_end(
    house: House, anna: Principal, casefile: CasefileView
):
    started = await house.start(anna, At(casefile_id=casefile.casefile_id), "sleepy")

    async def ends(_: Commit) -> None:
        await house.storage.commits.commit(Commit(records=(CloseOperation(operation_of(started.fact)),)))

    house.commits.meanwhile(ends)
    await recovery(house).run()

    assert await house.kinds(started.fact.session_id) == ["opened", "started"]


# Grants that have ended


def expiry(house: House) -> Expiry:
    return Expiry(house.storage.casefiles, house.storage.accounts, house.commits, house.clock)


async def test_the_end_of_a_grant_is_recorded_once(house: House, casefile: CasefileView):
    house.clock.advance(hours=1)

    swept = [await expiry(house).sweep() for _ in range(2)]

    fact = (await house.facts(casefile.record_session_id or ""))[-1]
    assert swept == [1, 0]
    assert (fact["kind"], fact["actor_user_id"], fact["inputs"]["user_id"], fact["inputs"]["role"]) == (
        "expired",
        ANNA,
        BEN,
        "editor",
    )


async def test_a_grant_by_somebody_unknown_ends_in_the_name_of_the_owner(
    house: House, casefile: CasefileView
):
    cy = "cy@example.com"
    await house.account(cy)
    granted = Grant(
        casefile_id=casefile.casefile_id,
        user_id=cy,
        role=Role.VIEWER,
        expires_at=NOW + timedelta(minutes=5),
        granted_by="elsewhere@example.com",
        granted_at=NOW,
    )
    await house.commits.commit(Commit(records=(PutGrant(granted),)))
    house.clock.advance(minutes=5)

    await expiry(house).sweep()

    fact = (await house.facts(casefile.record_session_id or ""))[-1]
    assert (fact["kind"], fact["actor_user_id"], fact["inputs"]["user_id"]) == ("expired", ANNA, cy)
    assert fact["inputs"]["granted_by"] == "elsewhere@example.com"


async def test_a_grant_that_has_not_ended_stays(house: House, casefile: CasefileView):
    house.clock.advance(minutes=59)

    assert await expiry(house).sweep() == 0
    assert await house.gate.look(await house.caller(BEN), casefile.casefile_id) is not None


async def test_the_end_of_a_grant_takes_a_number_of_the_feed(house: House, casefile: CasefileView):
    before = (await house.storage.accounts.head()).number
    house.clock.advance(hours=1)

    await expiry(house).sweep()

    assert (await house.storage.accounts.head()).number == before + 1


@pytest.mark.parametrize("renewed", [timedelta(days=1), None], ids=["longer", "without an end"])
async def test_a_grant_that_is_renewed_meanwhile_stays(
    house: House, anna: Principal, casefile: CasefileView, renewed: timedelta | None
):
    house.clock.advance(hours=1)
    until = house.clock() + renewed if renewed else None
    house.commits.meanwhile(
        happens(lambda: house.grant(anna, casefile.casefile_id, BEN, Role.EDITOR, until=until))
    )

    await expiry(house).sweep()

    assert await house.gate.look(await house.caller(BEN), casefile.casefile_id) is not None
    assert (await house.kinds(casefile.record_session_id))[-1] == "role_changed"


async def test_a_grant_that_is_revoked_meanwhile_ends_once(
    house: House, anna: Principal, casefile: CasefileView
):
    house.clock.advance(hours=1)
    house.commits.meanwhile(happens(lambda: house.revoke(anna, casefile.casefile_id, BEN)))

    await expiry(house).sweep()

    assert (await house.kinds(casefile.record_session_id))[-1] == "revoked"


async def test_a_grant_in_a_deleted_casefile_ends_without_a_word(
    house: House, anna: Principal, casefile: CasefileView
):
    await house.delete(anna, casefile.casefile_id)
    house.clock.advance(hours=1)

    swept = [await expiry(house).sweep() for _ in range(2)]

    assert swept == [1, 0]
    assert (await house.kinds(casefile.record_session_id))[-1] == "casefile_deleted"


# Deleted casefiles


def erasure(house: House) -> Erasure:
    return Erasure(house.storage.casefiles, house.storage.blobs, house.commits)


async def test_of_a_deleted_casefile_only_headers_stay(house: House, anna: Principal, casefile: CasefileView):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "note_add", text="x" * 50_000)
    large = await house.run(anna, At(casefile_id=casefile.casefile_id), "echo", value="y" * 300_000)
    await house.delete(anna, casefile.casefile_id)

    swept = [await erasure(house).sweep() for _ in range(2)]

    rows = await house.rows(outcome.session_id)
    assert swept == [1, 0]
    assert {(row.salt, row.body, row.blob) for row in rows} == {(None, None, None)}
    assert large.status == "completed"
    assert not (house.storage.directory / "blobs" / casefile.casefile_id).exists()
    assert (await house.storage.documents.counts(casefile.casefile_id)).documents == 0


async def test_the_chain_of_an_erased_record_still_verifies(
    house: House, anna: Principal, casefile: CasefileView
):
    from casekeeper.journal.chain import genesis, link

    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "echo", value=1)
    await house.delete(anna, casefile.casefile_id)
    await erasure(house).sweep()

    previous = genesis(casefile.casefile_id, outcome.session_id)
    for _, header, hash_, commit, *_ in await house.storage.events.record(outcome.session_id, 0, 100):
        assert link(previous, header, commit) == hash_
        previous = hash_


async def test_what_stands_is_not_erased(house: House, anna: Principal, casefile: CasefileView):
    outcome = await house.run(anna, At(casefile_id=casefile.casefile_id), "echo", value=1)

    assert await erasure(house).sweep() == 0
    assert all(row.body for row in await house.rows(outcome.session_id))


# Whose turn it is


@pytest.mark.parametrize(("is_ours", "swept"), [(True, ["first", "second"]), (False, [])])
async def test_what_all_share_is_swept_only_when_it_is_this_processes_turn(is_ours: bool, swept: list[str]):
    calls = list[str]()

    async def is_our_turn() -> bool:
        return is_ours

    async def first() -> None:
        calls.append("first")
        raise StoreUnavailable

    async def second() -> None:
        calls.append("second")

    with pytest.raises(StoreUnavailable) if is_ours else nullcontext():
        await in_turn(is_our_turn, first, second)

    assert calls == swept
