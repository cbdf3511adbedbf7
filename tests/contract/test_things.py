"""What every store promises about small things, tried with kinds that no store has heard of."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from casekeeper.casefiles.casefile import CasefileIsActive, DeleteCasefile, EraseContents
from casekeeper.errors import CasefileNotFound, SessionNotFound
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.things import BODY_MAX, Drop, IsAt, Put, Thing, ThingChanged, Topic
from casekeeper.sessions.session import SessionIsOpen
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sql.things import SqlThings
from casekeeper.storage.sqlite.backup import back_up, restore
from casekeeper.storage.store import Storage
from tests.contract.conftest import Opening
from tests.contract.shelf import GUEST, LATER, NOW, OWNER, Shelf
from tests.contract.test_postgres_store import holding
from tests.journeys.counted import Counted

pytestmark = pytest.mark.timeout(120)

KIND = "parking_permit"
HERE = Topic("casefile", "cf_260301_abc123")
THERE = Topic("casefile", "cf_260301_ffffff")
SECOND = timedelta(seconds=1)


def permit(number: int = 1, **fields: Any) -> Thing:
    """A thing that is not stored; those of higher numbers are younger."""
    at = NOW + number * SECOND
    values: dict[str, Any] = {"kind": KIND, "id": f"pp_{number:03}", "about": HERE, "state": "asked"}
    values |= {"created_at": at, "updated_at": at, "body": {"plate": f"B-CK {number}"}}
    return Thing(**values | fields)


def putting(*things: Thing) -> Commit:
    """The commit that makes these things, or their next versions."""
    return Commit((), tuple(map(IsAt.before, things)), tuple(map(Put, things)))


def dropping(thing: Thing) -> Commit:
    """The commit that takes a thing away as it was read."""
    return Commit((), (IsAt.as_read(thing),), (Drop.it(thing),))


async def all_of(store: Storage, commits: Sequence[Commit]) -> list[str]:
    """Commit them at the same time: `ok`, or the name of the refusal."""
    answers = await asyncio.gather(*map(store.commits.commit, commits), return_exceptions=True)
    return [type(a).__name__ if isinstance(a, BaseException) else "ok" for a in answers]


@pytest.fixture
async def pair(opening: Opening) -> AsyncGenerator[tuple[Storage, Storage]]:
    """The store as two processes have it, or twice the same where there can be one only."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(opening())
        yield one, await stack.enter_async_context(opening()) if one.is_shared else one


# As they went

ODD: dict[str, Any] = {
    "a body": {"body": {"": [[[]]], "n": [2**70, -0.0, 1e-300], "nul \x00": "\u2028 \U0010ffff", "no": None}},
    "an empty body": {"body": {}},
    "as much as there may be": {"body": {"x": "y" * (BODY_MAX - len('{"x":""}'))}},
    "no state": {"state": ""},
    "a due time": {"due_at": LATER + timedelta(microseconds=1)},
    "a high version": {"version": 2**53},
    "about an account": {"about": Topic("account", "o'neil+%_x@example.com")},
    "every character of an id": {"id": "".join(map(chr, range(33, 127))).replace("/", "")},
    "a long id": {"kind": "k" * 32, "id": "." * 254, "state": "s" * 32},
}


@pytest.mark.parametrize("name", ODD)
async def test_a_thing_comes_back_as_it_was_put(storage: Storage, name: str):
    thing = permit(**ODD[name])

    await storage.commits.commit(Commit(records=(Put(thing),)))

    assert await storage.things.get(thing.kind, thing.id) == thing
    assert await storage.things.page(thing.kind, thing.about, None, None, 10) == [thing]
    assert await storage.things.page(thing.kind, thing.about, thing.state, None, 10) == [thing]


async def test_many_full_bodies_are_put_at_once(storage: Storage):
    things = [permit(number, body={"x": "y" * (BODY_MAX - 8)}) for number in range(150)]

    assert await all_of(storage, [putting(thing) for thing in things]) == ["ok"] * 150

    assert len(await storage.things.page(KIND, HERE, None, None, 200)) == 150


