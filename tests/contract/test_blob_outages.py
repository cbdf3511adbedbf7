"""What happens when an object store is away, mute, refuses or is not there."""

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.documents.blobs import BlobStore
from casekeeper.errors import PackageUnusable, SettingsInvalid, StoreUnavailable
from casekeeper.journal.commits import Commit
from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.store import Storage
from tests.fakes.objects import CREDENTIALS, Objects
from tests.fakes.proxy import Proxy, proxy_to

pytestmark = pytest.mark.timeout(60)

CASEFILE = "cf_251023_5acf44"
LARGE = b"x" * (20 * 1024 * 1024)
SOON = timedelta(seconds=3)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lets a client in."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(objects: Objects) -> str:
    """A bucket that is there."""
    objects.make("outages")
    return "outages/here"


@pytest.fixture
async def proxy(objects: Objects) -> AsyncGenerator[Proxy]:
    """The way to the server."""
    async with proxy_to(objects.host) as one:
        yield one


@asynccontextmanager
async def opened(directory: Path, address: str) -> AsyncGenerator[Storage]:
    """A store whose blobs are there; a request gets three seconds."""
    limits = StoreLimits(blobs=address, connect=SOON, statement=SOON)
    async with open_storage("", directory, lambda _: None, limits=limits) as storage:
        yield storage


async def streamed(blobs: BlobStore, name: str) -> bytes:
    """All of a stream."""
    async with aclosing(await blobs.stream(CASEFILE, name)) as pieces:
        return b"".join([piece async for piece in pieces])


async def of(data: bytes, *, before_the_last: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """The bytes as they come in; the last of them when they may."""
    for at in range(0, len(data), 1_000_000):
        if at + 1_000_000 >= len(data) and before_the_last:
            await before_the_last.wait()
        yield data[at : at + 1_000_000]


@pytest.mark.parametrize("how", ["cut", "mute"])
@pytest.mark.parametrize("scheme", ["s3", "gs"])
async def test_every_call_to_a_dead_server_is_an_outage_and_ends_with_it(
    scheme: str, how: str, objects: Objects, bucket: str, proxy: Proxy, tmp_path: Path
):
    async with opened(tmp_path, objects.address(scheme, bucket, proxy.host)) as storage:
        blobs = storage.blobs
        await blobs.put(CASEFILE, "name", LARGE[:6_000_000])
        reading = await blobs.stream(CASEFILE, "name")
        first = await anext(reading)
        if how == "cut":
            await proxy.cut()
        else:
            proxy.is_mute = True
        answers = await asyncio.gather(
            blobs.put(CASEFILE, "new", b"bytes"),
            blobs.put(CASEFILE, "large", LARGE),
            blobs.put_stream(CASEFILE, "new", of(b"bytes"), 10),
            blobs.put_stream(CASEFILE, "large", of(LARGE), len(LARGE)),
            blobs.get(CASEFILE, "name"),
            blobs.stream(CASEFILE, "name"),
            blobs.open(CASEFILE, "name"),
            blobs.remove(CASEFILE, "other"),
            blobs.erase(f"{CASEFILE}_other"),
            anext(reading),
            return_exceptions=True,
        )
        for answer in answers:
            assert isinstance(answer, StoreUnavailable)
            assert answer.retryable
            # Callers are told neither where it is nor what it said.
            assert proxy.host not in answer.detail
        if how == "cut":
            await proxy.mend()
        proxy.is_mute = False
        await blobs.put(CASEFILE, "new", LARGE)

        assert first == LARGE[: len(first)]
        assert await streamed(blobs, "new") == LARGE
        assert await blobs.get(CASEFILE, "name") == LARGE[:6_000_000]


async def test_a_server_that_goes_away_in_the_middle_of_an_upload_leaves_nothing_to_read(
    objects: Objects, bucket: str, proxy: Proxy, tmp_path: Path
):
    async with opened(tmp_path, objects.address("s3", bucket, proxy.host)) as storage:
        go_on = asyncio.Event()
        stream = of(LARGE, before_the_last=go_on)
        putting = asyncio.ensure_future(storage.blobs.put_stream(CASEFILE, "middle", stream, len(LARGE)))
        for _ in range(500):
            if "here/cf_251023_5acf44/middle" in objects.unfinished("outages"):
                break
            await asyncio.sleep(0.01)
        await proxy.cut()
        go_on.set()
        with pytest.raises(StoreUnavailable):
            await putting
        await proxy.mend()

        assert await storage.blobs.get(CASEFILE, "middle") is None


async def test_whoever_needs_no_blobs_does_not_wait_for_those_who_do(
    objects: Objects, bucket: str, proxy: Proxy, tmp_path: Path
):
    async with opened(tmp_path, objects.address("s3", bucket, proxy.host)) as storage:
        proxy.is_mute = True
        waiting = [asyncio.ensure_future(storage.blobs.get(CASEFILE, f"name{n}")) for n in range(100)]
        await asyncio.sleep(0)
        for _ in range(20):
            await storage.commits.commit(Commit())
            await storage.accounts.head()

        assert not any(one.done() for one in waiting)
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(answer) for answer in answers} == {StoreUnavailable}


# At the start


async def test_a_bucket_that_is_not_there_is_told(objects: Objects, tmp_path: Path):
    for scheme in ("s3", "gs"):
        with pytest.raises(StoreUnavailable, match=f"CASEKEEPER_BLOBS: there is no bucket {scheme}://absent"):
            async with opened(tmp_path, objects.address(scheme, "absent/there")):
                pass


async def test_a_server_that_is_not_there_or_does_not_answer_is_told(
    objects: Objects, bucket: str, proxy: Proxy, tmp_path: Path
):
    proxy.is_mute = True
    with pytest.raises(
        StoreUnavailable, match=r"CASEKEEPER_BLOBS: s3://outages (cannot be used|does not answer)"
    ):
        async with opened(tmp_path, objects.address("s3", bucket, proxy.host)):
            pass
    with pytest.raises(StoreUnavailable, match="CASEKEEPER_BLOBS: s3://outages cannot be used: ") as told:
        async with opened(tmp_path, objects.address("s3", bucket, "127.0.0.1:1")):
            pass
    assert "\n" not in told.value.detail


async def test_credentials_that_are_refused_are_told(tmp_path: Path):
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        writer.write(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(
        StoreUnavailable, match=r"CASEKEEPER_BLOBS: s3://mine cannot be used: .*403 Forbidden"
    ):
        async with opened(tmp_path, f"s3://mine?endpoint_url=http://127.0.0.1:{port}"):
            pass
    server.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://host/path", "none of: a directory, database, s3://bucket/prefix, gs://bucket/prefix"),
        ("s3:bucket", "none of"),
        ("s3://", "must be s3://bucket or s3://bucket/prefix"),
        ("s3://key:secret@bucket/prefix", "credentials come from the environment"),
        ("s3://bucket?endpoint=x", "takes no option endpoint"),
        ("gs://bucket?region=x", "takes no option region"),
        ("/dev/null/blobs", "/dev/null/blobs cannot be used"),
    ],
)
async def test_an_address_that_names_no_place_is_told(address: str, says: str, tmp_path: Path):
    with pytest.raises(SettingsInvalid, match=f"^CASEKEEPER_BLOBS: .*{says}"):
        async with opened(tmp_path, address):
            pass


async def test_a_missing_library_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(PackageUnusable, match=r"obstore: pip install 'casekeeper\[blobs\]'"):
        async with opened(tmp_path, "s3://bucket"):
            pass
