"""Which commits wait in one line, and how much of a write each takes."""

from casekeeper.documents.document import AddDocument
from casekeeper.journal.adoption import AdoptFacts, ChainEndsAt
from casekeeper.journal.commits import Commit, PermissionChanged
from casekeeper.journal.events import Fact
from casekeeper.journal.things import Drop, IsAt, Put
from casekeeper.sessions.adoption import AdoptSession
from casekeeper.sessions.session import EndSession, PutSession, SessionIsIdle, SessionIsOpen
from casekeeper.storage.firestore_rows import INLINE_BYTES


def line_of(commit: Commit) -> str:
    """Commits of one line are judged in the order in which they came, and written together."""
    if any(isinstance(record, PermissionChanged) for record in commit.records):
        return "acl"
    if commit.facts:
        return commit.facts[0].session_id
    for one in (*commit.conditions, *commit.records):
        match one:
            case SessionIsOpen(session_id) | SessionIsIdle(session_id) | EndSession(session_id):
                return session_id
            case PutSession(session) | AdoptSession(session):
                return session.session_id
            case AdoptFacts() | ChainEndsAt():
                return one.session_id
            case AddDocument(document):
                return document.casefile_id
            case IsAt(topic=topic) | Drop(topic=topic):
                return topic.id
            case Put(thing):
                return thing.about.id
            case _:
                pass
    return "others"


def facts_of(commit: Commit) -> list[Fact]:
    """All facts that a commit writes, its own and those that it adopts."""
    adopted = (record.facts for record in commit.records if isinstance(record, AdoptFacts))
    return [*commit.facts, *(one.fact for facts in adopted for one in facts)]


def size_of(commit: Commit) -> int:
    """About how many bytes of a write a commit takes."""
    facts = facts_of(commit)
    bodies = sum(min(len(fact.payload.body or b""), INLINE_BYTES) for fact in facts)
    bodies += sum(len(record.body) for record in commit.records if isinstance(record, Put))
    return bodies + 2000 * (len(facts) + len(commit.records) + len(commit.conditions))
