"""Blobs in a directory: one folder a casefile, one file a blob, written aside, synced, then renamed."""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from casekeeper.errors import BodyTooLarge, StoreUnavailable

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")


class DirectoryBlobs:
    """Implements `BlobStore` on a local directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, casefile_id: str, name: str, data: bytes) -> None:
        await _off_loop(lambda: self._put(self._path(casefile_id, name), data))

    async def put_stream(
        self, casefile_id: str, name: str, chunks: AsyncIterator[bytes], limit: int
    ) -> tuple[str, int]:
        path = self._path(casefile_id, name)
        digest, size = hashlib.sha256(), 0
        aside, file = await _off_loop(lambda: _open_aside(path))
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise BodyTooLarge(f"An upload has at most {limit} bytes.")
                digest.update(chunk)
                await _off_loop(lambda chunk=chunk: file.write(chunk))
            await _off_loop(lambda: _finish(file, aside, path))
        finally:
            file.close()
            aside.unlink(missing_ok=True)
        return digest.hexdigest(), size

    async def get(self, casefile_id: str, name: str) -> bytes | None:
        path = self._path(casefile_id, name)
        return await _off_loop(lambda: path.read_bytes() if path.exists() else None)

    def open(self, casefile_id: str, name: str) -> BinaryIO:
        return self._path(casefile_id, name).open("rb")

    async def remove(self, casefile_id: str, name: str) -> None:
        await _off_loop(lambda: self._path(casefile_id, name).unlink(missing_ok=True))

    async def erase(self, casefile_id: str) -> None:
        folder = self._path(casefile_id, "x").parent
        await _off_loop(lambda: shutil.rmtree(folder) if folder.exists() else None)

    def _path(self, casefile_id: str, name: str) -> Path:
        # Names are ours already; a path never depends on that being so.
        if not _NAME.fullmatch(casefile_id) or not _NAME.fullmatch(name):
            raise ValueError("not the name of a blob")
        return self._directory / casefile_id / name

    def _put(self, path: Path, data: bytes) -> None:
        aside, file = _open_aside(path)
        try:
            file.write(data)
            _finish(file, aside, path)
        finally:
            file.close()
            aside.unlink(missing_ok=True)


async def _off_loop(work: Callable[[], T]) -> T:
    try:
        return await asyncio.to_thread(work)
    except OSError as error:
        raise StoreUnavailable(f"The blob store cannot be used: {error.strerror}.") from error


def _open_aside(path: Path) -> tuple[Path, BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    return aside, aside.open("wb")


def _finish(file: BinaryIO, aside: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The rename is durable only when its folder is.
        os.fsync(folder)
    finally:
        os.close(folder)
