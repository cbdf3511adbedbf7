"""Documents and uploads in SQL."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, Index, Table, Text, and_, bindparam, delete, func, null, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from casekeeper.clock import from_us, to_us
from casekeeper.documents import document as doc
from casekeeper.documents.document import CasefileCounts, Document, DocumentSummary, Upload
from casekeeper.documents.exact_terms import exact_terms_of
from casekeeper.storage.rows import instant, upload_of, upload_row, us
from casekeeper.storage.sql.expressions import IsInJson
from casekeeper.storage.sql.parts import Writes
from casekeeper.storage.sql.schema import binary, integer, metadata, partial, row_id, string
from casekeeper.storage.sql.statements import Reads, Static, Tx, insert_into

DOCUMENTS = Table(
    "documents",
    metadata,
    row_id(),
    Column("document_id", Text, nullable=False, unique=True),
    string("casefile_id"),
    string("parent_id", null=True),
    string("kind"),
    string("title"),
    string("sender"),
    string("recipients"),
    string("cc"),
    string("bcc"),
    integer("sent_us", null=True),
    string("labels"),
    string("filenames"),
    string("thread_id", null=True),
    string("message_id", null=True),
    string("refs"),
    string("problem", null=True),
    integer("size"),
    string("sha256"),
    string("source"),
    string("metadata"),
    integer("created_us"),
    string("created_by"),
    string("event_id"),
    integer("deleted_us", null=True),
    string("scope"),
    # Last, so that nothing else is read by walking past a long text.
    string("body"),
    # What was deleted may be brought in again.
    partial("documents_bytes", "deleted_us IS NULL", "casefile_id", "sha256", unique=True),
    Index("documents_newest", "casefile_id", "created_us", "document_id"),
    partial("documents_attached", "parent_id IS NOT NULL", "casefile_id", "parent_id"),
)

DOCUMENT_RAW = Table("document_raw", metadata, string("document_id", key=True), binary("data"))

UPLOADS = Table(
    "uploads",
    metadata,
    string("upload_id", key=True),
    string("casefile_id"),
    string("user_id"),
    string("filename"),
    string("sha256"),
    integer("size"),
    integer("created_us"),
    Index("uploads_created", "created_us"),
)

_d, _u = DOCUMENTS.c, UPLOADS.c
_ADD_UPLOAD = insert_into(UPLOADS)
_DROP_UPLOAD = Static(delete(UPLOADS).where(_u.upload_id == bindparam("upload_id")))
_new_document = upsert(DOCUMENTS).values({c.name: bindparam(c.name) for c in _d if c.name != "rid"})
_ADD_DOCUMENT = Static(_new_document.on_conflict_do_nothing().returning(_d.rid))
_ADD_RAW = insert_into(DOCUMENT_RAW)
_RID = Static(
    select(_d.rid).where(
        _d.document_id == bindparam("document_id"),
        _d.casefile_id == bindparam("casefile_id"),
        _d.deleted_us.is_(None),
    )
)
# What it said is gone; that it was here, its size and its digest stay.
_SAID = (
    "title",
    "sender",
    "recipients",
    "cc",
    "bcc",
    "labels",
    "filenames",
    "refs",
    "source",
    "scope",
    "body",
)
_BURY = Static(
    update(DOCUMENTS)
    .where(_d.rid == bindparam("rid_"))
    .values(
        **dict.fromkeys(_SAID, ""),
        metadata="{}",
        **dict.fromkeys(("sent_us", "thread_id", "message_id", "problem"), null()),
        deleted_us=bindparam("at_us"),
    )
)
_DROP_RAW = Static(delete(DOCUMENT_RAW).where(DOCUMENT_RAW.c.document_id == bindparam("document_id")))


def scope_word(casefile_id: str) -> str:
    """The casefile as one word of the search index."""
    return casefile_id.replace("_", "")


def _add_document(tx: Tx, r: doc.AddDocument) -> None:
    d = r.document
    words = {
        "title": d.title,
        "sender": d.sender or "",
        "recipients": "\n".join(d.recipients),
        "cc": "\n".join(d.cc),
        "bcc": "\n".join(d.bcc),
        "filenames": "\n".join(d.filenames),
        "body": d.text,
        "scope": " ".join((scope_word(d.casefile_id), *exact_terms_of(d))),
    }
    row = tx.one(
        _ADD_DOCUMENT,
        document_id=d.document_id,
        casefile_id=d.casefile_id,
        parent_id=d.parent_id,
        kind=d.kind,
        sent_us=us(d.sent_at),
        labels="\n".join(d.labels),
        thread_id=d.thread_id,
        message_id=d.message_id,
        refs="\n".join(d.references),
        problem=d.problem,
        size=d.size,
        sha256=d.sha256,
        source=d.source,
        metadata=json.dumps(d.metadata),
        created_us=to_us(d.created_at),
        created_by=d.created_by,
        event_id=d.event_id,
        deleted_us=None,
        **words,
    )
    if row is None:
        return
    tx.index(row[0], words)
    if r.raw is not None:
        tx.run(_ADD_RAW, document_id=d.document_id, data=r.raw)


def _delete(tx: Tx, r: doc.DeleteDocuments) -> None:
    for document_id in r.document_ids:
        row = tx.one(_RID, document_id=document_id, casefile_id=r.casefile_id)
        if row is None:
            continue
        # The index of SQLite takes out what the row still says.
        tx.unindex_one(row[0])
        tx.run(_BURY, rid_=row[0], at_us=to_us(r.at))
        tx.run(_DROP_RAW, document_id=document_id)


WRITES: Writes = {
    doc.AddDocument: _add_document,
    doc.DeleteDocuments: _delete,
    doc.PutUpload: lambda tx, r: tx.run(_ADD_UPLOAD, **upload_row(r.upload)),
    doc.DropUpload: lambda tx, r: tx.run(_DROP_UPLOAD, upload_id=r.upload_id),
}

SUMMARY = (
    _d.document_id,
    _d.casefile_id,
    _d.parent_id,
    _d.kind,
    _d.title,
    _d.sender,
    _d.recipients,
    _d.cc,
    _d.bcc,
    _d.sent_us,
    _d.labels,
    _d.filenames,
    _d.thread_id,
    _d.message_id,
    _d.refs,
    _d.problem,
    _d.size,
    _d.sha256,
    _d.created_us,
    _d.created_by,
    _d.event_id,
)
_in_casefile = and_(_d.casefile_id == bindparam("casefile_id"), _d.deleted_us.is_(None))
_DOCUMENT = Static(
    select(*SUMMARY, _d.source, _d.metadata, _d.body).where(
        _d.document_id == bindparam("document_id"), _in_casefile
    )
)
_RAW = Static(
    select(DOCUMENT_RAW.c.data)
    .join(DOCUMENTS, _d.document_id == DOCUMENT_RAW.c.document_id)
    .where(_d.document_id == bindparam("document_id"), _in_casefile)
)
_KNOWN = Static(
    select(_d.sha256, _d.document_id).where(
        _in_casefile,
        IsInJson(_d.sha256, "digests"),
    )
)
_ATTACHED = Static(
    select(*SUMMARY).where(_in_casefile, IsInJson(_d.parent_id, "parents")).order_by(_d.document_id)
)
_BY_KIND = Static(select(_d.kind, func.count(), func.sum(_d.size)).where(_in_casefile).group_by(_d.kind))
_PERIOD = Static(select(func.min(_d.sent_us), func.max(_d.sent_us)).where(_in_casefile))
_SENDERS = Static(
    select(_d.sender, func.count())
    .where(_in_casefile, _d.sender != "")
    .group_by(_d.sender)
    .order_by(func.count().desc(), _d.sender)
    .limit(10)
)
_UPLOAD = Static(select(UPLOADS).where(_u.upload_id == bindparam("upload_id")))
_OLD_UPLOADS = Static(
    select(UPLOADS).where(_u.created_us < bindparam("before")).order_by(_u.created_us).limit(bindparam("n"))
)


@cache
def _listing(by_kind: bool, behind: bool) -> Static:
    query = select(*SUMMARY).where(_in_casefile).limit(bindparam("n"))
    query = query.order_by(_d.created_us.desc(), _d.document_id.desc())
    if by_kind:
        query = query.where(_d.kind == bindparam("kind"))
    if behind:
        place = tuple_(bindparam("before_us"), bindparam("before_id"))
        query = query.where(tuple_(_d.created_us, _d.document_id) < place)
    return Static(query)


class SqlDocuments:
    """Implements `DocumentStore`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def document(self, casefile_id: str, document_id: str) -> Document | None:
        values = {"casefile_id": casefile_id, "document_id": document_id}
        row = await self._reads.point(lambda tx: tx.one(_DOCUMENT, **values))
        if row is None:
            return None
        *summary, source, metadata, text = row
        return Document(**summary_fields(summary), source=source, metadata=json.loads(metadata), text=text)

    async def raw(self, casefile_id: str, document_id: str) -> bytes | None:
        values = {"casefile_id": casefile_id, "document_id": document_id}
        row = await self._reads.point(lambda tx: tx.one(_RAW, **values))
        return row[0] if row else None

    async def documents(
        self, casefile_id: str, kind: str | None, before: tuple[int, str] | None, limit: int
    ) -> Sequence[DocumentSummary]:
        values: dict[str, Any] = {"casefile_id": casefile_id, "n": limit}
        if kind is not None:
            values["kind"] = kind
        if before is not None:
            values["before_us"], values["before_id"] = before
        listing = _listing(kind is not None, before is not None)
        rows = await self._reads.scan(lambda tx: tx.all(listing, **values))
        return [DocumentSummary(**summary_fields(row)) for row in rows]

    async def known(self, casefile_id: str, digests: Sequence[str]) -> dict[str, str]:
        values = {"casefile_id": casefile_id, "digests": json.dumps(list(digests))}
        rows = await self._reads.scan(lambda tx: tx.all(_KNOWN, **values))
        return {row[0]: row[1] for row in rows}

    async def attached(self, casefile_id: str, document_ids: Sequence[str]) -> Sequence[DocumentSummary]:
        values = {"casefile_id": casefile_id, "parents": json.dumps(list(document_ids))}
        rows = await self._reads.scan(lambda tx: tx.all(_ATTACHED, **values))
        return [DocumentSummary(**summary_fields(row)) for row in rows]

    async def counts(self, casefile_id: str) -> CasefileCounts:
        def read(tx: Tx) -> CasefileCounts:
            kinds = tx.all(_BY_KIND, casefile_id=casefile_id)
            period = tx.one(_PERIOD, casefile_id=casefile_id) or (None, None)
            senders = tx.all(_SENDERS, casefile_id=casefile_id)
            return CasefileCounts(
                documents=sum(row[1] for row in kinds),
                by_kind={row[0]: row[1] for row in kinds},
                bytes=sum(row[2] for row in kinds),
                earliest=instant(period[0]),
                latest=instant(period[1]),
                top_senders=[(row[0], row[1]) for row in senders],
            )

        return await self._reads.scan(read)

    async def upload(self, upload_id: str) -> Upload | None:
        row = await self._reads.point(lambda tx: tx.one(_UPLOAD, upload_id=upload_id))
        return upload_of(row) if row else None

    async def old_uploads(self, before: datetime, limit: int) -> Sequence[Upload]:
        rows = await self._reads.scan(lambda tx: tx.all(_OLD_UPLOADS, before=to_us(before), n=limit))
        return [upload_of(row) for row in rows]


def summary_fields(row: Sequence[Any]) -> dict[str, Any]:
    """What a `DocumentSummary` is made of, from the columns in `SUMMARY`."""
    names = [column.name for column in SUMMARY]
    fields = dict(zip(names, row, strict=True))
    for name in ("recipients", "cc", "bcc", "labels", "filenames", "refs"):
        fields[name] = fields[name].split("\n") if fields[name] else []
    fields["references"] = fields.pop("refs")
    fields["sender"] = fields["sender"] or None
    fields["sent_at"] = instant(fields.pop("sent_us"))
    fields["created_at"] = from_us(fields.pop("created_us"))
    return fields
