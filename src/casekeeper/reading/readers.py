"""Reads uploads in processes that can be killed. One that ends, hangs or grows is replaced; nothing is lost by it."""

import asyncio
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson

from casekeeper.reading.worker import IDLE_S

# A commit per batch: large enough that syncing does not rule, small enough that others get their turn.
_BATCH: Final = 50
_BATCH_BYTES: Final = 2 * 1024 * 1024
_CHUNK: Final = 256 * 1024
_IDLE_MAX: Final = 2
_DEATHS_MAX: Final = 20


class ReaderDied(Exception):
    """The process has ended or hangs."""


@dataclass(slots=True)
class Arrived:
    """One item: its fields as `reading/contents.py` has them, and its bytes; None where they come as chunks."""

    number: int
    fields: dict[str, Any]
    raw: bytes | None
    reader: "_Reader"

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The bytes of a large one, once, before anything else is read."""
        while chunk := await asyncio.to_thread(self.reader.more):
            yield chunk


class Readers:
    """The processes of one server; idle ones are used again."""

    def __init__(
        self, spool: Path, *, document_bytes: int, inline_bytes: int, patience_s: float = 60
    ) -> None:
        """`document_bytes`: what one item may have; `inline_bytes`: above it the bytes of an item come as chunks."""
        self._spool = spool
        self._document_bytes = document_bytes
        self._inline_bytes = inline_bytes
        self._patience_s = patience_s
        self._idle: list[_Reader] = []
        self._all: set[_Reader] = set()

    async def read(self, file: IO[bytes], name: str) -> AsyncGenerator[list[Arrived]]:
        """The items of a file in batches; only the last of a batch may come in chunks. Close the generator.

        A file that ends every process that looks into it comes whole, as one item.
        """
        done, whole = 0, False
        deaths: Counter[int] = Counter()
        while True:
            reader = await asyncio.to_thread(self._hire)
            job = {"name": name, "skip": done, "as_is": list(deaths), "whole": whole}
            ahead: asyncio.Future[list[Arrived]] | None = None
            try:
                reader.begin(file, {**job, "document_bytes": self._document_bytes})
                batch = await asyncio.to_thread(reader.take)
                while batch:
                    is_large = batch[-1].raw is None
                    if not is_large:
                        ahead = asyncio.ensure_future(asyncio.to_thread(reader.take))
                    yield batch
                    done += len(batch)
                    if is_large:
                        await asyncio.to_thread(reader.drain)
                        ahead = asyncio.ensure_future(asyncio.to_thread(reader.take))
                    assert ahead is not None
                    batch = await ahead
                self._idle.append(reader)
                return
            except (ReaderDied, OSError):
                if whole:
                    raise
                at = reader.received
                deaths[at] += 1
                if deaths[at] > 1 or deaths.total() > _DEATHS_MAX:
                    done, whole = 0, True
            finally:
                if reader not in self._idle:
                    # Whoever still reads from it is let go by that.
                    reader.kill()
                    self._all.discard(reader)
                    if ahead is not None:
                        with suppress(ReaderDied, OSError, asyncio.CancelledError):
                            await ahead

    def close(self) -> None:
        """End all of them."""
        for reader in self._all:
            reader.kill()
        self._all.clear()
        self._idle.clear()

    def _hire(self) -> "_Reader":
        while self._idle:
            reader = self._idle.pop()
            if reader.is_fresh and len(self._idle) < _IDLE_MAX:
                return reader
            reader.kill()
            self._all.discard(reader)
        self._spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        reader = _Reader(self._spool, self._inline_bytes, self._patience_s)
        self._all.add(reader)
        return reader


class _Reader:
    """One process. Its methods block."""

    def __init__(self, spool: Path, inline_bytes: int, patience_s: float) -> None:
        self._way, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "casekeeper.reading.worker", str(spool)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                # Nothing of the server's environment: there are secrets in it.
                env={"LANG": "C.UTF-8"},
            )
        self._way.settimeout(patience_s)
        self._from = self._way.makefile("rb", buffering=_CHUNK)
        self._inline_bytes = inline_bytes
        self._used_at = time.monotonic()
        self._left = 0
        self._is_done = False
        self.received = 0

    @property
    def is_fresh(self) -> bool:
        """Whether it is surely still there."""
        return self._process.poll() is None and time.monotonic() - self._used_at < IDLE_S / 2

    def begin(self, file: IO[bytes], job: dict[str, Any]) -> None:
        """Give it a file."""
        self.received, self._is_done = job["skip"], False
        socket.send_fds(self._way, [orjson.dumps(job)], [file.fileno()])

    def take(self) -> list[Arrived]:
        """Some items more; none at the end.

        Raises:
            ReaderDied: There will be no more.
        """
        batch: list[Arrived] = []
        size = 0
        while not self._is_done and len(batch) < _BATCH and size < _BATCH_BYTES:
            fields = orjson.loads(self._exactly(int.from_bytes(self._exactly(4), "big")))
            if "end" in fields:
                self._used_at = time.monotonic()
                self._is_done = True
                break
            self._left = fields["size"]
            if self._left > self._inline_bytes:
                batch.append(Arrived(self.received, fields, None, self))
                return batch
            raw = self._exactly(self._left)
            self._left = 0
            batch.append(Arrived(self.received, fields, raw, self))
            self.received += 1
            size += len(raw) + len(fields["text"])
        return batch

    def more(self) -> bytes:
        """The next bytes of a large item; empty behind its end."""
        chunk = self._exactly(min(self._left, _CHUNK))
        self._left -= len(chunk)
        return chunk

    def drain(self) -> None:
        """Leave a large item behind."""
        while self.more():
            pass
        self.received += 1

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        with suppress(OSError):
            self._way.shutdown(socket.SHUT_RDWR)
        self._process.wait()
        self._from.close()
        self._way.close()

    def _exactly(self, size: int) -> bytes:
        try:
            data = self._from.read(size) if size else b""
        except (OSError, ValueError) as error:
            raise ReaderDied from error
        if len(data) < size:
            raise ReaderDied
        return data
