"""What every place for blobs promises."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from casekeeper.documents.blobs import BlobStore
from casekeeper.errors import BodyTooLarge, StoreUnavailable
from tests.contract.places import PLACES, Place, opened

pytestmark = pytest.mark.timeout(120)

CASEFILE, OTHER = "cf_251023_5acf44", "cf_251023_000000"
MIB = 1024 * 1024
# More than one part of every store, and no whole number of them.
LARGE = secrets.token_bytes(20 * MIB + 4_321)
LONG_AGO, SOON = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC) + timedelta(days=2)  # noqa: TID251


@pytest.fixture(params=PLACES)
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """A place for blobs of each kind, with nothing in it."""
    async with opened(request, tmp_path) as one:
        yield one


@pytest.fixture
def blobs(place: Place) -> BlobStore:
    """Its store."""
    return place.blobs


async def chunks(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    """A stream, broken off if there is an error."""
    for part in parts:
        yield part
    if error:
        raise error


def cut(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    """The bytes as they would come in."""
    return chunks(*(data[at : at + size] for at in range(0, len(data), size)))


async def streamed(blobs: BlobStore, name: str) -> bytes:
    """What a reader of the stream gets."""
    async with aclosing(await blobs.stream(CASEFILE, name)) as pieces:
        return b"".join([piece async for piece in pieces])


async def filed(blobs: BlobStore, name: str) -> bytes:
    """What a reader of the file gets, by its number, as another process would."""
    with await blobs.open(CASEFILE, name) as file, open(file.fileno(), "rb", closefd=False) as other:
        return other.read()


SIZES = [0, 1, 256 * 1024 + 1, 900_000, MIB, 3 * MIB, 8 * MIB, len(LARGE)]


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_put_is_given_back_in_every_way(blobs: BlobStore, size: int):
    data = LARGE[:size]
    await blobs.put(CASEFILE, "whole", data)
    told = await blobs.put_stream(CASEFILE, "stream", cut(data), size)

    assert told == (hashlib.sha256(data).hexdigest(), size)
    for name in ("whole", "stream"):
        assert await blobs.get(CASEFILE, name) == data
        assert await streamed(blobs, name) == data
        assert await filed(blobs, name) == data


async def test_what_is_not_there_is_told_at_once(blobs: BlobStore):
    assert await blobs.get(CASEFILE, "name") is None
    with pytest.raises(FileNotFoundError):
        await blobs.stream(CASEFILE, "name")
    with pytest.raises(FileNotFoundError):
        await blobs.open(CASEFILE, "name")
    await blobs.remove(CASEFILE, "name")
    await blobs.erase(CASEFILE)


async def test_a_stream_may_be_left_before_its_end(blobs: BlobStore):
    await blobs.put(CASEFILE, "name", LARGE)

    unread = await blobs.stream(CASEFILE, "name")
    await unread.aclose()
    begun = await blobs.stream(CASEFILE, "name")
    first = await anext(begun)
    await begun.aclose()

    assert LARGE.startswith(first)
    assert 0 < len(first) < len(LARGE)


async def test_the_same_bytes_in_two_casefiles_are_two_blobs(blobs: BlobStore):
    for casefile_id in (CASEFILE, OTHER):
        for name in ("one", "two"):
            await blobs.put(casefile_id, name, LARGE[: 2 * MIB])
    for _ in range(2):
        await blobs.erase(CASEFILE)

    assert await blobs.get(CASEFILE, "one") is None
    assert await blobs.get(OTHER, "one") == await blobs.get(OTHER, "two") == LARGE[: 2 * MIB]


async def test_a_casefile_whose_name_another_begins_with_is_another(blobs: BlobStore):
    await blobs.put(CASEFILE, "name", b"bytes")
    await blobs.put(f"{CASEFILE}_x", "name", b"other")
    await blobs.erase(CASEFILE)

    assert await blobs.get(f"{CASEFILE}_x", "name") == b"other"


async def test_more_blobs_than_a_page_are_all_erased(blobs: BlobStore):
    names = [f"blob{number:03}" for number in range(120)]
    for start in range(0, len(names), 20):
        await asyncio.gather(*(blobs.put(CASEFILE, name, b"x") for name in names[start : start + 20]))
    await blobs.erase(CASEFILE)

    assert [await blobs.get(CASEFILE, name) for name in (names[0], names[60], names[-1])] == [None] * 3


async def test_putting_again_replaces(place: Place):
    for data in (LARGE[: 3 * MIB], LARGE[MIB : 5 * MIB], b"last"):
        await place.blobs.put(CASEFILE, "name", data)
    await place.blobs.sweep(LONG_AGO)

    assert await place.blobs.get(CASEFILE, "name") == b"last"
    assert await place.contents() == 1


async def test_two_who_put_the_same_name_leave_one_of_the_two(place: Place):
    datas = [LARGE[number * 2 * MIB : (number + 1) * 2 * MIB] for number in range(4)]
    await asyncio.gather(*(place.blobs.put(CASEFILE, "name", data) for data in datas))
    await place.blobs.sweep(LONG_AGO)

    assert await place.blobs.get(CASEFILE, "name") in datas
    assert await place.contents() == 1


async def test_a_removed_blob_is_gone_and_can_be_put_again(place: Place):
    await place.blobs.put(CASEFILE, "name", LARGE[: 3 * MIB])
    for _ in range(2):
        await place.blobs.remove(CASEFILE, "name")

    assert await place.blobs.get(CASEFILE, "name") is None
    assert await place.contents() == 0
    await place.blobs.put(CASEFILE, "name", b"again")
    assert await place.blobs.get(CASEFILE, "name") == b"again"


HOSTILE = [
    ("..", "name"),
    (".", "name"),
    ("", "name"),
    ("/etc", "passwd"),
    (CASEFILE, ".."),
    (CASEFILE, "../../etc/passwd"),
    (CASEFILE, "a/b"),
    (CASEFILE, "a\\b"),
    (CASEFILE, "%2e%2e"),
    (CASEFILE, ".hidden"),
    (CASEFILE, ""),
    (CASEFILE, "a\x00"),
    (CASEFILE, "a\n"),
    (CASEFILE, "é"),
    (CASEFILE, "x" * 129),
    ("%", "name"),
]


async def test_no_name_leads_elsewhere(place: Place):
    await place.blobs.put(CASEFILE, "name", b"bytes")
    for casefile_id, name in HOSTILE:
        for call in (
            lambda c=casefile_id, n=name: place.blobs.put(c, n, b""),
            lambda c=casefile_id, n=name: place.blobs.put_stream(c, n, chunks(b""), 10),
            lambda c=casefile_id, n=name: place.blobs.get(c, n),
            lambda c=casefile_id, n=name: place.blobs.stream(c, n),
            lambda c=casefile_id, n=name: place.blobs.open(c, n),
            lambda c=casefile_id, n=name: place.blobs.remove(c, n),
        ):
            with pytest.raises(ValueError, match="not the name of a blob"):
                await call()
    for casefile_id in ("..", "", "/", "%", "a/b"):
        with pytest.raises(ValueError, match="not the name of a blob"):
            await place.blobs.erase(casefile_id)

    assert await place.contents() == 1


# Streams that do not end


@pytest.mark.parametrize("size", [10, 11 * MIB], ids=["small", "large"])
@pytest.mark.parametrize("way", ["too large", "broken off", "cancelled"])
async def test_of_a_stream_that_does_not_end_nothing_is_ever_read(place: Place, size: int, way: str):
    await place.blobs.put(CASEFILE, "replaced", b"before")
    for name in ("new", "replaced"):
        if way == "too large":
            with pytest.raises(BodyTooLarge):
                await place.blobs.put_stream(CASEFILE, name, cut(LARGE[:size]), size - 1)
        elif way == "broken off":
            data = (LARGE[:size][at : at + MIB] for at in range(0, size, MIB))
            with pytest.raises(ConnectionResetError):
                await place.blobs.put_stream(
                    CASEFILE, name, chunks(*data, error=ConnectionResetError()), size
                )
        else:
            await _cancelled(place.blobs, name, LARGE[:size])

    assert await place.blobs.get(CASEFILE, "new") is None
    assert await place.blobs.get(CASEFILE, "replaced") == b"before"
    await place.blobs.sweep(LONG_AGO)
    assert await place.contents() == 1


async def _cancelled(blobs: BlobStore, name: str, data: bytes) -> None:
    """Put, and go away when all but the end has come in."""
    is_there = asyncio.Event()
    stream = waiting(len(data), is_there, asyncio.Event())
    putting = asyncio.ensure_future(blobs.put_stream(CASEFILE, name, stream, len(data)))
    await is_there.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting


async def waiting(size: int, is_there: asyncio.Event, go_on: asyncio.Event) -> AsyncIterator[bytes]:
    """A stream that has all come in, and ends only when it is told."""
    async for chunk in cut(LARGE[:size]):
        yield chunk
    is_there.set()
    await go_on.wait()


async def test_what_never_ended_is_swept_when_it_is_old(place: Place):
    await place.blobs.put(CASEFILE, "kept", b"kept")
    is_there, go_on = asyncio.Event(), asyncio.Event()
    putting = asyncio.ensure_future(
        place.blobs.put_stream(CASEFILE, "late", waiting(4 * MIB, is_there, go_on), 4 * MIB)
    )
    await is_there.wait()
    early, late = await place.blobs.sweep(LONG_AGO), await place.blobs.sweep(SOON)
    go_on.set()
    [ended] = await asyncio.gather(putting, return_exceptions=True)

    assert (early, late) == (0, place.leaves)
    # Where something was taken away, the put does not pretend that all of it is there.
    assert isinstance(ended, StoreUnavailable) == bool(place.leaves)
    assert await place.blobs.get(CASEFILE, "kept") == b"kept"
    await place.blobs.sweep(LONG_AGO)
    assert await place.contents() == (1 if place.leaves else 2)


async def test_a_casefile_that_is_erased_while_bytes_come_in_keeps_none(place: Place):
    is_there, go_on = asyncio.Event(), asyncio.Event()
    putting = asyncio.ensure_future(
        place.blobs.put_stream(CASEFILE, "name", waiting(10 * MIB, is_there, go_on), 10 * MIB)
    )
    await is_there.wait()
    await place.blobs.erase(CASEFILE)
    go_on.set()
    await asyncio.gather(putting, return_exceptions=True)
    # Whoever put it is refused when they name it, and a casefile is erased as often as it takes.
    await place.blobs.erase(CASEFILE)

    assert await place.blobs.get(CASEFILE, "name") is None
    assert await place.contents() == 0


# Many at once


async def test_many_at_once_stay_apart(blobs: BlobStore):
    async def one(number: int) -> bool:
        data = LARGE[number * 1000 : number * 1000 + 1_500_000]
        await blobs.put_stream(CASEFILE, f"blob{number}", cut(data), len(data))
        return await blobs.get(CASEFILE, f"blob{number}") == data

    assert all(await asyncio.gather(*(one(number) for number in range(12))))


async def test_nothing_is_left_in_the_spool(place: Place, tmp_path: Path):
    await place.blobs.put(CASEFILE, "name", LARGE[: 2 * MIB])
    with await place.blobs.open(CASEFILE, "name"):
        pass

    assert [path for path in (tmp_path / "data" / "spool").glob("**/*") if path.is_file()] == []