async def test_a_thing_that_was_dropped_is_gone(storage: Storage):
    await storage.commits.commit(putting(permit(due_at=NOW)))

    await storage.commits.commit(dropping(permit()))

    assert await storage.things.get(KIND, permit().id) is None
    assert await storage.things.page(KIND, HERE, None, None, 10) == []
    assert await storage.things.due(None, LATER, 10) == []
    # What is not there can be dropped again, and be made anew.
    await storage.commits.commit(Commit(records=(Drop(KIND, permit().id, HERE),)))
    await storage.commits.commit(putting(permit()))
    assert await storage.things.get(KIND, permit().id) == permit()


async def test_things_of_one_id_and_another_kind_are_others(storage: Storage):
    badge = permit(kind="badge", body={})

    await storage.commits.commit(putting(permit(), badge))
    await storage.commits.commit(dropping(permit()))

    assert [await storage.things.get(kind, badge.id) for kind in (KIND, "badge")] == [None, badge]


@pytest.mark.parametrize(
    ("kind", "id_"),
    [
        ("unheard_of", "pp_001"),
        ("", "pp_001"),
        ("No Kind", "pp_001"),
        (KIND, ""),
        (KIND, "pp_002"),
        (KIND, "a/b"),
        (KIND, "\x00"),
        (KIND, "\ud800"),
        (KIND, "é" * 2000),
    ],
)
async def test_what_cannot_be_there_is_not_there(storage: Storage, kind: str, id_: str):
    await storage.commits.commit(putting(permit()))

    assert await storage.things.get(kind, id_) is None
    assert await storage.things.page(kind, Topic("account", id_), None, None, 10) == []
    assert await storage.things.page(KIND, HERE, f"{kind} {id_}", None, 10) == []


# Versions


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (IsAt(KIND, "pp_001", 0, HERE), 2),
        (IsAt(KIND, "pp_001", 1, HERE), 2),
        (IsAt(KIND, "pp_001", 3, HERE), 2),
        (IsAt(KIND, "pp_001", 10**30, HERE), 2),
        (IsAt(KIND, "pp_001", 2, THERE), 2),
        (IsAt(KIND, "pp_001", 2, Topic("account", HERE.id)), 2),
        (IsAt(KIND, "pp_001", 0, THERE), 2),
        (IsAt(KIND, "pp_002", 2, HERE), 0),
        (IsAt("badge", "pp_001", 2, HERE), 0),
    ],
)
async def test_another_version_than_the_one_that_is_there_is_refused(
    storage: Storage, asked: IsAt, found: int
):
    stored = permit(version=2)
    await storage.commits.commit(Commit(records=(Put(stored),)))

    with pytest.raises(ThingChanged) as refused:
        await storage.commits.commit(Commit((), (asked,), (Put(permit(version=9)), Put(permit(3)))))

    assert (refused.value.kind, refused.value.id, refused.value.version) == (asked.kind, asked.id, found)
    assert await storage.things.page(KIND, HERE, None, None, 10) == [stored]


async def test_without_a_condition_the_last_writer_wins(storage: Storage):
    await storage.commits.commit(putting(permit()))
    other = permit(version=7, about=THERE, created_at=LATER, state="", due_at=LATER, body={})

    await storage.commits.commit(Commit(records=(Put(other),)))

    assert await storage.things.get(KIND, other.id) == other
    assert await storage.things.page(KIND, HERE, None, None, 10) == []


@pytest.mark.parametrize("version", [1, 2])
async def test_of_writers_who_race_for_a_version_one_wins(pair: tuple[Storage, Storage], version: int):
    for number in range(5):
        if version == 2:
            await pair[0].commits.commit(putting(permit(number)))
        versions = [permit(number, version=version, body={"writer": writer}) for writer in range(8)]

        answers = [
            answer
            for answers in await asyncio.gather(
                *(all_of(store, [putting(one) for one in versions[n::2]]) for n, store in enumerate(pair))
            )
            for answer in answers
        ]

        assert sorted(answers) == ["ThingChanged"] * 7 + ["ok"]
        winner = [*versions[::2], *versions[1::2]][answers.index("ok")]
        assert await pair[1].things.get(KIND, winner.id) == winner


