"""Blobs in a directory: one folder a casefile, one file a blob, written aside, synced, then renamed."""

import os
import secrets
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from casekeeper.storage.blobs.streams import Metered, begun, must_be_names, off_loop

_PIECE = 256 * 1024
# A casefile's name has no dot.
_ASIDE = ".aside"


class DirectoryBlobs:
    """Implements `BlobStore` on a local directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def put(self, casefile_id: str, name: str, data: bytes) -> None:
        path = self._path(casefile_id, name)
        await off_loop(lambda: self._put(path, data))

    async def put_stream(
        self, casefile_id: str, name: str, chunks: AsyncIterator[bytes], limit: int
    ) -> tuple[str, int]:
        path, metered = self._path(casefile_id, name), Metered(chunks, limit)
        aside, file = await off_loop(self._open_aside)
        try:
            async for chunk in metered.pieces():
                await off_loop(lambda chunk=chunk: file.write(chunk))
            await off_loop(lambda: _finish(file, aside, path))
        finally:
            file.close()
            aside.unlink(missing_ok=True)
        return metered.passed

    async def get(self, casefile_id: str, name: str) -> bytes | None:
        path = self._path(casefile_id, name)
        return await off_loop(lambda: _content(path))

    async def stream(self, casefile_id: str, name: str) -> AsyncGenerator[bytes]:
        return await begun(_pieces(await self.open(casefile_id, name)))

    async def open(self, casefile_id: str, name: str) -> BinaryIO:
        path = self._path(casefile_id, name)
        file = await off_loop(lambda: _opened(path))
        if file is None:
            raise FileNotFoundError(name)
        return file

    async def remove(self, casefile_id: str, name: str) -> None:
        path = self._path(casefile_id, name)
        await off_loop(lambda: path.unlink(missing_ok=True))

    async def erase(self, casefile_id: str) -> None:
        folder = self._path(casefile_id, "x").parent
        await off_loop(lambda: shutil.rmtree(folder) if folder.exists() else None)

    async def sweep(self, before: datetime) -> int:
        return await off_loop(lambda: self._sweep(before.timestamp()))

    def _path(self, casefile_id: str, name: str) -> Path:
        must_be_names(casefile_id, name)
        return self._directory / casefile_id / name

    def _put(self, path: Path, data: bytes) -> None:
        aside, file = self._open_aside()
        try:
            file.write(data)
            _finish(file, aside, path)
        finally:
            file.close()
            aside.unlink(missing_ok=True)

    def _open_aside(self) -> tuple[Path, BinaryIO]:
        folder = self._directory / _ASIDE
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A backup leaves out what begins with a dot.
        aside = folder / f".{secrets.token_hex(8)}"
        return aside, aside.open("wb")

    def _sweep(self, before: float) -> int:
        folder = self._directory / _ASIDE
        left = (
            [path for path in folder.glob(".*") if path.stat().st_mtime < before] if folder.exists() else []
        )
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes]:
    with closing(file):
        yield b""
        while piece := await off_loop(lambda: file.read(_PIECE)):
            yield piece


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _content(path: Path) -> bytes | None:
    file = _opened(path)
    if file is None:
        return None
    with file:
        return file.read()


def _finish(file: BinaryIO, aside: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The rename is durable only when its folder is.
        os.fsync(folder)
    finally:
        os.close(folder)
