"""What only a directory of blobs promises; what every place for blobs does is in tests/contract/test_blobs.py."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import pytest

from casekeeper.errors import BodyTooLarge, StoreUnavailable
from casekeeper.storage.blobs.directory import DirectoryBlobs

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


async def test_putting_again_replaces(blobs: DirectoryBlobs, tmp_path: Path):
    for data in (b"first", b"second"):
        await blobs.put(CASEFILE, "name", data)

    assert (await blobs.get(CASEFILE, "name"), files(tmp_path)) == (b"second", [f"{CASEFILE}/name"])


async def test_erasing_a_casefile_takes_its_blobs_and_no_others(blobs: DirectoryBlobs, tmp_path: Path):
    for casefile_id in (CASEFILE, OTHER):
        for name in ("one", "two"):
            await blobs.put(casefile_id, name, b"bytes")
    for _ in range(2):
        await blobs.erase(CASEFILE)

    assert files(tmp_path) == [f"{OTHER}/one", f"{OTHER}/two"]


async def test_a_stream_with_a_byte_too_many_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    with pytest.raises(BodyTooLarge):
        await blobs.put_stream(CASEFILE, "name", chunks(b"one", b"four"), 6)

    assert files(tmp_path) == []


async def test_a_stream_that_breaks_off_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    with pytest.raises(ConnectionResetError):
        await blobs.put_stream(CASEFILE, "name", chunks(b"one", error=ConnectionResetError()), 6)

    assert files(tmp_path) == []


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
        lambda: broken.get(CASEFILE, "name"),
        lambda: broken.open(CASEFILE, "name"),
    ):
        with pytest.raises(StoreUnavailable) as unavailable:
            await call()
        assert unavailable.value.retryable


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing here")
async def test_a_full_disk_is_an_outage_and_leaves_nothing(blobs: DirectoryBlobs, tmp_path: Path):
    class Full(DirectoryBlobs):
        """Everything that is written goes to a device that is full."""

        def _open_aside(self) -> tuple[Path, BinaryIO]:
            return tmp_path / "nothing", open("/dev/full", "wb")

    with pytest.raises(StoreUnavailable, match="No space left"):
        await Full(tmp_path / "blobs").put(CASEFILE, "name", b"bytes")

    assert await blobs.get(CASEFILE, "name") is None


async def test_blobs_are_for_their_owner_only(blobs: DirectoryBlobs, tmp_path: Path):
    await blobs.put(CASEFILE, "name", b"bytes")

    assert os.stat(tmp_path / "blobs" / CASEFILE).st_mode & 0o077 == 0