async def test_of_writers_who_drop_and_change_a_thing_one_wins(pair: tuple[Storage, Storage]):
    for number in range(5):
        thing = permit(number)
        await pair[0].commits.commit(putting(thing))
        changed = thing.changed(LATER, state="given")

        [dropped, [put]] = await asyncio.gather(
            all_of(pair[0], [dropping(thing)]), all_of(pair[1], [putting(changed)])
        )

        assert {*dropped, put} == {"ok", "ThingChanged"}
        assert await pair[0].things.get(KIND, thing.id) == (changed if put == "ok" else None)


async def test_commits_that_come_together_see_what_those_before_them_wrote(storage: Storage):
    first, other = permit(), permit(about=THERE)
    second, third = permit(version=2), permit(version=3)
    commits = [
        putting(first),
        putting(first),
        putting(third),
        putting(second),
        dropping(first),
        dropping(second),
        dropping(second),
        putting(first),
        putting(second),
    ]

    answers = await all_of(storage, commits)

    refused = "ThingChanged"
    assert answers == ["ok", refused, refused, "ok", refused, "ok", refused, "ok", "ok"]
    assert await storage.things.get(KIND, first.id) == second
    assert await all_of(storage, [putting(other)]) == [refused]


async def test_what_a_commit_found_missing_is_missing_when_it_is_written(pair: tuple[Storage, Storage]):
    for number in range(10):
        one, two = permit(number), permit(number, kind="badge")
        commits = [
            Commit((), (IsAt.before(absent),), (Put(made),)) for absent, made in ((one, two), (two, one))
        ]

        answers = await asyncio.gather(all_of(pair[0], commits[:1]), all_of(pair[1], commits[1:]))

        assert sorted(answers) == [["ThingChanged"], ["ok"]]


# Together with the rest of a commit


async def test_a_thing_goes_with_the_facts_of_its_commit_or_not_at_all(shelf: Shelf):
    things, closed = shelf.storage.things, "ts_260301_none_000000"
    fact = shelf.fact(Kind.DENIED)
    put = putting(permit())
    refused = [
        Commit((fact,), (IsAt.before(permit(version=2)),), (Put(permit(version=2)),)),
        Commit((fact,), (*put.conditions, SessionIsOpen(closed)), put.records),
        Commit((fact,), (SessionIsOpen(closed), *put.conditions), put.records),
    ]

    for commit in refused:
        with pytest.raises((ThingChanged, SessionNotFound)):
            await shelf.commit(commit)
    assert (len(await shelf.facts()), await things.get(KIND, permit().id)) == (1, None)
    await shelf.commit(Commit((fact,), put.conditions, put.records))

    assert (len(await shelf.facts()), await things.get(KIND, permit().id)) == (2, permit())


async def test_of_sessions_that_write_one_thing_with_their_facts_one_does(pair: tuple[Storage, Storage]):
    shelf = await Shelf.filled(pair[0])
    sessions = [shelf.session_id, *[(await shelf.session()).session_id for _ in range(3)]]
    put = putting(permit())
    commits = [
        Commit((shelf.fact(Kind.DENIED, session_id),), put.conditions, put.records) for session_id in sessions
    ]

    answers = await asyncio.gather(all_of(pair[0], commits[::2]), all_of(pair[1], commits[1::2]))

    assert sorted([*answers[0], *answers[1]]) == ["ThingChanged"] * 3 + ["ok"]
    written = [len(await shelf.facts(session_id)) for session_id in sessions]
    assert sorted(written) == [1, 1, 1, 2]
    assert (await shelf.check(*sessions)).exit_code == 0


# Pages


