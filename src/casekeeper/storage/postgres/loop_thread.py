"""An event loop in a thread of its own, for work that must go on while the server's own loop is busy."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from casekeeper.storage.executors import in_thread

T = TypeVar("T")


class LoopThread:
    """Runs coroutines beside the loop that asks for them. Idle it costs nothing; it shares the interpreter's lock."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A process that ends without closing it must not wait for it.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, run in the thread; cancelled with its caller.

        Raises:
            RuntimeError: It was closed.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise
        return await asyncio.wrap_future(future)

    async def close(self) -> None:
        """Cancel what runs, then end the thread."""
        await self.call(_cancel_the_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        await in_thread(self._thread.join)
        self._loop.close()


async def _cancel_the_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
