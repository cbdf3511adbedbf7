"""What every store promises about the tail: every fact of a casefile once, in the order of commits."""

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from casekeeper.casefiles.casefile import DeleteCasefile, EraseContents
from casekeeper.errors import PositionInvalid, PositionOfAnotherEpoch
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Kind
from casekeeper.journal.tail import Position, Tail
from casekeeper.storage.store import Storage
from tests.contract.conftest import Where
from tests.contract.shelf import LATER, Shelf
from tests.contract.walking import Place, begin_epoch, places, present, settled, walked, written

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]


# Order


async def test_facts_come_in_the_order_of_their_commits(shelf: Shelf):
    sessions = [(await shelf.session()).session_id for _ in range(3)]
    start = await present(shelf.storage.tail, shelf.casefile_id)

    made = [one for turn in range(12) for one in await written(shelf, sessions[turn % 3])]

    assert await places(shelf.storage.tail, shelf.casefile_id, start) == made
    everything = await places(shelf.storage.tail, shelf.casefile_id)
    assert everything == [(shelf.session_id, 1), *((session_id, 1) for session_id in sessions), *made]


async def test_facts_of_one_commit_come_together_by_their_seq(shelf: Shelf):
    other = (await shelf.session()).session_id
    start = await present(shelf.storage.tail, shelf.casefile_id)
    both = [shelf.fact(Kind.DENIED, session_id) for session_id in (other, shelf.session_id) * 3]

    await asyncio.gather(shelf.commit(Commit(both)), *(written(shelf, other, 3) for _ in range(2)))

    found, _ = await walked(shelf.storage.tail, shelf.casefile_id, start)
    assert {fact.event_id for fact in both} <= {one.event_id for one in found}
    assert len(found) == len(both) + 6
    for session_id in (other, shelf.session_id):
        seqs = [one.fact.seq for one in found if one.fact.session_id == session_id]
        assert seqs == list(range(2, 2 + len(seqs)))


async def test_what_is_told_of_a_fact_is_what_its_session_says(shelf: Shelf):
    await shelf.operation(body={"note": "é"})
    expected = {fact.seq: fact for fact in await shelf.facts()}

    await settled(shelf.storage.tail)
    full, _ = await shelf.storage.tail.read(shelf.casefile_id, None, 10, payloads=True)
    bare, _ = await shelf.storage.tail.read(shelf.casefile_id, None, 10)

    assert {one.fact.seq: one.fact for one in full} == expected
    assert [one.fact.header for one in bare] == [one.fact.header for one in full]
    assert [(one.fact.body, one.fact.inputs, one.fact.actor_user_id) for one in bare] == [
        (None, None, one.fact.actor_user_id) for one in full
    ]
    told = [json.loads(one.fact.json()) for one in bare]
    assert [(one["event_id"], one["kind"]) for one in told] == [(one.event_id, one.kind) for one in bare]


async def test_a_casefile_tells_nothing_of_another(shelf: Shelf):
    other = await shelf.casefile("cf_260301_bbbbbb")
    session = await shelf.session(casefile_id=other.casefile_id)
    await shelf.operation()

    assert await places(shelf.storage.tail, other.casefile_id) == [(session.session_id, 1)]
    assert await places(shelf.storage.tail, "cf_260301_ffffff") == []


async def test_erased_contents_leave_the_facts_where_they_were(shelf: Shelf):
    for _ in range(3):
        await shelf.operation(body="secret")
    before, end = await walked(shelf.storage.tail, shelf.casefile_id)

    await shelf.commit(Commit(records=(DeleteCasefile(shelf.casefile_id, LATER),)))
    await shelf.commit(Commit(records=(EraseContents(shelf.casefile_id),)))

    after, _ = await walked(shelf.storage.tail, shelf.casefile_id)
    assert [one.fact.header for one in after] == [one.fact.header for one in before]
    assert [one.position for one in after] == [one.position for one in before]
    assert await places(shelf.storage.tail, shelf.casefile_id, end) == []


# Positions


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
async def test_pages_of_any_size_make_the_same_walk(shelf: Shelf, limit: int):
    for _ in range(4):
        await shelf.operation()

    assert await places(shelf.storage.tail, shelf.casefile_id, limit=limit) == [
        (shelf.session_id, seq) for seq in range(1, 10)
    ]


