"""Search beside Firestore, which has none: a full-text index in an SQLite file of this process's machine.

It only repeats what Firestore holds. Before each search it takes in what others have filed since the last one, so that
what was acknowledged is found; a file that is missing is made anew by the first search of each casefile.
"""

import json
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import select

from casekeeper.casefiles.casefile import EraseContents
from casekeeper.clock import from_us
from casekeeper.documents.document import AddDocument, CasefileCounts, DeleteDocuments
from casekeeper.documents.query import Term
from casekeeper.documents.search import Facets, Order, PageStart, Ranked
from casekeeper.journal.commits import Commit
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.chunks import whole
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import Instant, Query
from casekeeper.storage.sql.documents import DOCUMENTS, SqlDocuments
from casekeeper.storage.sql.expressions import IsInJson
from casekeeper.storage.sql.statements import Static
from casekeeper.storage.sqlite.search import SqliteSearch
from casekeeper.storage.sqlite.store import SqliteStore

_INDEXED = Static(
    select(DOCUMENTS.c.document_id).where(
        IsInJson(DOCUMENTS.c.document_id, "ids"), DOCUMENTS.c.deleted_us.is_(None)
    )
)
_CASEFILES = Static(select(DOCUMENTS.c.casefile_id).distinct())
# So many texts are held in memory at a time while an index catches up.
_AT_ONCE = 50


class FirestoreSearch:
    """Implements `Search`."""

    def __init__(self, store: Firestore, index: SqliteStore) -> None:
        self._store = store
        self._index = index
        self._search = SqliteSearch(index)
        self._documents = SqlDocuments(index)
        # Up to when, by the server's clock, each casefile's documents are in the index.
        self._known_until: dict[str, Instant] = {}

    async def search(
        self, casefile_id: str, term: Term, order: Order, place: PageStart, limit: int
    ) -> Sequence[Ranked]:
        await self._catch_up(casefile_id)
        return await self._search.search(casefile_id, term, order, place, limit)

    async def facets(self, casefile_id: str, term: Term) -> Facets:
        await self._catch_up(casefile_id)
        return await self._search.facets(casefile_id, term)

    async def counts(self, casefile_id: str) -> CasefileCounts:
        """What a casefile holds, in figures."""
        await self._catch_up(casefile_id)
        return await self._documents.counts(casefile_id)

    async def follow(self, documents: Sequence[AddDocument | DeleteDocuments]) -> None:
        """Take in what has been filed, take out what has been deleted."""
        records = [AddDocument(r.document, None) if isinstance(r, AddDocument) else r for r in documents]
        await self._index.commit(Commit(records=records))

    async def erase(self, casefile_id: str) -> None:
        """Forget a casefile's documents."""
        await self._index.commit(Commit(records=(EraseContents(casefile_id),)))

    async def forget_erased(self) -> None:
        """Forget what others have erased."""
        ids = [row[0] for row in await self._index.scan(lambda tx: tx.all(_CASEFILES))]
        found = await self._store.get([at.casefile(casefile_id) for casefile_id in ids])
        for one in found.values():
            if one.fields["deleted_us"] is not None and not one.fields["is_to_erase"]:
                await self.erase(one.fields["casefile_id"])

    async def _catch_up(self, casefile_id: str) -> None:
        since = self._known_until.get(casefile_id)
        found = await self._store.query(
            Query(
                "documents",
                at.casefile(casefile_id),
                # Those of the last instant again: more may have been filed in it.
                where=() if since is None else (("filed_at", ">=", since),),
                order=(("filed_at", "asc"),),
                only=("document_id", "filed_at", "deleted_us"),
            )
        )
        ended = {one.fields["document_id"]: one.fields.get("deleted_us") for one in found}
        rows = await self._index.point(lambda tx: tx.all(_INDEXED, ids=json.dumps(list(ended))))
        indexed = {row[0] for row in rows}
        gone = {id_: us for id_, us in ended.items() if us is not None}
        if late := sorted(gone.keys() & indexed):
            deletions = [DeleteDocuments(casefile_id, (id_,), from_us(gone[id_])) for id_ in late]
            await self.follow(deletions)
        missing = sorted(ended.keys() - gone.keys() - indexed)
        for start in range(0, len(missing), _AT_ONCE):
            await self._take_in(casefile_id, missing[start : start + _AT_ONCE])
        if found:
            self._known_until[casefile_id] = found[-1].fields["filed_at"]

    async def _take_in(self, casefile_id: str, document_ids: Sequence[str]) -> None:
        paths = [at.document(casefile_id, document_id) for document_id in document_ids]
        found = await self._store.get(paths)
        rows = [found[path].fields for path in paths if path in found]
        # Some may have been deleted just now; the next search takes note of it.
        documents: list[AddDocument] = []
        for row in rows:
            if row.get("deleted_us") is None:
                with suppress(KeyError):
                    documents.append(AddDocument(await whole(self._store, row), None))
        await self.follow(documents)
