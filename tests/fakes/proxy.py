"""A way to a server that can be cut, for tests of what happens when it is."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress


class Proxy:
    """Passes bytes on to a server until it is cut; connections that were open are broken then."""

    def __init__(self, host: str) -> None:
        self._server, _, self._port = host.rpartition(":")
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self.host = ""
        self.is_mute = False
        """Whether the server's answers are swallowed."""
        self.delay_s = 0.0
        """How much later the server's answers arrive."""
        self.overhears: Callable[[object, bytes], None] | None = None
        """Is told what the server answers, connection by connection."""

    async def mend(self) -> None:
        """Let everybody through, at the same address as ever."""
        port = int(self.host.rpartition(":")[2] or 0)
        self._listening = await asyncio.start_server(self._pass_on, "127.0.0.1", port)
        self.host = f"127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def cut(self) -> None:
        """Let nobody through, and break what is open."""
        assert self._listening is not None
        self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection(self._server, int(self._port))
            try:
                ways = [
                    asyncio.create_task(self._copy(reader, back, can_be_mute=False)),
                    asyncio.create_task(self._copy(there, writer, can_be_mute=True)),
                ]
                try:
                    # Whoever hangs up ends both.
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.wait(ways)
            finally:
                back.transport.abort()
        writer.transport.abort()

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, can_be_mute: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(65_536):
                if self.is_mute and can_be_mute:
                    continue
                if can_be_mute and self.overhears is not None:
                    self.overhears(source, data)
                if can_be_mute and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                target.write(data)
                await target.drain()


@asynccontextmanager
async def proxy_to(host: str) -> AsyncGenerator[Proxy]:
    """A proxy to a server at `host:port`."""
    proxy = Proxy(host)
    await proxy.mend()
    try:
        yield proxy
    finally:
        await proxy.cut()
