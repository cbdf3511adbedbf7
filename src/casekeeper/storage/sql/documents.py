"""Documents, read from SQL."""

import json
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select, tuple_

from casekeeper.clock import from_us, to_us
from casekeeper.documents.document import CasefileCounts, Document, DocumentSummary, Upload
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import IsInJson, Reads, Row, Static, Tx

_d = t.documents.c
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
_in_casefile = sa.and_(_d.casefile_id == bindparam("casefile_id"), _d.deleted_us.is_(None))
_DOCUMENT = Static(
    select(*SUMMARY, _d.source, _d.metadata, _d.body).where(
        _d.document_id == bindparam("document_id"), _in_casefile
    )
)
_RAW = Static(
    select(t.document_raw.c.data)
    .join(t.documents, _d.document_id == t.document_raw.c.document_id)
    .where(_d.document_id == bindparam("document_id"), _in_casefile)
)
_KNOWN = Static(
    select(_d.sha256, _d.document_id).where(
        _in_casefile,
        IsInJson(t.documents.c.sha256, "digests"),
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
_UPLOAD = Static(select(t.uploads).where(t.uploads.c.upload_id == bindparam("upload_id")))
_OLD_UPLOADS = Static(
    select(t.uploads)
    .where(t.uploads.c.created_us < bindparam("before"))
    .order_by(t.uploads.c.created_us)
    .limit(bindparam("n"))
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
                earliest=_instant(period[0]),
                latest=_instant(period[1]),
                top_senders=[(row[0], row[1]) for row in senders],
            )

        return await self._reads.scan(read)

    async def upload(self, upload_id: str) -> Upload | None:
        row = await self._reads.point(lambda tx: tx.one(_UPLOAD, upload_id=upload_id))
        return _upload(row) if row else None

    async def old_uploads(self, before: datetime, limit: int) -> Sequence[Upload]:
        rows = await self._reads.scan(lambda tx: tx.all(_OLD_UPLOADS, before=to_us(before), n=limit))
        return [_upload(row) for row in rows]


def summary_fields(row: Sequence[Any]) -> dict[str, Any]:
    """What a `DocumentSummary` is made of, from the columns in `SUMMARY`."""
    names = [column.name for column in SUMMARY]
    fields = dict(zip(names, row, strict=True))
    for name in ("recipients", "cc", "bcc", "labels", "filenames", "refs"):
        fields[name] = fields[name].split("\n") if fields[name] else []
    fields["references"] = fields.pop("refs")
    fields["sender"] = fields["sender"] or None
    fields["sent_at"] = _instant(fields.pop("sent_us"))
    fields["created_at"] = from_us(fields.pop("created_us"))
    return fields


def _upload(row: Row) -> Upload:
    upload_id, casefile_id, user_id, filename, sha256, size, created_us = row
    return Upload(upload_id, casefile_id, user_id, filename, sha256, size, from_us(created_us))


def _instant(us: int | None) -> datetime | None:
    return None if us is None else from_us(us)
