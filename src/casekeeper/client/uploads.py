"""Bringing files in: the streamed upload, and the import that files it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from casekeeper.client import streams
from casekeeper.client.connection import Connection, new_request_id
from casekeeper.client.errors import ApiError, ServerFault
from casekeeper.client.payloads import result_of
from casekeeper.values import value
from casekeeper.verbs import VERBS

if TYPE_CHECKING:
    from casekeeper.client.results import Result
    from casekeeper.documents.filing import Uploaded

_UPLOAD = VERBS["documents/upload"]
_CHUNK = 256 * 1024
_SEPARATOR = b"\nFrom "
_NAME_MAX = 255


@value
class Progress:
    """How far an import is. `total` of documents is an estimate; None where there is none."""

    stage: Literal["upload", "import"]
    done: int
    total: int | None

    @property
    def unit(self) -> str:
        """What is counted."""
        return "bytes" if self.stage == "upload" else "documents"


OnProgress = Callable[[Progress], None]
Uploadable = Path | str | bytes | AsyncIterable[bytes]
"""A file (a string is its path), its bytes, or chunks of them."""


class _Source:
    """Bytes to upload. A file or bytes can be sent again after a lost connection, a stream of chunks cannot."""

    def __init__(self, data: Uploadable, on_progress: OnProgress | None) -> None:
        data = Path(data) if isinstance(data, str) else data
        self._data = data
        self._on_progress = on_progress
        self.separators = 0
        match data:
            case Path():
                self.size: int | None = data.stat().st_size
            case bytes():
                self.size = len(data)
            case _:
                self.size = None

    @property
    def is_repeatable(self) -> bool:
        return self.size is not None

    async def chunks(self) -> AsyncGenerator[bytes]:
        self.separators, sent, tail = 0, 0, b"\n"
        async for chunk in self._raw():
            # Separators may lie across chunks, never within the tail that is kept: it is one byte too short.
            self.separators += (tail + chunk).count(_SEPARATOR)
            tail = chunk[-(len(_SEPARATOR) - 1) :]
            sent += len(chunk)
            yield chunk
            if self._on_progress:
                self._on_progress(Progress("upload", sent, self.size))

    async def _raw(self) -> AsyncGenerator[bytes]:
        match self._data:
            case Path() as path:
                file = await asyncio.to_thread(path.open, "rb")
                with file:
                    while chunk := await asyncio.to_thread(file.read, _CHUNK):
                        yield chunk
            case bytes() as data:
                for start in range(0, len(data), _CHUNK):
                    yield data[start : start + _CHUNK]
            case chunks:
                async for chunk in chunks:
                    yield chunk


async def upload(
    connection: Connection,
    casefile_id: str,
    data: Uploadable,
    filename: str | None,
    on_progress: OnProgress | None,
    request_id: str | None,
) -> "Uploaded":
    """Bring bytes in; they wait 24 hours to be filed."""
    return await _upload(
        connection, casefile_id, _Source(data, on_progress), _name(data, filename), request_id
    )


async def import_file(
    connection: Connection,
    casefile_id: str,
    data: Uploadable,
    filename: str | None,
    on_progress: OnProgress | None,
) -> "Result":
    """Upload a file and file what is in it; cancelling this cancels the import on the server."""
    source = _Source(data, on_progress)
    uploaded = await _upload(connection, casefile_id, source, _name(data, filename), None)
    fields = {
        "casefile_id": casefile_id,
        "operation": {
            "operation_type": "tool",
            "tool_name": "document_import",
            "parameters": {"upload_id": uploaded.upload_id},
        },
    }
    request_id = new_request_id()
    from casekeeper.client.results import Result
    from casekeeper.sessions.streamed import StreamedDelta

    try:
        async with aclosing(streams.execute(connection, fields, request_id)) as items:
            async for item in items:
                match item:
                    case Result():
                        return item
                    case StreamedDelta(data={"type": "import", "read": int(done)}) if on_progress:
                        on_progress(Progress("import", done, max(source.separators, done)))
                    case _:
                        pass
    except asyncio.CancelledError:
        await asyncio.shield(_cancel(connection, casefile_id, request_id))
        raise
    raise ServerFault("stream_ended", "The import ended without a result.")


async def _upload(
    connection: Connection, casefile_id: str, source: _Source, filename: str, request_id: str | None
) -> "Uploaded":
    headers = {"Content-Type": "application/octet-stream", "Idempotency-Key": request_id or new_request_id()}
    if source.size is not None:
        headers["Content-Length"] = str(source.size)
    payload = await connection.payload(
        lambda: connection.http.build_request(
            "POST",
            _UPLOAD.path,
            params={"casefile_id": casefile_id, "filename": filename},
            headers=headers,
            content=source.chunks(),
        ),
        repeatable=source.is_repeatable,
    )
    return result_of(_UPLOAD, payload)


async def _cancel(connection: Connection, casefile_id: str, request_id: str) -> None:
    """Cancel the operation of a request, if it has begun."""
    try:
        wanted = {"casefile_id": casefile_id, "request_id": request_id, "view": "journal", "limit": 1}
        found = await connection.ask("events/query", wanted)
        for event in found.items:
            await connection.ask(
                "operations/cancel", {"event_id": event.event_id, "reason": "The import was stopped."}
            )
    except ApiError:
        # Whoever stops an import does not wait for a server that is unavailable; the operation's deadline ends it.
        pass


def _name(data: Any, filename: str | None) -> str:
    name = filename or (Path(data).name if isinstance(data, Path | str) else "upload")
    name = "".join("_" if ord(c) < 32 or c in "/\\\x7f" or "\ud800" <= c <= "\udfff" else c for c in name)
    return name[-_NAME_MAX:]
