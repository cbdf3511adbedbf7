"""Thread pools for the stores' blocking calls.

The event loop's default ones hash passwords, look up hosts and wait for processes that read uploads: what a store does would
queue behind all of that.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Files of blobs are read and written piece by piece, so a few threads serve many streams.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="casekeeper-store")


async def in_thread(work: Callable[[], T]) -> T:
    """The result of the work, done in one of the stores' threads."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
