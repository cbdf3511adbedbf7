"""Filing uploads as documents."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice
from typing import Any, BinaryIO

from casekeeper.acl import Effect
from casekeeper.documents.document import NewDocument
from casekeeper.documents.importing import Parsed, read_mailbox
from casekeeper.ids import UploadId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool

# One commit a batch: large enough that syncing does not rule, small enough that others get their turn.
_BATCH = 200
_BATCH_BYTES = 8 * 1024 * 1024
_CHUNK = 256 * 1024
_PROBLEMS_TOLD = 100


@tool(effects={Effect.WRITE}, timeout=timedelta(hours=1))
async def document_import(call: MDSContext, upload_id: UploadId) -> dict[str, Any]:
    """File an upload: the mails of an mbox or .eml as documents of their own, anything else kept as it is.

    Mails that the casefile holds already add nothing; what cannot be read is kept raw and reported. A repeated
    import goes on where the first one stopped.
    """
    upload = await call.documents.upload(upload_id)
    counts: Counter[str] = Counter()
    problems: list[dict[str, Any]] = []
    file = await asyncio.to_thread(call.documents.open_upload, upload)
    with closing(file):
        parsed = read_mailbox(_chunks(file), upload.filename)
        while batch := await asyncio.to_thread(_take, parsed):
            new = [_document(item, upload.filename) for item in batch]
            added = await call.documents.add(new)
            counts["read"] += len(batch)
            counts["added"] += len(added)
            counts["unreadable"] += sum(item.mail is None for item in batch)
            problems += [p for item in batch if (p := _problem(item))]
            call.progress({"type": "import", **counts})
    await call.documents.drop_upload(upload)
    return {
        "filename": upload.filename,
        "read": counts["read"],
        "added": counts["added"],
        "duplicates": counts["read"] - counts["added"],
        "unreadable": counts["unreadable"],
        "problems": problems[:_PROBLEMS_TOLD],
        "problems_untold": max(0, len(problems) - _PROBLEMS_TOLD),
    }


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _take(parsed: Iterator[Parsed]) -> list[Parsed]:
    batch: list[Parsed] = []
    size = 0
    for item in islice(parsed, _BATCH):
        batch.append(item)
        size += len(item.raw)
        if size >= _BATCH_BYTES:
            break
    return batch


def _document(item: Parsed, filename: str) -> NewDocument:
    mail = item.mail
    if mail is None:
        return NewDocument(
            kind="file",
            title=filename,
            raw=item.raw,
            sha256=item.sha256,
            source=filename,
            filenames=[filename],
            problem=item.problem,
        )
    metadata = {"lists": list(mail.lists), "problems": list(mail.problems)}
    return NewDocument(
        kind="mail",
        title=mail.subject,
        raw=item.raw,
        sha256=item.sha256,
        source=filename,
        text=mail.text,
        sender=mail.sender,
        recipients=mail.recipients,
        cc=mail.cc,
        bcc=mail.bcc,
        sent_at=mail.sent_at,
        labels=mail.labels,
        filenames=mail.attachments,
        thread_id=mail.thread_id,
        message_id=mail.message_id,
        references=mail.references,
        metadata={key: value for key, value in metadata.items() if value},
    )


def _problem(item: Parsed) -> dict[str, Any] | None:
    problems: Iterable[str] = item.mail.problems if item.mail else (item.problem or "unreadable",)
    told = list(problems)
    return {"sha256": item.sha256, "problems": told} if told else None
