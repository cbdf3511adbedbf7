"""Blobs in the chosen store, in parts that each is a row or a document of its own.

A blob names a *content*: parts under an id that is drawn for each put. The name is written with the last part, in one
commit, so nobody ever reads half a blob. A content that no blob names is a *leftover*, and written down as one before
its first part: parts that are still being written, and those that were replaced or removed. So what a crash leaves
behind is found without looking for it.
"""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from casekeeper.errors import StoreUnavailable
from casekeeper.storage.blobs.streams import Metered, begun, must_be_names, repacked, spooled
from casekeeper.values import value


@value
class Content:
    """Parts that belong together: `size` bytes in all."""

    casefile_id: str
    content_id: str
    size: int = 0


class Parts(Protocol):
    """Where a store keeps parts. Every method is one commit, or one look."""

    part_bytes: int
    """How large every part is but the last."""

    async def begin(self, content: Content) -> None:
        """Write down a leftover."""
        ...

    async def add(self, content: Content, number: int, data: bytes) -> None:
        """Write one part."""
        ...

    async def name(self, content: Content, name: str, number: int, last: bytes) -> None:
        """Write the last part and the name; what had the name before is a leftover then.

        A content of more than one part must be a leftover, which it ceases to be.

        Raises:
            StoreUnavailable: It is none any more: the casefile was erased meanwhile.
        """
        ...

    async def find(self, casefile_id: str, name: str) -> Content | None:
        """What has this name."""
        ...

    async def part(self, content: Content, number: int) -> bytes | None:
        """One part, or None: it was erased meanwhile."""
        ...

    async def forget(self, casefile_id: str, name: str | None) -> None:
        """Make a leftover of what has this name; of all that the casefile has where none is given."""
        ...

    async def abandon(self, content: Content) -> None:
        """Let a leftover be cleared away at once."""
        ...

    async def leftovers(self, casefile_id: str | None, before: datetime | None) -> Sequence[Content]:
        """A page of leftovers: of one casefile, or those that began before an instant or are wanted by nobody."""
        ...

    async def drop(self, content: Content) -> None:
        """Clear a leftover away, its parts first. May take several commits."""
        ...


class DatabaseBlobs:
    """Implements `BlobStore`; `spool` is a directory for what has to be a file for a while."""

    def __init__(self, parts: Parts, spool: Path) -> None:
        self._parts = parts
        self._spool = spool

    async def put(self, casefile_id: str, name: str, data: bytes) -> None:
        must_be_names(casefile_id, name)
        await self._put(casefile_id, name, _one(data))

    async def put_stream(
        self, casefile_id: str, name: str, chunks: AsyncIterator[bytes], limit: int
    ) -> tuple[str, int]:
        must_be_names(casefile_id, name)
        metered = Metered(chunks, limit)
        await self._put(casefile_id, name, metered.pieces())
        return metered.passed

    async def get(self, casefile_id: str, name: str) -> bytes | None:
        try:
            return b"".join([piece async for piece in await self.stream(casefile_id, name)])
        except FileNotFoundError:
            return None

    async def stream(self, casefile_id: str, name: str) -> AsyncGenerator[bytes]:
        must_be_names(casefile_id, name)
        content = await self._parts.find(casefile_id, name)
        if content is None:
            raise FileNotFoundError(name)
        return await begun(self._pieces(content))

    async def open(self, casefile_id: str, name: str) -> BinaryIO:
        return await spooled(await self.stream(casefile_id, name), self._spool)

    async def remove(self, casefile_id: str, name: str) -> None:
        must_be_names(casefile_id, name)
        content = await self._parts.find(casefile_id, name)
        if content is not None:
            await self._parts.forget(casefile_id, name)
            await self._parts.drop(content)

    async def erase(self, casefile_id: str) -> None:
        must_be_names(casefile_id)
        await self._parts.forget(casefile_id, None)
        await self._drop_all(casefile_id, None)

    async def sweep(self, before: datetime) -> int:
        return await self._drop_all(None, before)

    async def _put(self, casefile_id: str, name: str, chunks: AsyncGenerator[bytes]) -> None:
        content_id, number, size, held = f"blob_{secrets.token_hex(16)}", 0, 0, b""
        try:
            async for part in repacked(chunks, self._parts.part_bytes):
                if held:
                    content = Content(casefile_id, content_id)
                    if not number:
                        await self._parts.begin(content)
                    await self._parts.add(content, number, held)
                    number += 1
                held = part
                size += len(part)
            await self._parts.name(Content(casefile_id, content_id, size), name, number, held)
        except BaseException:
            if number:
                # Should this fail as well, a later sweep finds it by its age.
                with suppress(StoreUnavailable):
                    await self._parts.abandon(Content(casefile_id, content_id))
            raise

    async def _pieces(self, content: Content) -> AsyncGenerator[bytes]:
        yield b""
        for number in range(-(-content.size // self._parts.part_bytes)):
            part = await self._parts.part(content, number)
            if part is None:
                raise StoreUnavailable("The bytes were removed or replaced while they were read.")
            yield part

    async def _drop_all(self, casefile_id: str | None, before: datetime | None) -> int:
        count = 0
        while found := await self._parts.leftovers(casefile_id, before):
            for content in found:
                await self._parts.drop(content)
            count += len(found)
        return count


async def _one(data: bytes) -> AsyncGenerator[bytes]:
    yield data
