"""What every store must provide: the protocols that the rooms declare, put together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from casekeeper.acl_feed import AclFeed, Change
from casekeeper.agents.agent import Conversations
from casekeeper.casefiles.casefile import CasefileStore
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.document import DocumentStore
from casekeeper.documents.search import SearchStore
from casekeeper.execution.resuming import ResumeStore
from casekeeper.identity.credentials import CredentialStore
from casekeeper.journal.commits import Commits
from casekeeper.journal.requests import ClaimStore
from casekeeper.journal.tail import Tail
from casekeeper.journal.things import Things
from casekeeper.sessions.reading import EventStore
from casekeeper.sessions.recording import RecordStore
from casekeeper.sessions.session import SessionStore
from casekeeper.values import value


class Writing(Commits, Protocol):
    """Takes commits, and says whether it can."""

    @property
    def is_writable(self) -> bool:
        """Whether commits can be taken."""
        ...


class Identities(CredentialStore, AclFeed, ClaimStore, Protocol):
    """Accounts, credentials, the permission feed and claims."""


class EventReaders(EventStore, ResumeStore, RecordStore, Conversations, Protocol):
    """Reading the record."""


async def _always() -> bool:
    return True


async def _nothing() -> None:
    pass


@value
class Storage:
    """An open store, as the rooms use it."""

    commits: Writing
    accounts: Identities
    casefiles: CasefileStore
    sessions: SessionStore
    events: EventReaders
    tail: Tail
    documents: DocumentStore
    search: SearchStore
    things: Things
    blobs: BlobStore
    directory: Path
    """Where this process keeps its files: keys, and with the embedded store everything."""
    is_shared: bool = False
    """Whether other processes may be at work in it."""
    is_our_turn: Callable[[], Awaitable[bool]] = _always
    """Whether it is this process that sweeps; when it is lost, the next process that asks takes its turn.

    Raises StoreUnavailable.
    """
    is_sweep_due: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something was left behind that should not wait for the next sweep."""
    tidy: Callable[[], Awaitable[None]] = _nothing
    """Sweeps what only this process keeps. Raises StoreUnavailable."""
    now: Callable[[], Awaitable[datetime]] | None = None
    """Where they may be: the store's own clock, which is the same for all of them."""


def nobody(changes: Sequence[Change]) -> None:
    """For stores that nobody asks for pushes: nobody here caches permissions."""
