"""How everybody asks in the rain: over connections that are kept, with the instants of question and answer."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and when it was asked for and arrived."""

    status: int
    body: Any
    sent: float
    answered: float


class Lines:
    """Connections to the workers, kept open."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._idle: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {
            port: [] for port in ports
        }

    async def post(
        self, worker: int, path: str, payload: Any, token: str = "", request_id: str = ""
    ) -> Reply:
        """Ask; again, where a connection that was kept turns out to be closed."""
        body = orjson.dumps({"payload": payload, **({"request_id": request_id} if request_id else {})})
        auth = f"authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{auth}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        port, data = self._ports[worker], head.encode() + body
        async with asyncio.timeout(_ANSWER_S):
            while self._idle[port]:
                with suppress(OSError, EOFError):
                    return await self._ask(port, *self._idle[port].pop(), data)
            return await self._ask(port, *await asyncio.open_connection("127.0.0.1", port), data)

    async def _ask(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> Reply:
        try:
            sent = monotonic()
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
            answered = monotonic()
        except BaseException:
            writer.transport.abort()
            raise
        self._idle[port].append((reader, writer))
        return Reply(int(head[9:12]), orjson.loads(body), sent, answered)

    def close(self) -> None:
        """Let go of all."""
        for _, writer in (one for idle in self._idle.values() for one in idle):
            writer.transport.abort()
