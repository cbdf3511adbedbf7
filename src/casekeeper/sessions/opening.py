"""Opens the room of sessions: who is let into which, and what is on their record."""

from datetime import timedelta
from typing import Protocol

from casekeeper.casefiles.access import Gate
from casekeeper.documents.blobs import BlobStore
from casekeeper.journal.opening import Journal
from casekeeper.sessions.manager import CasefileSessionManager
from casekeeper.sessions.reading import EventStore, Reading
from casekeeper.sessions.recording import Recording, RecordStore
from casekeeper.sessions.session import SessionStore
from casekeeper.values import value


class FactStore(EventStore, RecordStore, Protocol):
    """The record, for those who read it as facts and as lines."""


@value
class SessionRoom:
    """Sessions, and reading their record."""

    store: SessionStore
    manager: CasefileSessionManager
    reading: Reading
    recording: Recording


def open_sessions(
    journal: Journal,
    gate: Gate,
    store: SessionStore,
    facts: FactStore,
    blobs: BlobStore,
    *,
    auto_idle: timedelta = timedelta(hours=12),
) -> SessionRoom:
    """The room. `auto_idle`: for how long an auto session is used again."""
    manager = CasefileSessionManager(store, gate, journal.clock, auto_idle)
    reading = Reading(facts, manager, gate, journal.live, journal.cursors, journal.clock)
    return SessionRoom(store, manager, reading, Recording(facts, blobs, manager))
