"""What every store promises about commits: order, atomicity, conditions, claims, open operations."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY
from casekeeper.casefiles.casefile import Fence, FenceBroken, RemoveGrant
from casekeeper.clock import to_us
from casekeeper.errors import SessionBusy, SessionClosed, SessionNotFound
from casekeeper.journal.commits import Commit, ForgetExpired, IdTaken
from casekeeper.journal.events import Kind, Payload, Sealed
from casekeeper.journal.operations import OperationEnded, OperationIsOpen, operation_of
from casekeeper.journal.requests import AlreadyClaimed, Claim, ReleaseClaim
from casekeeper.sessions.session import (
    AutoSessionExists,
    AutoSessionIsAbsent,
    EndSession,
    PutSession,
    SessionIdIsFree,
    SessionIsIdle,
    SessionIsOpen,
)
from tests.contract.shelf import GUEST, LATER, NOW, OWNER, Shelf

pytestmark = pytest.mark.timeout(60)


async def all_of(shelf: Shelf, commits: Sequence[Commit]) -> list[Sequence[Sealed] | BaseException]:
    """Commit them at the same time."""
    return await asyncio.gather(*(shelf.commit(commit) for commit in commits), return_exceptions=True)


def kinds_of(answers: Sequence[Sequence[Sealed] | BaseException]) -> list[str]:
    """`ok`, or the name of the refusal."""
    return [type(a).__name__ if isinstance(a, BaseException) else "ok" for a in answers]


# Order


async def test_many_producers_get_gapless_numbers_and_a_chain_that_verifies(shelf: Shelf):
    sessions = [shelf.session_id, *[(await shelf.session()).session_id for _ in range(3)]]

    async def produce(number: int) -> list[int]:
        seqs: list[int] = []
        for turn in range(40):
            fact = shelf.fact(Kind.DENIED, sessions[(number + turn) % 4], body=turn)
            [sealed] = await shelf.commit(Commit((fact,)))
            seqs.append(sealed.seq)
        return seqs

    await asyncio.gather(*(produce(number) for number in range(25)))

    for session_id in sessions:
        assert [fact.seq for fact in await shelf.facts(session_id)] == list(range(1, 252))
    report = await shelf.check(*sessions)
    assert (report.exit_code, sum(s.facts for s in report.sessions)) == (0, 1004)


async def test_one_producers_facts_keep_their_order(shelf: Shelf):
    facts = [shelf.fact(Kind.DENIED, body=number) for number in range(200)]

    await all_of(shelf, [Commit((fact,)) for fact in facts])

    stored = await shelf.facts()
    assert [json.loads(f.header)["event_id"] for f in stored[1:]] == [f.event_id for f in facts]


async def test_facts_of_one_commit_stand_together(shelf: Shelf):
    commits = [Commit(tuple(shelf.fact(Kind.DENIED) for _ in range(3))) for _ in range(50)]

    answers = await all_of(shelf, commits)

    for sealed in answers:
        assert not isinstance(sealed, BaseException)
        first = sealed[0].seq
        assert [s.seq for s in sealed] == [first, first + 1, first + 2]


async def test_the_answer_is_what_is_stored(shelf: Shelf):
    sealed = await shelf.commit(Commit((shelf.fact(Kind.DENIED), shelf.fact(Kind.DENIED))))

    stored = await shelf.facts()
    assert [(s.seq, s.hash) for s in sealed] == [(f.seq, f.hash) for f in stored[1:]]


async def test_a_session_shows_its_newest_fact_as_its_head(shelf: Shelf):
    [sealed] = await shelf.commit(Commit((shelf.fact(Kind.DENIED, started_at=LATER),)))

    session = await shelf.storage.sessions.session(shelf.session_id)

    assert session is not None
    assert session.head is not None
    assert (session.head.seq, session.head.hash) == (sealed.seq, sealed.hash.hex())
    assert session.last_activity_at == LATER


# Atomicity


async def test_refused_commits_drop_out_singly_before_anything_is_numbered(shelf: Shelf):
    good = [Commit((shelf.fact(Kind.DENIED),)) for _ in range(30)]
    bad = [Commit((shelf.fact(Kind.DENIED),), (SessionIsOpen("ts_260301_none_000000"),)) for _ in range(30)]
    mixed = [commit for pair in zip(good, bad, strict=True) for commit in pair]

    answers = await all_of(shelf, mixed)

    assert kinds_of(answers) == ["ok", "SessionNotFound"] * 30
    assert [fact.seq for fact in await shelf.facts()] == list(range(1, 32))


async def test_a_refused_commit_writes_nothing_of_itself(shelf: Shelf):
    other = shelf.a_session()
    conditions = (SessionIsOpen(shelf.session_id), SessionIdIsFree(shelf.session_id))

    with pytest.raises(IdTaken):
        await shelf.commit(Commit((shelf.fact(Kind.DENIED),), conditions, (PutSession(other),)))

    assert await shelf.storage.sessions.session(other.session_id) is None
    assert len(await shelf.facts()) == 1


async def test_a_poisoned_commit_does_not_hurt_the_others(shelf: Shelf):
    taken = shelf.a_session()
    await shelf.commit(Commit(records=(PutSession(taken),)))
    good = [Commit((shelf.fact(Kind.DENIED),)) for _ in range(10)]
    poison = Commit((shelf.fact(Kind.DENIED),), (), (PutSession(taken),))

    answers = await all_of(shelf, [*good[:5], poison, *good[5:]])

    assert [a == "ok" for a in kinds_of(answers)] == [True] * 5 + [False] + [True] * 5
    assert [fact.seq for fact in await shelf.facts()] == list(range(1, 12))
    assert (await shelf.check()).exit_code == 0


async def test_a_waiter_who_is_cancelled_changes_nothing_for_the_others(shelf: Shelf):
    tasks = [asyncio.ensure_future(shelf.commit(Commit((shelf.fact(Kind.DENIED),)))) for _ in range(60)]
    await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    cancelled = [isinstance(answer, asyncio.CancelledError) for answer in answers]
    assert cancelled == [number % 3 == 0 for number in range(60)]
    await shelf.commit(Commit((shelf.fact(Kind.DENIED),)))
    stored = await shelf.facts()
    assert [fact.seq for fact in stored] == list(range(1, len(stored) + 1))
    told = [a[0].seq for a in answers if not isinstance(a, BaseException)]
    assert set(told) <= {fact.seq for fact in stored}
    assert (await shelf.check()).exit_code == 0


# Bodies


async def test_bodies_of_three_megabytes_come_back_as_they_went(shelf: Shelf):
    text = "ä€𝄞x" * 250_000
    facts = [shelf.fact(Kind.STARTED, body=text) for _ in range(4)]

    await all_of(shelf, [Commit((fact,)) for fact in facts])

    stored = (await shelf.facts())[1:]
    assert all(json.loads(fact.json())["inputs"] == text for fact in stored)
    assert all(fact.size > 2_500_000 for fact in stored)
    assert (await shelf.check()).exit_code == 0


def _nested(depth: int) -> Any:
    value: Any = "core"
    for level in range(depth):
        value = [value] if level % 2 else {"": value}
    return value


ODD: dict[str, Any] = {
    "arrays": [[], [[]], [[1, [2, [3]]]]],
    "depth 30": _nested(30),
    "odd keys": {"": 1, " ": 2, "a.b": 3, "$ref": 4, "__name__": 5, "é": 6},
    "big numbers": [2**70, -(2**70), 2**53 + 1, 1e-300, -0.0],
    "odd characters": 'nul \x00, quote " and \\, line\u2028, last \U0010ffff',
    "constants": {"null": None, "true": True, "empty": {}, "list": []},
    "null": None,
    "empty": "",
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_json_comes_back_as_it_went(shelf: Shelf, name: str):
    await shelf.commit(Commit((shelf.fact(Kind.STARTED, body=ODD[name]),)))

    [_, fact] = await shelf.facts()

    assert json.loads(fact.json())["inputs"] == ODD[name]
    assert (await shelf.check()).exit_code == 0


async def test_text_around_the_payload_may_be_odd_too(shelf: Shelf):
    name = "x" * 128
    await shelf.commit(Commit((shelf.started(name, request_id="A.b:c-" + "9" * 100),)))

    [_, fact] = await shelf.facts()

    assert json.loads(fact.json())["operation_name"] == name


async def test_a_payload_kept_as_a_blob_is_named_not_inlined(shelf: Shelf):
    payload = Payload.of(b'{"inputs":1}')
    blob = Payload(payload.salt, payload.commit, 300_000, None, payload.commit.hex())

    await shelf.commit(Commit((replace(shelf.fact(Kind.STARTED), payload=blob),)))

    [_, fact] = await shelf.facts()
    assert json.loads(fact.json())["inputs"] == {"blob": payload.commit.hex(), "size": 300_000}


# Conditions


async def test_conditions_see_what_the_commits_before_them_wrote(shelf: Shelf):
    session = shelf.a_session()
    opening = Commit((), (SessionIdIsFree(session.session_id),), (PutSession(session),))

    answers = await all_of(shelf, [opening] * 20)

    assert sorted(kinds_of(answers)) == ["IdTaken"] * 19 + ["ok"]


async def test_a_closed_session_takes_no_more_facts(shelf: Shelf):
    await shelf.commit(Commit(records=(EndSession(shelf.session_id, LATER),)))

    with pytest.raises(SessionClosed):
        await shelf.commit(shelf.opening(shelf.started()))


async def test_a_missing_session_takes_none(shelf: Shelf):
    with pytest.raises(SessionNotFound):
        await shelf.commit(shelf.opening(shelf.started(session_id="ts_260301_none_000000")))


async def test_of_a_start_and_a_close_at_the_same_time_only_one_wins(shelf: Shelf):
    for _ in range(20):
        session_id = (await shelf.session()).session_id
        start = shelf.opening(shelf.started(session_id=session_id))
        idle = (SessionIsOpen(session_id), SessionIsIdle(session_id))
        close = Commit((shelf.fact(Kind.CLOSED, session_id),), idle, (EndSession(session_id, LATER),))

        answers = kinds_of(await all_of(shelf, [start, close]))

        assert answers in (["ok", "SessionBusy"], ["SessionClosed", "ok"])


async def test_a_busy_session_names_what_is_open(shelf: Shelf):
    fact = shelf.started()
    await shelf.commit(shelf.opening(fact))

    with pytest.raises(SessionBusy) as busy:
        await shelf.commit(Commit((), (SessionIsIdle(shelf.session_id),)))

    assert busy.value.open_operations == (fact.event_id,)


@pytest.mark.parametrize(
    ("user_id", "whose", "where", "breaks"),
    [
        (GUEST, GUEST, "here", True),
        (GUEST, ANY, "here", True),
        (GUEST, GUEST, ANY, True),
        (GUEST, OWNER, "here", False),
        (GUEST, GUEST, "elsewhere", False),
    ],
    ids=["own grant", "whole casefile", "whole account", "another's grant", "another casefile"],
)
async def test_a_fence_breaks_on_changes_that_concern_it(
    shelf: Shelf, user_id: str, whose: str, where: str, breaks: bool
):
    await shelf.grant(GUEST, Role.EDITOR)
    fence = await shelf.fence(user_id)
    place = {"here": shelf.casefile_id, "elsewhere": "cf_260301_ffffff", ANY: ANY}[where]
    await shelf.commit(Commit(records=(shelf.change(whose, place),)))

    [answer] = kinds_of(await all_of(shelf, [Commit((shelf.fact(Kind.DENIED),), (fence,))]))

    assert answer == ("FenceBroken" if breaks else "ok")


@pytest.mark.parametrize("late_ms", [-1, 0])
async def test_a_fence_breaks_when_the_grant_has_ended(shelf: Shelf, late_ms: int):
    await shelf.grant(GUEST, Role.EDITOR)
    asof = (await shelf.fence(GUEST)).asof
    now = NOW + timedelta(milliseconds=late_ms)
    fence = Fence(GUEST, shelf.casefile_id, asof, NOW, lambda: now)

    [answer] = kinds_of(await all_of(shelf, [Commit((shelf.fact(Kind.DENIED),), (fence,))]))

    assert answer == ("ok" if late_ms else "FenceBroken")


async def test_no_start_slips_in_behind_a_revoke_that_came_first(shelf: Shelf):
    await shelf.grant(GUEST, Role.EDITOR)
    fence = await shelf.fence(GUEST)
    revoke = Commit(records=(RemoveGrant(shelf.casefile_id, GUEST), shelf.change(GUEST, shelf.casefile_id)))
    starts = [Commit((shelf.fact(Kind.DENIED),), (fence,)) for _ in range(40)]

    answers = kinds_of(await all_of(shelf, [*starts[:20], revoke, *starts[20:]]))

    assert answers == ["ok"] * 21 + [FenceBroken.__name__] * 20


async def test_numbers_of_the_feed_are_gapless_too(shelf: Shelf):
    before = (await shelf.storage.accounts.head()).number
    changes = [Commit(records=(shelf.change(GUEST, shelf.casefile_id),)) for _ in range(50)]

    await all_of(shelf, changes)

    seen = await shelf.storage.accounts.changes(before)
    assert [change.number for change in seen] == list(range(before + 1, before + 51))
    assert (await shelf.storage.accounts.head()).number == before + 50


async def test_the_feed_tells_where_an_instant_is_in_it(shelf: Shelf):
    before = (await shelf.storage.accounts.head()).number
    await shelf.commit(Commit(records=(shelf.change(),)))
    us = to_us(NOW)

    found = [await shelf.storage.accounts.number_before(instant) for instant in (0, us, us + 1)]

    assert found == [0, 0, before + 1]


# Claims


def claiming(shelf: Shelf, made: str, *, now: datetime = NOW, expires_at: datetime | None = None) -> Commit:
    claim = Claim("k", "fingerprint", made, now, expires_at)
    return Commit((shelf.fact(Kind.STARTED),), (claim,), (claim,))


async def test_of_twenty_duplicates_one_goes_through(shelf: Shelf):
    answers = await all_of(shelf, [claiming(shelf, f"evt_{number}") for number in range(20)])

    assert sorted(kinds_of(answers)) == [AlreadyClaimed.__name__] * 19 + ["ok"]
    assert len(await shelf.facts()) == 2


async def test_a_claim_tells_what_it_made(shelf: Shelf):
    await shelf.commit(claiming(shelf, "evt_1"))

    assert await shelf.storage.accounts.claimed("k", NOW) == ("fingerprint", "evt_1")
    assert await shelf.storage.accounts.claimed("another", NOW) is None


async def test_a_claim_lasts_until_its_time_after_the_operations_end(shelf: Shelf):
    claims, ends = shelf.storage.accounts, NOW + timedelta(hours=24)
    await shelf.commit(claiming(shelf, "evt_1"))
    assert await claims.claimed("k", NOW + timedelta(days=365)) is not None

    await shelf.commit(Commit(records=(ReleaseClaim("evt_1", ends),)))

    assert await claims.claimed("k", ends - timedelta(microseconds=1)) is not None
    assert await claims.claimed("k", ends) is None


async def test_an_expired_claim_can_be_claimed_anew_and_is_forgotten(shelf: Shelf):
    await shelf.commit(claiming(shelf, "evt_1", expires_at=NOW + timedelta(hours=1)))
    after = NOW + timedelta(hours=2)

    await shelf.commit(claiming(shelf, "evt_2", now=after, expires_at=after + timedelta(hours=1)))
    assert await shelf.storage.accounts.claimed("k", after) == ("fingerprint", "evt_2")

    await shelf.commit(Commit(records=(ForgetExpired(after + timedelta(hours=5)),)))
    assert await shelf.storage.accounts.claimed("k", after) is None


# Open operations


async def test_an_operation_is_open_from_its_start_to_its_end(shelf: Shelf):
    fact = shelf.started("mail_search")
    [sealed] = await shelf.commit(shelf.opening(fact))
    [opened] = await shelf.storage.events.open_operations(shelf.session_id)

    await shelf.commit(shelf.ending(fact, sealed.seq))

    assert (opened.row.event_id, opened.row.operation_name) == (fact.event_id, "mail_search")
    assert (opened.started_seq, opened.inputs_commit) == (sealed.seq, fact.payload.commit.hex())
    assert await shelf.storage.events.open_operations(shelf.session_id) == []


async def test_an_operation_ends_once_however_many_try(shelf: Shelf):
    fact = shelf.started()
    [sealed] = await shelf.commit(shelf.opening(fact))
    kinds = [Kind.SUCCEEDED, Kind.CANCELLED, Kind.INTERRUPTED, Kind.TIMED_OUT]

    answers = await all_of(shelf, [shelf.ending(fact, sealed.seq, kind) for kind in kinds])

    assert kinds_of(answers) == ["ok", *[OperationEnded.__name__] * 3]
    assert len(await shelf.storage.events.operation(fact.event_id)) == 2
    assert (await shelf.check()).findings == ()


async def test_nothing_is_written_for_an_operation_that_has_ended(shelf: Shelf):
    fact = await shelf.operation()

    with pytest.raises(OperationEnded):
        await shelf.commit(Commit((shelf.fact(Kind.DENIED),), (OperationIsOpen(operation_of(fact)),)))


async def test_a_hundred_operations_end_in_one_commit(shelf: Shelf):
    facts = [shelf.started() for _ in range(100)]
    opened = [await shelf.commit(shelf.opening(fact)) for fact in facts]
    endings = [shelf.ending(fact, sealed.seq) for fact, [sealed] in zip(facts, opened, strict=True)]
    together = Commit(
        tuple(fact for one in endings for fact in one.facts),
        tuple(condition for one in endings for condition in one.conditions),
        tuple(record for one in endings for record in one.records),
    )

    await shelf.commit(together)

    assert await shelf.storage.events.open_operations(shelf.session_id) == []
    assert (await shelf.check()).findings == ()


async def test_orphans_are_what_other_processes_left_open_children_first(shelf: Shelf):
    times = (NOW + timedelta(seconds=second) for second in count())
    parent = shelf.started("agent", started_at=next(times))
    child = shelf.started("child", parent, started_at=next(times))
    mine = shelf.started("mine", started_at=next(times))
    for fact, owner in ((parent, "gone"), (child, "gone"), (mine, "alive")):
        await shelf.commit(shelf.opening(fact, owner=owner))

    orphans = await shelf.storage.events.orphans("alive", 10)

    assert [orphan.row.operation_name for orphan in orphans] == ["child", "agent"]
    assert [len(await shelf.storage.events.orphans("alive", 1))] == [1]


async def test_an_orphan_that_was_closed_is_one_no_more(shelf: Shelf):
    fact = shelf.started()
    await shelf.commit(shelf.opening(fact, owner="gone"))
    [orphan] = await shelf.storage.events.orphans("alive", 10)

    await shelf.commit(shelf.ending(fact, orphan.started_seq, Kind.INTERRUPTED))

    assert await shelf.storage.events.orphans("alive", 10) == []
    assert (await shelf.check()).findings == ()


# Auto sessions


async def test_concurrent_first_calls_make_one_auto_session(shelf: Shelf):
    absent = AutoSessionIsAbsent(OWNER, shelf.casefile_id, NOW - timedelta(hours=12))
    sessions = [shelf.a_session(auto=True) for _ in range(20)]
    openings = [
        Commit((shelf.fact(Kind.OPENED, s.session_id),), (absent,), (PutSession(s),)) for s in sessions
    ]

    answers = kinds_of(await all_of(shelf, openings))

    assert sorted(answers) == [AutoSessionExists.__name__] * 19 + ["ok"]
    found = await shelf.storage.sessions.auto_session(OWNER, shelf.casefile_id, NOW - timedelta(hours=12))
    assert found is not None
    assert found.session_id == sessions[answers.index("ok")].session_id


async def test_an_auto_session_is_found_while_it_is_open_and_in_use(shelf: Shelf):
    find, session = shelf.storage.sessions.auto_session, await shelf.session(auto=True)

    assert await find(OWNER, shelf.casefile_id, NOW) is not None
    assert await find(OWNER, shelf.casefile_id, NOW + timedelta(microseconds=1)) is None
    assert await find(GUEST, shelf.casefile_id, NOW) is None
    await shelf.commit(Commit(records=(EndSession(session.session_id, LATER),)))
    assert await find(OWNER, shelf.casefile_id, NOW) is None
