import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from casekeeper.errors import BodyTooLarge, StoreUnavailable
from casekeeper.storage.blobs import DirectoryBlobs

CASEFILE, OTHER = "cf_251023_5acf44", "cf_251023_000000"


@pytest.fixture
def blobs(tmp_path: Path) -> DirectoryBlobs:
    return DirectoryBlobs(tmp_path / "blobs")


def files(tmp_path: Path) -> list[str]:
    return sorted(str(p.relative_to(tmp_path / "blobs")) for p in tmp_path.rglob("*") if p.is_file())


async def chunks(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error:
        raise error


async def test_what_was_put_is_given_back(blobs: DirectoryBlobs):
    await blobs.put(CASEFILE, "name", b"bytes")

    assert await blobs.get(CASEFILE, "name") == b"bytes"


async def test_what_is_not_there_is_none(blobs: DirectoryBlobs):
    assert await blobs.get(CASEFILE, "name") is None


async def test_a_name_belongs_to_its_casefile(blobs: DirectoryBlobs):
    await blobs.put(CASEFILE, "name", b"bytes")

    assert await blobs.get(OTHER, "name") is None


async def test_putting_again_replaces(blobs: DirectoryBlobs, tmp_path: Path):
    for data in (b"first", b"second"):
        await blobs.put(CASEFILE, "name", data)

    assert (await blobs.get(CASEFILE, "name"), files(tmp_path)) == (b"second", [f"{CASEFILE}/name"])


async def test_a_blob_can_be_read_as_a_file(blobs: DirectoryBlobs):
    await blobs.put(CASEFILE, "name", b"bytes")

    with blobs.open(CASEFILE, "name") as file:
        assert file.read() == b"bytes"


def test_a_blob_that_is_not_there_cannot_be_opened(blobs: DirectoryBlobs):
    with pytest.raises(FileNotFoundError):
        blobs.open(CASEFILE, "name")


async def test_a_removed_blob_is_gone_and_removing_again_is_no_harm(blobs: DirectoryBlobs):
    await blobs.put(CASEFILE, "name", b"bytes")
    for _ in range(2):
        await blobs.remove(CASEFILE, "name")

    assert await blobs.get(CASEFILE, "name") is None


async def test_erasing_a_casefile_takes_its_blobs_and_no_others(blobs: DirectoryBlobs, tmp_path: Path):
    for casefile_id in (CASEFILE, OTHER):
        for name in ("one", "two"):
            await blobs.put(casefile_id, name, b"bytes")
    for _ in range(2):
        await blobs.erase(CASEFILE)

    assert files(tmp_path) == [f"{OTHER}/one", f"{OTHER}/two"]


@pytest.mark.parametrize(
    ("casefile_id", "name"),
    [
        ("..", "name"),
        (".", "name"),
        ("", "name"),
        ("/etc", "passwd"),
        (CASEFILE, ".."),
        (CASEFILE, "../../etc/passwd"),
        (CASEFILE, "a/b"),
        (CASEFILE, "a\\b"),
        (CASEFILE, ".hidden"),
        (CASEFILE, ""),
        (CASEFILE, "a\x00"),
        (CASEFILE, "a\n"),
        (CASEFILE, "é"),
        (CASEFILE, "x" * 129),
    ],
)
async def test_no_name_leads_elsewhere(blobs: DirectoryBlobs, tmp_path: Path, casefile_id: str, name: str):
    for call in (
        lambda: blobs.put(casefile_id, name, b""),
        lambda: blobs.get(casefile_id, name),
        lambda: blobs.remove(casefile_id, name),
        lambda: blobs.put_stream(casefile_id, name, chunks(b""), 10),
    ):
        with pytest.raises(ValueError, match="not the name of a blob"):
            await call()
    with pytest.raises(ValueError, match="not the name of a blob"):
        blobs.open(casefile_id, name)

    assert files(tmp_path) == []


# Streams


async def test_a_stream_is_kept_with_digest_and_size(blobs: DirectoryBlobs):
    digest, size = await blobs.put_stream(CASEFILE, "name", chunks(b"one", b"", b"two"), 6)

    assert (digest, size) == (hashlib.sha256(b"onetwo").hexdigest(), 6)
    assert await blobs.get(CASEFILE, "name") == b"onetwo"


async def test_an_empty_stream_is_an_empty_blob(blobs: DirectoryBlobs):
    assert (await blobs.put_stream(CASEFILE, "name", chunks(), 6))[1] == 0


async def test_a_stream_with_a_byte_too_many_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    with pytest.raises(BodyTooLarge):
        await blobs.put_stream(CASEFILE, "name", chunks(b"one", b"four"), 6)

    assert files(tmp_path) == []


async def test_a_stream_that_breaks_off_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    with pytest.raises(ConnectionResetError):
        await blobs.put_stream(CASEFILE, "name", chunks(b"one", error=ConnectionResetError()), 6)

    assert files(tmp_path) == []


async def test_a_stream_that_breaks_off_leaves_what_was_there(blobs: DirectoryBlobs):
    await blobs.put(CASEFILE, "name", b"before")

    with pytest.raises(ConnectionResetError):
        await blobs.put_stream(CASEFILE, "name", chunks(b"one", error=ConnectionResetError()), 6)

    assert await blobs.get(CASEFILE, "name") == b"before"


# Outages


@pytest.fixture
def broken(blobs: DirectoryBlobs, tmp_path: Path) -> DirectoryBlobs:
    """A store in which a casefile's folder is a file: nothing can be written or read there."""
    (tmp_path / "blobs" / CASEFILE).write_text("in the way")
    return blobs


async def test_a_directory_that_cannot_be_used_is_an_outage(broken: DirectoryBlobs):
    for call in (
        lambda: broken.put(CASEFILE, "name", b"bytes"),
        lambda: broken.put_stream(CASEFILE, "name", chunks(b"one"), 6),
    ):
        with pytest.raises(StoreUnavailable) as unavailable:
            await call()
        assert unavailable.value.retryable


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing here")
async def test_a_full_disk_is_an_outage_and_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    class Full(DirectoryBlobs):
        """Everything that is written goes to a device that is full."""

        def _path(self, casefile_id: str, name: str) -> Path:
            return FullPath(super()._path(casefile_id, name))

    class FullPath(type(Path())):
        def open(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
            return open("/dev/full", "wb")

    with pytest.raises(StoreUnavailable, match="No space left"):
        await Full(tmp_path / "blobs").put(CASEFILE, "name", b"bytes")

    assert await blobs.get(CASEFILE, "name") is None


async def test_blobs_are_for_their_owner_only(blobs: DirectoryBlobs, tmp_path: Path):
    await blobs.put(CASEFILE, "name", b"bytes")

    assert os.stat(tmp_path / "blobs" / CASEFILE).st_mode & 0o077 == 0
