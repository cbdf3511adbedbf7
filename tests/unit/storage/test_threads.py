"""The store has threads of its own: nothing that it does waits for those of the event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from casekeeper.storage.blobs.directory import DirectoryBlobs
from casekeeper.storage.sqlite.opening import open_embedded


@pytest.fixture
async def busy_loop() -> AsyncGenerator[None]:
    """A loop whose own threads are all taken."""
    let_go, loop = threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    waiting = loop.run_in_executor(None, let_go.wait)
    yield
    let_go.set()
    await waiting


@pytest.mark.usefixtures("busy_loop")
async def test_a_store_is_opened_read_and_closed_while_the_loops_threads_are_busy(tmp_path: Path):
    async with asyncio.timeout(4):
        async with open_embedded(tmp_path, lambda _: None) as storage:
            assert await storage.casefiles.casefile_ids("", 10) == []


@pytest.mark.usefixtures("busy_loop")
async def test_blobs_are_written_and_read_while_the_loops_threads_are_busy(tmp_path: Path):
    blobs = DirectoryBlobs(tmp_path)

    async with asyncio.timeout(4):
        await blobs.put("cf_260101_000000", "doc_1", b"bytes")
        pieces = [piece async for piece in await blobs.stream("cf_260101_000000", "doc_1")]

    assert b"".join(pieces) == b"bytes"
