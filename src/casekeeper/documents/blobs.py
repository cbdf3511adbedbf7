"""Raw bytes, kept by name inside their casefile, so that erasing a casefile erases its blobs and no other's."""

from collections.abc import AsyncIterator
from typing import BinaryIO, Protocol


class BlobStore(Protocol):
    """Where large bytes are kept. A name is `[A-Za-z0-9_]+`; what is put is durable when the call returns."""

    async def put(self, casefile_id: str, name: str, data: bytes) -> None:
        """Keep these bytes. Putting the same name again replaces them atomically."""
        ...

    async def put_stream(
        self, casefile_id: str, name: str, chunks: AsyncIterator[bytes], limit: int
    ) -> tuple[str, int]:
        """Keep a stream; returns its SHA-256 (hex) and size. A stream that breaks off leaves nothing behind.

        Raises:
            BodyTooLarge: More than `limit` bytes came.
        """
        ...

    async def get(self, casefile_id: str, name: str) -> bytes | None:
        """The bytes, or None."""
        ...

    def open(self, casefile_id: str, name: str) -> BinaryIO:
        """The bytes as a file of the operating system, for reading off the event loop; the caller closes it.

        Raises:
            FileNotFoundError: There is no such blob.
        """
        ...

    async def remove(self, casefile_id: str, name: str) -> None:
        """Forget the bytes; nothing happens if there are none."""
        ...

    async def erase(self, casefile_id: str) -> None:
        """Forget all blobs of a casefile."""
        ...
