"""Blobs in an object store, S3 or Google Cloud Storage: `{prefix}/{casefile_id}/{name}`.

An object appears when its last byte has arrived, or never. What is larger than a part goes up in parts while it comes
in; an upload that breaks off is aborted, and what a crash leaves behind is invisible until the bucket's own rule for
incomplete uploads takes it away.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import BaseError

from casekeeper.errors import StoreUnavailable
from casekeeper.storage.blobs.buckets import Bucket, listed, told
from casekeeper.storage.blobs.streams import Metered, begun, must_be_names, repacked, spooled

# S3 wants 5 MiB at least, and has at most 10,000 of them.
_PART = 8 * 1024 * 1024
_AT_ONCE = 2
_PIECE = 4 * 1024 * 1024
# So long an upload that broke off may take to be aborted.
_ABORT_S = 5.0
# Each round lists what is left; more than one is needed only where somebody puts meanwhile.
_ROUNDS = 5
_log = logging.getLogger("casekeeper.blobs")


class ObjectBlobs:
    """Implements `BlobStore`; `spool` is a directory for what has to be a file for a while."""

    def __init__(self, bucket: Bucket, spool: Path) -> None:
        self._bucket = bucket
        self._store = bucket.store
        self._spool = spool

    async def put(self, casefile_id: str, name: str, data: bytes) -> None:
        key = _key(casefile_id, name)
        if len(data) > _PART:
            await self._upload(key, repacked(_one(data), _PART))
            return
        with self._guarded():
            async with asyncio.timeout(self._bucket.deadline_s):
                await obstore.put_async(self._store, key, data, use_multipart=False)

    async def put_stream(
        self, casefile_id: str, name: str, chunks: AsyncIterator[bytes], limit: int
    ) -> tuple[str, int]:
        key, metered = _key(casefile_id, name), Metered(chunks, limit)
        parts = repacked(metered.pieces(), _PART)
        first = await anext(parts, b"")
        if len(first) < _PART:
            # It has ended, or there was nothing at all.
            await self.put(casefile_id, name, first)
        else:
            await self._upload(key, parts, first)
        return metered.passed

    async def get(self, casefile_id: str, name: str) -> bytes | None:
        try:
            with self._guarded():
                async with asyncio.timeout(self._bucket.deadline_s):
                    found = await obstore.get_async(self._store, _key(casefile_id, name))
                    return bytes(await found.bytes_async())
        except FileNotFoundError:
            return None

    async def stream(self, casefile_id: str, name: str) -> AsyncGenerator[bytes]:
        return await begun(self._pieces(_key(casefile_id, name)))

    async def open(self, casefile_id: str, name: str) -> BinaryIO:
        return await spooled(await self.stream(casefile_id, name), self._spool)

    async def remove(self, casefile_id: str, name: str) -> None:
        key = _key(casefile_id, name)
        # S3 finds nothing wrong with deleting what is not there, Google does.
        with suppress(FileNotFoundError), self._guarded():
            async with asyncio.timeout(self._bucket.deadline_s):
                await obstore.delete_async(self._store, key)

    async def erase(self, casefile_id: str) -> None:
        must_be_names(casefile_id)
        for _ in range(_ROUNDS):
            if not await self._erase(f"{casefile_id}/"):
                return
        raise StoreUnavailable(f"Somebody keeps putting blobs into {casefile_id} while it is erased.")

    async def sweep(self, before: datetime) -> int:
        # The bucket's own rule takes away what was not completed.
        return 0

    async def _erase(self, prefix: str) -> int:
        count = 0
        pages = aiter(listed(self._store, prefix))
        while True:
            with suppress(FileNotFoundError), self._guarded():
                async with asyncio.timeout(self._bucket.deadline_s):
                    page = await anext(pages, None)
                if not page:
                    return count
                count += len(page)
                async with asyncio.timeout(self._bucket.deadline_s):
                    await obstore.delete_async(self._store, [one["path"] for one in page])

    async def _pieces(self, key: str) -> AsyncGenerator[bytes]:
        with self._guarded():
            async with asyncio.timeout(self._bucket.deadline_s):
                size = (await obstore.head_async(self._store, key))["size"]
        yield b""
        for start in range(0, size, _PIECE):
            try:
                with self._guarded():
                    async with asyncio.timeout(self._bucket.deadline_s):
                        end = min(start + _PIECE, size)
                        piece = bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
            except FileNotFoundError as error:
                raise StoreUnavailable("The bytes were removed while they were read.") from error
            yield piece

    async def _upload(self, key: str, parts: AsyncGenerator[bytes], *first: bytes) -> None:
        pipe = _Pipe()
        options: dict[str, Any] = {"use_multipart": True, "chunk_size": _PART, "max_concurrency": _AT_ONCE}
        upload = asyncio.ensure_future(obstore.put_async(self._store, key, pipe, **options))
        try:
            for part in first:
                await self._give(pipe, part, upload)
            async with aclosing(parts):
                async for part in parts:
                    await self._give(pipe, part, upload)
            await self._give(pipe, None, upload)
            with self._guarded():
                await asyncio.shield(upload)
        except BaseException:
            # Cancelling it would leave its parts in the bucket; told that the stream broke off, it aborts.
            pipe.break_off()
            await asyncio.wait((upload,), timeout=_ABORT_S)
            if not upload.cancel():
                upload.exception()
            raise

    async def _give(self, pipe: "_Pipe", part: bytes | None, upload: "asyncio.Future[Any]") -> None:
        with self._guarded():
            await pipe.give(part, upload)

    @contextmanager
    def _guarded(self) -> Generator[None]:
        """Tell what failed in our words. A missing object stays a FileNotFoundError, a missing bucket is an outage."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StoreUnavailable("The bucket for blobs is missing.") from error
            raise
        except (BaseError, OSError) as error:
            # Also TimeoutError. What the service says may name keys and hosts: it is for the log, not for callers.
            _log.warning("%s: %s", self._bucket.name, told(error) or type(error).__name__)
            raise StoreUnavailable("The object store for blobs cannot be used.") from error


class _BrokenOff(Exception):
    """The stream will not end."""


class _Pipe:
    """Parts on their way from whoever reads the stream to the upload, one at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(1)

    async def give(self, part: bytes | None, upload: "asyncio.Future[Any]") -> None:
        """Hand a part on, None behind the last; raises what ended the upload before."""
        giving = asyncio.ensure_future(self._queue.put(part))
        try:
            await asyncio.wait((giving, upload), return_when=asyncio.FIRST_COMPLETED)
        finally:
            giving.cancel()
        if upload.done():
            upload.result()

    def break_off(self) -> None:
        """Hand on that there will be no more."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(_BrokenOff())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = await self._queue.get()
        if part is None:
            raise StopAsyncIteration
        if isinstance(part, Exception):
            raise part
        return part


def _key(casefile_id: str, name: str) -> str:
    must_be_names(casefile_id, name)
    return f"{casefile_id}/{name}"


async def _one(data: bytes) -> AsyncGenerator[bytes]:
    yield data