async def test_a_consumer_goes_on_behind_any_fact_that_it_has_kept(shelf: Shelf):
    for _ in range(3):
        await shelf.operation()
    found, end = await walked(shelf.storage.tail, shelf.casefile_id)
    everything = [(one.fact.session_id, one.fact.seq) for one in found]

    for number, one in enumerate(found, 1):
        kept = Position.of(one.position.text)
        assert await places(shelf.storage.tail, shelf.casefile_id, kept, 2) == everything[number:]
    assert await places(shelf.storage.tail, shelf.casefile_id, end) == []


async def test_reading_at_the_end_gives_nothing_until_something_is_written(shelf: Shelf):
    tail = shelf.storage.tail
    at_end = await present(tail, shelf.casefile_id)
    for _ in range(3):
        found, at_end = await tail.read(shelf.casefile_id, at_end, 10)
        assert found == [] or found == ()

    made = await written(shelf, shelf.session_id, 2)

    assert await places(tail, shelf.casefile_id, at_end) == made


async def test_a_position_older_than_anything_reads_from_the_beginning(shelf: Shelf):
    early = await present(shelf.storage.tail, "cf_260301_cccccc")
    new = await shelf.casefile("cf_260301_cccccc")
    session = await shelf.session(casefile_id=new.casefile_id)

    from_early = await places(shelf.storage.tail, new.casefile_id, early)

    assert from_early == [(session.session_id, 1)] == await places(shelf.storage.tail, new.casefile_id)


async def test_a_position_of_another_epoch_is_refused(where: Where):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        await shelf.operation()
        found, end = await walked(store.tail, shelf.casefile_id)
        await store.tail.read(shelf.casefile_id, end, 1)
    await begin_epoch(where, "restored")
    async with where.open() as store:
        for position in (end, found[0].position):
            with pytest.raises(PositionOfAnotherEpoch):
                await store.tail.read(shelf.casefile_id, position, 10)
            with pytest.raises(PositionOfAnotherEpoch):
                await store.tail.casefiles_with_news(position)
        anew, _ = await walked(store.tail, shelf.casefile_id)
        assert [one.fact for one in anew] == [one.fact for one in found]
        assert await places(store.tail, shelf.casefile_id, anew[1].position) == [(shelf.session_id, 3)]


@pytest.mark.parametrize("place", ["", "x", "~", "1~2", "-1", "9" * 40, "1~x~y"])
async def test_what_is_no_position_is_refused(shelf: Shelf, place: str):
    epoch = (await present(shelf.storage.tail, shelf.casefile_id)).epoch

    with pytest.raises(PositionInvalid):
        await shelf.storage.tail.read(shelf.casefile_id, Position(epoch, place), 10)
    with pytest.raises(PositionOfAnotherEpoch):
        await shelf.storage.tail.read(shelf.casefile_id, Position("other", place), 10)


# Casefiles with news


async def test_casefiles_with_news_are_named_until_there_is_none(shelf: Shelf):
    tail, ids = shelf.storage.tail, [f"cf_260301_{letter * 6}" for letter in "abcd"]
    sessions = {
        one: (await shelf.session(casefile_id=(await shelf.casefile(one)).casefile_id)).session_id
        for one in ids
    }
    start = await present(tail, shelf.casefile_id)

    async def write(casefile_id: str) -> None:
        fact = shelf.fact(Kind.DENIED, sessions[casefile_id], casefile_id=casefile_id)
        await shelf.commit(Commit((fact,)))

    for one in ids[:3] * 4:
        await write(one)
    await settled(tail)

    position, named = start, set[str]()
    for _ in range(50):
        news = await tail.casefiles_with_news(position, facts=5)
        named.update(news.casefile_ids)
        position = news.position
        if news.is_all:
            break
    assert named == set(ids[:3])
    await write(ids[3])
    await settled(tail)
    assert ids[3] in (await tail.casefiles_with_news(position)).casefile_ids


# Where sessions stand


