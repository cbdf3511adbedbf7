"""Opens the room of documents: reading, filing, searching and deleting."""

from functools import partial

from casekeeper.background import each
from casekeeper.casefiles.opening import CasefileRoom
from casekeeper.documents.blobs import BlobStore
from casekeeper.documents.casefile_documents import CasefileDocuments
from casekeeper.documents.chain_of_custody import ChainOfCustody
from casekeeper.documents.document import DocumentStore, FencedWrite
from casekeeper.documents.filing import UPLOAD_KEPT, Filing
from casekeeper.documents.search import SearchStore
from casekeeper.journal.opening import Journal
from casekeeper.reading.readers import Readers
from casekeeper.values import value


@value
class DocumentOptions:
    """What a deployment decides about documents; sizes in bytes, of casefiles 0 for no limit."""

    upload_bytes: int = 2 * 1024**3
    casefile_bytes: int = 0
    record_reads: bool = True


@value
class DocumentRoom:
    """Documents of casefiles."""

    options: DocumentOptions
    journal: Journal
    store: DocumentStore
    search: SearchStore
    blobs: BlobStore
    readers: Readers
    filing: Filing
    custody: ChainOfCustody

    def of_operation(
        self, casefile_id: str, user_id: str, event_id: str, write: FencedWrite
    ) -> CasefileDocuments:
        """A casefile's documents, as an operation that runs in it sees and adds to them."""
        return CasefileDocuments(
            self.store,
            self.search,
            self.blobs,
            self.readers,
            self.journal.cursors,
            self.journal.clock,
            casefile_id=casefile_id,
            user_id=user_id,
            event_id=event_id,
            write=write,
            bytes_max=self.options.casefile_bytes,
        )

    async def sweep(self) -> None:
        """Forget uploads that nobody filed, and bytes that no commit has named by the time that uploads are kept."""
        await each(self.filing.sweep, partial(self.blobs.sweep, self.journal.clock() - UPLOAD_KEPT))


def open_documents(
    options: DocumentOptions,
    journal: Journal,
    casefiles: CasefileRoom,
    store: DocumentStore,
    search: SearchStore,
    blobs: BlobStore,
    readers: Readers,
) -> DocumentRoom:
    """The room."""
    gate, commits, clock = casefiles.gate, journal.commits, journal.clock
    filing = Filing(
        gate,
        store,
        blobs,
        commits,
        journal.requests,
        journal.cursors,
        clock,
        upload_limit=options.upload_bytes,
    )
    custody = ChainOfCustody(
        gate,
        casefiles.changing,
        casefiles.store,
        store,
        blobs,
        commits,
        clock,
        records_reads=options.record_reads,
    )
    return DocumentRoom(options, journal, store, search, blobs, readers, filing, custody)
