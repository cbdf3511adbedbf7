"""Reads a data directory while a server has it open: SQLite lets readers see what is committed, and nothing else."""

from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from sqlalchemy import select

from casekeeper.cli.opening import DATABASE
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.checking import Condition, checked
from casekeeper.documents.document import DocumentSummary
from casekeeper.sessions.recording import Recording
from casekeeper.storage.blobs.opening import open_blobs
from casekeeper.storage.sql.blobs import SqlParts
from casekeeper.storage.sql.casefiles import CASEFILES
from casekeeper.storage.sql.documents import SqlDocuments
from casekeeper.storage.sql.events import SqlEvents
from casekeeper.storage.sql.sessions import SESSIONS
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sqlite.opening import usable
from casekeeper.storage.sqlite.store import connect
from casekeeper.storage.sqlite.transaction import SqliteTx
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.settings import Settings

T = TypeVar("T")

_LIVE = (
    select(CASEFILES.c.casefile_id).where(CASEFILES.c.deleted_us.is_(None)).order_by(CASEFILES.c.casefile_id)
)


class ReadOnly:
    """Implements the store's `Reads`; changes nothing."""

    def __init__(self, data: Path) -> None:
        self._data = data
        with usable(data):
            self._connection = connect(data / DATABASE, read_only=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    async def point(self, read: Callable[[Tx], T]) -> T:
        """One snapshot."""
        with usable(self._data):
            self._connection.execute("BEGIN")
            try:
                return read(SqliteTx(self._connection))
            finally:
                self._connection.execute("COMMIT")

    async def scan(self, read: Callable[[Tx], T]) -> T:
        """One snapshot; nobody else waits in this process."""
        return await self.point(read)

    def check(self) -> list[str]:
        """What SQLite itself finds wrong with the file; nothing if all is well."""
        rows: list[tuple[str]] = self._connection.execute("PRAGMA integrity_check(20)").fetchall()
        return [text for (text,) in rows if text != "ok"]


@value
class StoredHead:
    """A session and the newest fact that the store says it has."""

    casefile_id: str
    session_id: str
    seq: int
    hash: str


async def blobs_of(settings: "Settings", reads: ReadOnly) -> BlobStore:
    """The blobs of a data directory, to be read only."""
    # Nothing will be written.
    parts = SqlParts(reads, cast(Any, None))
    return await open_blobs(settings.store_limits, settings.data, parts, tried=False)


class StoredRecords:
    """All records of a directory, for whoever holds it: no permission is asked."""

    def __init__(self, reads: ReadOnly, blobs: BlobStore) -> None:
        self._reads = reads
        self._blobs = blobs
        # `of_session` asks nobody for permission, so there is no manager to give.
        self._recording = Recording(SqlEvents(reads), self._blobs, cast(Any, None))

    async def heads(self, casefiles: Sequence[str], sessions: Sequence[str]) -> list[StoredHead]:
        """The sessions of these casefiles and these sessions; all of the directory where none is named."""
        s = SESSIONS.c
        query = select(s.casefile_id, s.session_id, s.head_seq, s.head_hash).order_by(
            s.casefile_id, s.created_us, s.session_id
        )
        if casefiles or sessions:
            query = query.where(s.casefile_id.in_(casefiles) | s.session_id.in_(sessions))
        rows = await self._reads.scan(lambda tx: tx.select(query))
        return [StoredHead(c, session, seq, head.hex()) for c, session, seq, head in rows]

    def lines(self, head: StoredHead) -> AsyncGenerator[bytes]:
        """The record lines of a session."""
        return cast("AsyncGenerator[bytes]", self._recording.of_session(head.casefile_id, head.session_id))

    async def documents(self, casefiles: Sequence[str]) -> AsyncGenerator[tuple[DocumentSummary, Condition]]:
        """The documents of these casefiles, of all where none is named, and whether their bytes are whole."""
        store, ids = SqlDocuments(self._reads), list(casefiles)
        if not ids:
            rows = await self._reads.scan(lambda tx: tx.select(_LIVE))
            ids = [row[0] for row in rows]
        for casefile_id in ids:
            async for one in checked(store, self._blobs, casefile_id):
                yield one
