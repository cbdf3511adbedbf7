"""Filing uploads as documents."""

from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Any, Final

from casekeeper.acl import Effect
from casekeeper.documents.document import NewDocument
from casekeeper.ids import UploadId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool
from casekeeper.reading.contents import REMARK
from casekeeper.reading.readers import Arrived

_PROBLEMS_TOLD: Final = 100


@tool(effects={Effect.WRITE}, timeout=timedelta(hours=1))
async def document_import(call: MDSContext, upload_id: UploadId) -> dict[str, Any]:
    """File an upload: every mail of a mailbox with its attachments, every file of an archive, or the file itself.

    Text is extracted from mail, PDF, Word, Excel, CSV, HTML, Markdown and plain text. What the casefile holds already
    adds nothing; what cannot be read is kept raw and reported. A repeated import goes on where the first one stopped.
    """
    upload = await call.documents.upload(upload_id)
    filing = _Filing(call)
    async with aclosing(call.documents.read_upload(upload)) as batches:
        async for batch in batches:
            await filing.take(batch)
    await call.documents.drop_upload(upload)
    return filing.report(upload.filename)


class _Filing:
    """Files batches, and counts."""

    def __init__(self, call: MDSContext) -> None:
        self._call = call
        self._counts: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._problems: list[dict[str, Any]] = []
        self._problem_count = 0
        # By the numbers of those items to which something is attached.
        self._parents: dict[int, str] = {}

    async def take(self, batch: Sequence[Arrived]) -> None:
        """File one batch."""
        documents = self._call.documents
        items = [one for one in batch if one.fields["kind"] != REMARK]
        known = await documents.known([one.fields["sha256"] for one in items])
        new: list[NewDocument] = []
        for one in items:
            if one.fields["sha256"] not in known:
                new.append(await self._document(one))
                known[one.fields["sha256"]] = new[-1].document_id or ""
            if one.fields["has_children"]:
                self._parents[one.number] = known[one.fields["sha256"]]
        added = await documents.add(new)
        self._counts["added"] += len(added)
        self._counts["attached"] += sum(document.parent_id is not None for document in added)
        self._kinds.update(document.kind for document in added)
        self._counts["read"] += len(items)
        self._counts["unreadable"] += sum(one.fields["problem"] is not None for one in items)
        for one in batch:
            self._note(one.fields)
        self._call.progress({"type": "import", **self._counts})

    def report(self, filename: str) -> dict[str, Any]:
        """What became of it all."""
        counts = self._counts
        return {
            "filename": filename,
            "read": counts["read"],
            "added": counts["added"],
            "attached": counts["attached"],
            "by_kind": dict(sorted(self._kinds.items())),
            "duplicates": counts["read"] - counts["added"],
            "unreadable": counts["unreadable"],
            "problems": self._problems,
            "problems_untold": self._problem_count - len(self._problems),
        }

    async def _document(self, one: Arrived) -> NewDocument:
        fields = one.fields
        # What is attached to it comes in the same commit and has to name it.
        document_id = self._call.documents.next_id()
        if one.raw is None:
            await self._call.documents.keep(document_id, one.chunks(), fields["size"])
        sent_at: str | None = fields["sent_at"]
        parent: int | None = fields["parent"]
        return NewDocument(
            kind=fields["kind"],
            title=fields["title"],
            raw=one.raw,
            sha256=fields["sha256"],
            source=fields["source"],
            document_id=document_id,
            size=fields["size"],
            text=fields["text"],
            parent_id=None if parent is None else self._parents.get(parent),
            sender=fields["sender"],
            recipients=fields["recipients"],
            cc=fields["cc"],
            bcc=fields["bcc"],
            sent_at=datetime.fromisoformat(sent_at) if sent_at else None,
            labels=fields["labels"],
            filenames=fields["filenames"],
            thread_id=fields["thread_id"],
            message_id=fields["message_id"],
            references=fields["references"],
            problem=fields["problem"],
            metadata=fields["metadata"],
        )

    def _note(self, fields: dict[str, Any]) -> None:
        problem: str | None = fields["problem"]
        told = [*([problem] if problem else []), *fields["metadata"].get("problems", ())]
        if told:
            self._problem_count += 1
            if len(self._problems) < _PROBLEMS_TOLD:
                self._problems.append(
                    {"source": fields["source"], "sha256": fields["sha256"] or None, "problems": told}
                )
