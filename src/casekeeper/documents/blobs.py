"""Raw bytes, kept by name inside their casefile, so that erasing a casefile erases its blobs and no other's."""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import BinaryIO, Protocol


class BlobStore(Protocol):
    """Where large bytes are kept. A name is `[A-Za-z0-9_]{1,128}`; what is put is durable when the call returns.

    Every method raises StoreUnavailable, within its deadline, where the bytes cannot be reached.
    """

    async def put(self, casefile_id: str, name: str, data: bytes) -> None:
        """Keep these bytes. Putting the same name again replaces them atomically."""
        ...

    async def put_stream(
        self, casefile_id: str, name: str, chunks: AsyncIterator[bytes], limit: int
    ) -> tuple[str, int]:
        """Keep a stream; returns its SHA-256 (hex) and size. Of a stream that breaks off nobody ever reads a byte.

        Raises:
            BodyTooLarge: More than `limit` bytes came.
        """
        ...

    async def get(self, casefile_id: str, name: str) -> bytes | None:
        """The bytes, or None."""
        ...

    async def stream(self, casefile_id: str, name: str) -> AsyncGenerator[bytes]:
        """The bytes in pieces of at most some MiB; the caller closes the generator.

        Raises:
            FileNotFoundError: There is no such blob; raised before the first piece.
        """
        ...

    async def open(self, casefile_id: str, name: str) -> BinaryIO:
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

    async def sweep(self, before: datetime) -> int:
        """Clear away what puts left behind that began before an instant and never ended; returns how many."""
        ...
