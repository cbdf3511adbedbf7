"""From an upload to its documents: archives are opened, mailboxes split, attachments cut out, texts extracted.

Pure but for the spool of archives; runs in the process of `reading/worker.py`. The same upload gives the same items
in the same order, so that a reader who died can be replaced by one that goes on behind what came through.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import IO, Any, Final

from casekeeper.reading.archives import BROKEN, DEPTH_MAX, NO_FILE, Budget, TooMuch, entries, path_of
from casekeeper.reading.clean import line_of
from casekeeper.reading.extraction import Extracted, extract
from casekeeper.reading.file_kinds import HEAD_BYTES, kind_of, lie_of
from casekeeper.reading.mail import Mail, UnreadableMail, opened, parse_mail
from casekeeper.reading.mail_parts import decoded, is_text, leaves, name_of
from casekeeper.reading.mailbox import Parsed, read_mailbox
from casekeeper.reading.office import kind_of_package

REMARK: Final = "remark"
"""The kind of an item that is no document but something to tell: an entry that could not be taken."""

_ARCHIVES: Final = ("zip", "tar", "gzip", "bzip2", "xz")
_MAILS_DEEP: Final = 10
_CHUNK: Final = 256 * 1024
_KILLED: Final = "Reading it took too long or too much memory; it is kept as it is."
_ENDINGS: Final = {
    "message/rfc822": ".eml",
    "application/pdf": ".pdf",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html",
}


@dataclass(slots=True)
class Item:
    """One document to be, or a remark. `parent` is the number of the item to which it was attached."""

    kind: str
    title: str
    source: str
    raw: bytes | IO[bytes] = b""
    size: int = 0
    sha256: str = ""
    parent: int | None = None
    has_children: bool = False
    problem: str | None = None
    text: str = ""
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    sent_at: datetime | None = None
    labels: tuple[str, ...] = ()
    filenames: tuple[str, ...] = ()
    thread_id: str | None = None
    message_id: str | None = None
    references: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(slots=True)
class Contents:
    """Reads one upload.

    Attributes:
        budget: What may be expanded.
        skip: Items with a lower number came through before; they are not read again, only counted.
        as_is: Numbers of items that ended a process; they are not looked into.
    """

    budget: Budget
    skip: int = 0
    as_is: frozenset[int] = frozenset()
    _number: int = 0

    def items(self, file: IO[bytes], name: str, *, whole: bool = False) -> Iterator[Item]:
        """The items of an upload in their order; with `whole` the upload itself and nothing else."""
        name = path_of(name)[0]
        found = (
            iter([self._raw(file, "file", name, name, None, _KILLED)]) if whole else self._file(file, name)
        )
        yield from found

    def _file(
        self,
        file: IO[bytes],
        path: str,
        source: str = "",
        parent: int | None = None,
        depth: int = 0,
        note: str | None = None,
    ) -> Iterator[Item]:
        source = source or path
        head = file.read(HEAD_BYTES)
        file.seek(0)
        kind = kind_of(head, path)
        if kind == "zip":
            kind = kind_of_package(file) or kind
            file.seek(0)
        notes = [one for one in (note, lie_of(kind, path) if head else None) if one]
        if kind in ("mail", "mailbox"):
            # Numbers are taken while the mails are parsed, so that the one that did harm is known.
            for parsed in read_mailbox(_chunks(file), path, parse=self._parse):
                yield from self._message(parsed, path, source, parent, depth)
        elif self._number in self.as_is:
            yield self._counted(self._raw(file, "file", path, source, parent, _KILLED))
        elif kind in _ARCHIVES and depth < DEPTH_MAX:
            yield from self._archive(file, kind, path, source, parent, depth)
        elif kind in _ARCHIVES:
            problem = f"Archives are opened {DEPTH_MAX} deep; this one lies deeper."
            yield self._counted(self._raw(file, "archive", path, source, parent, problem))
        else:
            yield self._counted(self._plain(file, kind, path, source, parent, notes))

    def _archive(
        self, file: IO[bytes], kind: str, path: str, source: str, parent: int | None, depth: int
    ) -> Iterator[Item]:
        own: int | None = None
        if parent is not None:
            # What was attached is evidence as it came; an archive that was uploaded only carried its files here.
            own = self._number
            item = self._raw(file, "archive", path, source, parent, None)
            item.has_children = True
            yield self._counted(item)
            file.seek(0)
        lost: list[str] = []
        try:
            for entry in entries(file, kind, path, self.budget):
                inside = f"{source}/{entry.path}"
                if entry.file is not None:
                    yield from self._file(entry.file, entry.path, inside, own, depth + 1, entry.note)
                    continue
                yield self._remark(inside, entry.problem or "")
                if entry.problem != NO_FILE:
                    lost.append(f"{entry.path}: {entry.problem}")
        except TooMuch as limit:
            lost.append(str(limit))
        except BROKEN as error:
            lost.append(
                f"It cannot be read any further: {line_of(str(error))[:200] or type(error).__name__}."
            )
        if lost and own is None:
            problem = " ".join(lost)[:1000]
            yield self._counted(self._raw(file, "archive", path, source, parent, problem))
        elif lost:
            yield self._remark(source, " ".join(lost)[:1000])

    def _message(
        self, parsed: Parsed, path: str, source: str, parent: int | None, depth: int
    ) -> Iterator[Item]:
        own, mail = self._number, parsed.mail
        if mail is None:
            item = Item(kind="file", title=path.rpartition("/")[2], source=source, filenames=(path,))
        else:
            item = _mail(mail, source)
        item.raw, item.size, item.sha256 = parsed.raw, len(parsed.raw), parsed.sha256
        item.parent, item.problem = parent, parsed.problem
        item.has_children = bool(mail and mail.attachments)
        yield self._counted(item)
        if item.has_children and depth < _MAILS_DEEP:
            yield from self._attachments(parsed.raw, source, own, depth)

    def _attachments(self, raw: bytes, source: str, own: int, depth: int) -> Iterator[Item]:
        unnamed = 0
        for head, body in leaves(opened(raw)[0], []):
            kind = head.get_content_type()
            if is_text(head) or head.get_content_maintype() == "multipart":
                continue
            name = name_of(head)
            if not name:
                unnamed += 1
                name = f"attachment-{unnamed}{_ENDINGS.get(kind, '')}"
            name = path_of(name)[0].rpartition("/")[2]
            data = decoded(head, body, [])
            if data:
                yield from self._file(BytesIO(data), name, f"{source}/{name}", own, depth + 1)

    def _plain(
        self, file: IO[bytes], kind: str, path: str, source: str, parent: int | None, notes: list[str]
    ) -> Item:
        # What came through before is not read again.
        found = Extracted() if self._number < self.skip else extract(file, kind)
        item = self._raw(file, kind, path, source, parent, found.unreadable)
        if not item.size:
            item.problem = "It is empty."
        item.text, item.metadata = found.text, found.metadata
        if problems := [*notes, *found.problems]:
            item.metadata["problems"] = problems
        return item

    def _raw(
        self, file: IO[bytes], kind: str, path: str, source: str, parent: int | None, problem: str | None
    ) -> Item:
        digest, size = hashlib.sha256(), 0
        file.seek(0)
        for chunk in _chunks(file):
            digest.update(chunk)
            size += len(chunk)
        name = path.rpartition("/")[2]
        return Item(
            kind=kind,
            title=name,
            source=source,
            raw=file,
            size=size,
            sha256=digest.hexdigest(),
            parent=parent,
            problem=problem,
            filenames=(name,),
        )

    def _remark(self, source: str, text: str) -> Item:
        return self._counted(Item(kind=REMARK, title=source, source=source, problem=text))

    def _counted(self, item: Item) -> Item:
        self._number += 1
        return item

    def _parse(self, raw: bytes) -> Mail:
        if self._number in self.as_is:
            raise UnreadableMail(_KILLED)
        return parse_mail(raw)


def _mail(mail: Mail, source: str) -> Item:
    metadata = {"lists": list(mail.lists), "problems": list(mail.problems)}
    return Item(
        kind="mail",
        title=mail.subject,
        source=source,
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


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