async def pages(storage: Storage, size: int, state: str | None = None) -> AsyncGenerator[Sequence[Thing]]:
    """All pages of the things here."""
    before = None
    while page := await storage.things.page(KIND, HERE, state, before, size):
        yield page
        before = page[-1].place


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_pages_are_in_order_and_hold_what_is_asked_for(storage: Storage, size: int):
    # Three at a time have one age.
    here = [
        permit(n, created_at=NOW + n // 3 * SECOND, state="given" if n % 2 else "asked") for n in range(12)
    ]
    others = [
        permit(20, about=THERE),
        permit(21, about=Topic("account", HERE.id)),
        permit(22, kind="badge"),
        permit(23, about=Topic("account", OWNER)),
    ]
    await storage.commits.commit(putting(*here, *others))

    newest_first = sorted(here, key=lambda thing: thing.place, reverse=True)
    assert [one async for page in pages(storage, size) for one in page] == newest_first
    for state in ("asked", "given", "gone"):
        found = [one async for page in pages(storage, size, state) for one in page]
        assert found == [one for one in newest_first if one.state == state]


@pytest.mark.parametrize("state", [None, "asked"])
async def test_pages_lose_and_repeat_nothing_while_things_come_and_go(storage: Storage, state: str | None):
    stays = [permit(n, created_at=NOW + n // 4 * SECOND) for n in range(24)]
    await storage.commits.commit(putting(*stays))
    dropped = list[Thing]()
    found = list[Thing]()

    async for page in pages(storage, 4, state):
        turn = len(found)
        found += page
        # A new one in front, and one of the same age as the page's last; one that was seen goes, and one that was not.
        at = page[-1].created_at
        await storage.commits.commit(
            putting(
                permit(500 + turn, created_at=LATER), permit(600 + turn, id=f"pp_{turn:03}x", created_at=at)
            )
        )
        for place in (turn // 4, 23 - turn):
            if stays[place] not in dropped:
                dropped.append(stays[place])
                await storage.commits.commit(dropping(stays[place]))

    assert len({one.id for one in found}) == len(found)
    assert [one for one in stays if one not in dropped and one not in found] == []
    assert [one for one in found if one.created_at == LATER] == []


# What is due


async def test_what_is_due_comes_in_order_and_nothing_else(storage: Storage):
    due = [permit(n, due_at=NOW - n // 2 * SECOND, about=(HERE, THERE)[n % 2]) for n in range(6)]
    badge = permit(7, kind="badge", due_at=NOW - timedelta(days=1))
    await storage.commits.commit(putting(*due, badge))
    await storage.commits.commit(
        putting(permit(8), permit(9, due_at=NOW + timedelta(microseconds=1)), permit(10, due_at=LATER))
    )
    longest_first = sorted(due, key=lambda thing: (thing.due_at, thing.id))
    things = storage.things

    assert await things.due(KIND, NOW, 10) == longest_first
    assert await things.due(KIND, NOW, 4) == longest_first[:4]
    assert await things.due(None, NOW, 3) == [badge, *longest_first[:2]]
    assert await things.due("badge", NOW, 10) == [badge]
    assert await things.due("unheard_of", NOW, 10) == []
    assert await things.due(None, NOW - timedelta(days=2), 10) == []


async def test_what_was_seen_to_is_due_at_its_next_time_or_never(storage: Storage):
    once, again = permit(1, due_at=NOW), permit(2, due_at=NOW)
    await storage.commits.commit(putting(once, again))
    done, moved = once.changed(NOW, due_at=None, state="given"), again.changed(NOW, due_at=LATER)

    await storage.commits.commit(putting(done, moved))

    assert await storage.things.due(None, LATER - SECOND, 10) == []
    assert await storage.things.due(None, LATER, 10) == [moved]


# Erasing


async def test_erasing_a_casefile_takes_its_things_and_no_others(shelf: Shelf):
    mine = [permit(n, kind=kind, due_at=NOW) for n, kind in enumerate((KIND, "badge") * 200)]
    others = [permit(500, about=THERE), permit(501, about=Topic("account", GUEST))]
    await shelf.commit(putting(*mine[:200]))
    await shelf.commit(putting(*mine[200:], *others))
    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
    things = shelf.storage.things

    await shelf.commit(Commit(records=(EraseContents(shelf.casefile_id),)))

    assert await things.due(None, LATER, 10) == []
    assert [await things.page(kind, HERE, None, None, 10) for kind in (KIND, "badge")] == [[], []]
    assert [await things.get(one.kind, one.id) for one in others] == others


async def test_what_a_casefile_had_before_it_was_erased_does_not_come_back(shelf: Shelf):
    await shelf.commit(putting(permit()))
    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
    await shelf.commit(Commit(records=(EraseContents(shelf.casefile_id),)))
    made = putting(permit(2))

    with pytest.raises(ThingChanged):
        await shelf.commit(putting(permit(version=2)))
    with pytest.raises(CasefileNotFound):
        await shelf.commit(Commit((), (*made.conditions, CasefileIsActive(shelf.casefile_id)), made.records))

    assert await shelf.storage.things.page(KIND, HERE, None, None, 10) == []


@pytest.mark.parametrize("opening", ["sqlite", "postgresql"], indirect=True)
async def test_what_comes_in_one_batch_with_the_erasure_is_erased_or_refused(storage: Storage):
    shelf = await Shelf.filled(storage)
    await shelf.commit(putting(permit(1)))

    answers = await all_of(
        storage,
        [
            putting(permit(1, version=2)),
            putting(permit(2), permit(3, about=THERE)),
            Commit(records=(EraseContents(shelf.casefile_id),)),
            putting(permit(2, version=2)),
            putting(permit(3, about=THERE, version=2)),
        ],
    )

    assert answers == ["ok", "ok", "ok", "ThingChanged", "ok"]
    assert [await storage.things.get(KIND, f"pp_{n:03}") for n in (1, 2)] == [None, None]
    assert await storage.things.get(KIND, "pp_003") == permit(3, about=THERE, version=2)


# Backups


@pytest.mark.parametrize("opening", ["sqlite"], indirect=True)
async def test_a_backup_takes_things_along(storage: Storage, tmp_path: Path):
    await storage.commits.commit(putting(permit()))

    back_up(storage.directory, tmp_path / "kept", NOW)
    restore(tmp_path / "kept", tmp_path / "restored")

    async with open_storage("", tmp_path / "restored", lambda _: None) as restored:
        assert await restored.things.get(KIND, permit().id) == permit()


# Indexes of the embedded store; what the others read is counted in their tests of costs


@pytest.mark.parametrize("opening", ["sqlite"], indirect=True)
async def test_the_embedded_store_reads_by_index_and_sorts_nothing(storage: Storage):
    await storage.commits.commit(putting(*(permit(n, due_at=NOW) for n in range(10))))
    counted = Counted(storage.directory / "casekeeper.db")
    things = SqlThings(counted)

    await things.get(KIND, "pp_001")
    for state in (None, "asked"):
        for before in (None, permit().place):
            await things.page(KIND, HERE, state, before, 3)
    for kind in (None, KIND):
        await things.due(kind, NOW, 3)

    assert len(counted.plans()) == 7
    assert [plan for plan in counted.plans() if not plan.startswith("SEARCH things USING INDEX")] == []
    counted.connection.close()


# Locks of PostgreSQL


async def test_a_thing_waits_for_who_changes_its_casefile_and_not_for_who_works_in_it(
    database: str, tmp_path: Path
):
    limits = StoreLimits(lock=timedelta(milliseconds=200))
    async with open_storage(database, tmp_path, lambda _: None, limits=limits) as store:
        shelf = await Shelf.filled(store)
        async with holding(database, shelf.casefile_id, session_id=shelf.session_id):
            beside = await all_of(store, [putting(permit(1)), dropping(permit(2, version=0))])
        async with holding(database, shelf.casefile_id):
            behind = await all_of(store, [putting(permit(3)), putting(permit(4, about=THERE))])

    assert beside == ["ok", "ok"]
    assert behind == ["StoreUnavailable", "ok"]
