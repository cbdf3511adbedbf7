"""A session's record as lines that can be checked without this server (docs/record-format.md)."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

import orjson

from casekeeper.documents.blobs import BlobStore
from casekeeper.identity.principal import Principal
from casekeeper.sessions.manager import At, CasefileSessionManager, Purpose

_PAGE = 500


class RecordStore(Protocol):
    """The record as it is stored."""

    async def record(self, session_id: str, after: int, limit: int) -> Sequence[tuple[Any, ...]]:
        """(seq, header, hash, commitment, salt, body, blob) behind a seq, in order."""
        ...


class Recording:
    """Hands out record lines to those who may read the session."""

    def __init__(self, store: RecordStore, blobs: BlobStore, manager: CasefileSessionManager) -> None:
        self._store = store
        self._blobs = blobs
        self._manager = manager

    async def lines(self, caller: Principal, session_id: str) -> AsyncIterator[bytes]:
        """The lines, one fact each, in order, up to what is there now; checked for permission at once."""
        context = await self._manager.validate_and_get_session(caller, At(session_id), Purpose.READ)
        return self.of_session(context.access.casefile_id, session_id)

    async def of_session(self, casefile_id: str, session_id: str) -> AsyncIterator[bytes]:
        """The lines, without an access check, for commands that work on the data directory."""
        after = 0
        while rows := await self._store.record(session_id, after, _PAGE):
            after = rows[-1][0]
            for _, header, hash_, commitment, salt, body, blob in rows:
                if blob is not None:
                    body = await self._blobs.get(casefile_id, blob)
                yield _line(header, hash_, commitment, salt, body)


def _line(header: bytes, hash_: bytes, commitment: bytes, salt: bytes | None, body: bytes | None) -> bytes:
    line: dict[str, Any] = {
        "header": orjson.Fragment(header),
        "hash": hash_.hex(),
        "commit": commitment.hex(),
        "salt": None,
        "payload": None,
    }
    if salt is not None and body is not None:
        line |= {"salt": salt.hex(), "payload": body.decode()}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
