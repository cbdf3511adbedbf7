"""Documents and uploads, written to SQL."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import bindparam, delete, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from casekeeper.clock import to_us
from casekeeper.documents import document as doc
from casekeeper.documents.marks import marks_of
from casekeeper.journal import commits
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import Static, Tx
from casekeeper.storage.sql.writing import insert_into, us

_ADD_UPLOAD = insert_into(t.uploads)
_DROP_UPLOAD = Static(delete(t.uploads).where(t.uploads.c.upload_id == bindparam("upload_id")))
_new_document = upsert(t.documents).values(
    {c.name: bindparam(c.name) for c in t.documents.c if c.name != "rid"}
)
_ADD_DOCUMENT = Static(_new_document.on_conflict_do_nothing().returning(t.documents.c.rid))
_ADD_RAW = insert_into(t.document_raw)
_RID = Static(
    select(t.documents.c.rid).where(
        t.documents.c.document_id == bindparam("document_id"),
        t.documents.c.casefile_id == bindparam("casefile_id"),
        t.documents.c.deleted_us.is_(None),
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
    update(t.documents)
    .where(t.documents.c.rid == bindparam("rid_"))
    .values(
        **dict.fromkeys(_SAID, ""),
        metadata="{}",
        **dict.fromkeys(("sent_us", "thread_id", "message_id", "problem"), null()),
        deleted_us=bindparam("at_us"),
    )
)
_DROP_RAW = Static(delete(t.document_raw).where(t.document_raw.c.document_id == bindparam("document_id")))


def scope_word(casefile_id: str) -> str:
    """The casefile as one word of the search index."""
    return casefile_id.replace("_", "")


def _add_upload(tx: Tx, r: doc.PutUpload) -> None:
    u = r.upload
    tx.run(
        _ADD_UPLOAD,
        upload_id=u.upload_id,
        casefile_id=u.casefile_id,
        user_id=u.user_id,
        filename=u.filename,
        sha256=u.sha256,
        size=u.size,
        created_us=to_us(u.created_at),
    )


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
        "scope": " ".join((scope_word(d.casefile_id), *marks_of(d))),
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


DOCUMENT_RECORDS: dict[type[commits.Record], Callable[[Tx, Any], object]] = {
    doc.AddDocument: _add_document,
    doc.DeleteDocuments: _delete,
    doc.PutUpload: _add_upload,
    doc.DropUpload: lambda tx, r: tx.run(_DROP_UPLOAD, upload_id=r.upload_id),
}
"""How each record is written."""