async def test_followed_sessions_are_told_how_far_they_have_come(where: Where):
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(where.open())
        reader = store if where.kind == "sqlite" else await stack.enter_async_context(where.open())
        shelf = await Shelf.filled(store)
        elsewhere = await shelf.casefile("cf_260301_bbbbbb")
        other = (await shelf.session(casefile_id=elsewhere.casefile_id)).session_id
        unfollowed = (await shelf.session()).session_id
        followed = [shelf.session_id, other, "ts_260301_none_000000"]

        first = await reader.events.heads(followed)
        await written(shelf, shelf.session_id, 2)
        await written(shelf, unfollowed)
        second = await reader.events.heads(followed)
        fact = shelf.fact(Kind.DENIED, other, casefile_id=elsewhere.casefile_id)
        await shelf.commit(Commit((fact,)))
        third = await reader.events.heads(followed)

        assert first == {shelf.session_id: 1, other: 1}
        assert second[shelf.session_id] == 3
        assert third[other] == 2
        assert not {unfollowed} & {*first, *second, *third}
        assert await reader.events.heads([]) == {}


# Whatever happens meanwhile


async def test_consumers_that_poll_while_processes_write_miss_nothing(where: Where):
    async with AsyncExitStack() as stack:
        # The embedded store belongs to one process.
        openings = 1 if where.kind == "sqlite" else 2
        stores = [await stack.enter_async_context(where.open()) for _ in range(openings)]
        shelf = await Shelf.filled(stores[0])
        sessions = [shelf.session_id, *[(await shelf.session()).session_id for _ in range(3)]]
        start = await present(stores[0].tail, shelf.casefile_id)
        is_done = asyncio.Event()

        async def produce(store: Storage, session_id: str) -> list[Place]:
            writer = Shelf(store, shelf.casefile_id, shelf.session_id, shelf.pseudonyms)
            return await written(writer, session_id, 10)

        consuming = [
            asyncio.create_task(_consumed(store.tail, shelf.casefile_id, start, limit, is_done))
            for store, limit in zip(itertools.cycle(stores), (2, 5, 50), strict=False)
        ]
        producing = [produce(store, one) for store in stores for one in sessions for _ in range(2)]
        made = {one for some in await asyncio.gather(*producing) for one in some}
        is_done.set()
        seen = await asyncio.gather(*consuming)

        assert len(made) == 10 * len(producing)
        assert sorted(seen[0]) == sorted(made)
        assert seen == [seen[0]] * len(consuming)
        assert await places(stores[-1].tail, shelf.casefile_id, start, 7) == seen[0]
        for session_id in sessions:
            seqs = [seq for place, seq in seen[0] if place == session_id]
            assert seqs == sorted(seqs)


async def _consumed(
    tail: Tail, casefile_id: str, after: Position, limit: int, is_done: asyncio.Event
) -> Sequence[Place]:
    """What a consumer gets who reads all the time, and once more when nothing is written any longer."""
    seen: list[Place] = []
    while True:
        if is_last := is_done.is_set():
            await settled(tail)
        found, after = await tail.read(casefile_id, after, limit)
        seen += [(one.fact.session_id, one.fact.seq) for one in found]
        if is_last and not found:
            return seen
        await asyncio.sleep(0.005)


_WRITER = """
import asyncio, json, sys
from pathlib import Path
from casekeeper.storage.opening import open_storage
from tests.contract.shelf import Shelf
from tests.contract.walking import written

async def main(address, directory, casefile_id, session_id, pseudonyms):
    async with open_storage(address, Path(directory), lambda _: None) as store:
        shelf = Shelf(store, casefile_id, session_id, json.loads(pseudonyms))
        while True:
            for _, seq in await written(shelf, session_id):
                print(seq, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_process_was_answered_comes_once(where: Where):
    async with where.open() as store:
        shelf = await Shelf.filled(store)
        await shelf.operation()
        kept = (await walked(store.tail, shelf.casefile_id))[1]
    known = (shelf.casefile_id, shelf.session_id, json.dumps(shelf.pseudonyms))
    command = [sys.executable, "-c", _WRITER, where.address, str(where.directory), *known]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    answered = [int(await process.stdout.readline()) for _ in range(25)]
    process.send_signal(signal.SIGKILL)
    answered += [int(line) for line in (await process.stdout.read()).split(b"\n")[:-1]]
    await process.wait()

    async with where.open() as store:
        came = await places(store.tail, shelf.casefile_id, Position.of(kept.text), 10)
        again = await places(store.tail, shelf.casefile_id, kept)
    seqs = [seq for _, seq in came]
    # One more may have been committed than was answered.
    assert seqs[: len(answered)] == answered == list(range(4, 4 + len(answered)))
    assert len(seqs) <= len(answered) + 1
    assert again == came
