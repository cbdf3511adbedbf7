"""Names and streams of blobs, shared by all blob stores."""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, TypeVar, cast

from casekeeper.errors import BodyTooLarge, StoreUnavailable
from casekeeper.storage.executors import in_thread

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9_]{1,128}")


def must_be_names(*names: str) -> None:
    """Names are ours already; no path, key or row ever depends on that being so."""
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("not the name of a blob")


class Metered:
    """A stream on its way, and afterwards what has passed."""

    def __init__(self, chunks: AsyncIterator[bytes], limit: int) -> None:
        self._chunks = chunks
        self._limit = limit
        self._digest = hashlib.sha256()
        self._size = 0

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The stream, once.

        Raises:
            BodyTooLarge: More than `limit` bytes came.
        """
        async for chunk in self._chunks:
            self._size += len(chunk)
            if self._size > self._limit:
                raise BodyTooLarge(f"An upload has at most {self._limit} bytes.")
            self._digest.update(chunk)
            yield chunk

    @property
    def passed(self) -> tuple[str, int]:
        """SHA-256 (hex) and size."""
        return self._digest.hexdigest(), self._size


async def repacked(chunks: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes]:
    """The stream in pieces of this size; only the last is shorter."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        while len(waiting) >= size:
            yield bytes(waiting[:size])
            del waiting[:size]
    if waiting:
        yield bytes(waiting)


async def begun(pieces: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """A generator past its first piece, an empty one: what it opens is open, and closing it closes that."""
    await anext(pieces)
    return pieces


async def spooled(pieces: AsyncGenerator[bytes], folder: Path) -> BinaryIO:
    """A stream as a file that has no name and is gone when it is closed."""

    def make() -> BinaryIO:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cast(BinaryIO, TemporaryFile(dir=folder))

    async with aclosing(pieces):
        file = await off_loop(make)
        try:
            async for piece in pieces:
                await off_loop(lambda piece=piece: file.write(piece))
            # Another process will read it: nothing may wait in a buffer.
            await off_loop(lambda: file.seek(0))
        except BaseException:
            file.close()
            raise
    return file


async def off_loop(work: Callable[[], T]) -> T:
    """Do in a thread what waits for a disk."""
    try:
        return await in_thread(work)
    except OSError as error:
        raise StoreUnavailable(f"The blob store cannot be used: {error.strerror}.") from error
