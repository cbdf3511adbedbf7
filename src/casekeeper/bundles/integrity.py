"""Integrity of bundles: whether one is complete and unchanged, checked before an import and at the end of an export."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from casekeeper.bundles.archive import BundleUnfit
from casekeeper.bundles.contents import (
    Conversation,
    Counts,
    Lists,
    RawDocument,
    SessionRecord,
    parts,
)
from casekeeper.sessions.session import UnifiedSession
from casekeeper.values import value
from casekeeper.verify import Finding, Report, SessionSummary, verify


@value
class Judged:
    """What was read of a bundle whose parts fit together. The report says whether its record is intact."""

    lists: Lists
    counts: Counts
    report: Report

    @property
    def records(self) -> dict[str, SessionSummary]:
        """What was read of each session's record, by session id."""
        return {summary.session_id: summary for summary in self.report.sessions}


def judge(file: BinaryIO, kept: Mapping[str, tuple[int, str]] | None = None) -> Judged:
    """Read all of a bundle and compare everything with everything, and its record with heads that were kept.

    Raises:
        BundleUnfit: It is damaged, from a newer version, or does not hold together.
    """
    lists: Lists | None = None
    summaries: list[SessionSummary] = []
    findings: list[Finding] = []
    documents = size = conversations = 0
    told: Counts | None = None
    missing = dict(kept or {})
    for part in parts(file):
        match part:
            case Lists():
                lists = part
            case SessionRecord(session, member):
                report = verify(member.lines(), _heads(session, missing))
                summaries += report.sessions
                findings += report.findings
                _must_be_of(session, report.sessions)
            case RawDocument(document, member):
                digest = hashlib.sha256()
                for piece in member.pieces():
                    digest.update(piece)
                if (document.sha256, document.size) != (digest.hexdigest(), member.size):
                    raise BundleUnfit(f"the bytes of {document.document_id} are not its own")
                documents, size = documents + 1, size + member.size
            case Conversation():
                conversations += 1
            case Counts():
                told = part
    assert lists is not None, "the lists come first"
    findings += [
        Finding(session_id, seq, "diverges", "the head that was kept is not here")
        for session_id, (seq, _) in missing.items()
    ]
    report = Report(tuple(summaries), tuple(findings))
    counts = Counts(
        people=len(lists.people),
        grants=len(lists.grants),
        sessions=len(lists.sessions),
        facts=sum(s.facts for s in summaries),
        conversations=conversations,
        documents=documents,
        bytes=size,
    )
    if told != counts:
        raise BundleUnfit("it does not have as much as it says")
    return Judged(lists, counts, report)


def must_be_intact(judged: Judged) -> None:
    """Refuse a bundle whose record is not whole, or in which operations have not ended.

    Raises:
        BundleUnfit: It is so.
    """
    report = judged.report
    if report.findings:
        first = report.findings[0]
        place = f" ({first.session_id} fact {first.seq})" if first.session_id else ""
        raise BundleUnfit(f"its record is not intact: {first.kind}: {first.message}{place}")
    if running := [s.session_id for s in report.sessions if s.open]:
        raise BundleUnfit(f"operations have not ended in {', '.join(running[:5])}")


def _heads(session: UnifiedSession, kept: dict[str, tuple[int, str]]) -> dict[str, tuple[int, str]]:
    """The head that was kept, which leaves the others; else the one that the bundle states."""
    if session.session_id in kept:
        return {session.session_id: kept.pop(session.session_id)}
    return {session.session_id: (session.head.seq, session.head.hash)} if session.head else {}


def _must_be_of(session: UnifiedSession, found: Sequence[SessionSummary]) -> None:
    """A session's member holds its own facts, up to its head, and nothing else."""
    head = session.head
    expected = [(session.casefile_id, session.session_id, head.seq, head.hash)] if head else []
    if [(s.casefile_id, s.session_id, s.head_seq, s.head_hash) for s in found] != expected:
        raise BundleUnfit(f"the record of {session.session_id} is not all and only its own")
