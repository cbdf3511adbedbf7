"""How commits become durable in SQL: conditions checked, facts numbered and chained, records written.

One batch is one transaction. Its commits are judged in order, each seeing what those before it wrote, so a refused
one drops out alone before anything of it is numbered. What most commits ask for and add is read and written once for all
of them, by the parts of a batch; every other condition and record has a statement of its own. Each concept's module says
which of its own there are (`FINDS`, `WRITES`, `finds` and `takes` of its part): a new concept is added here and nowhere else.
"""

from collections.abc import Sequence

from casekeeper.acl_feed import Change
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Sealed
from casekeeper.storage.sql import accounts, blobs, casefiles, documents, operations, sessions, sweeping
from casekeeper.storage.sql.casefiles import BatchStatuses
from casekeeper.storage.sql.facts import BatchFacts
from casekeeper.storage.sql.feed import BatchFeed
from casekeeper.storage.sql.operations import BatchOperations
from casekeeper.storage.sql.parts import Finds, Writes
from casekeeper.storage.sql.requests import BatchClaims
from casekeeper.storage.sql.statements import Tx
from casekeeper.storage.sql.things import BatchThings

_FINDS: Finds = accounts.FINDS | blobs.FINDS | casefiles.FINDS | sessions.FINDS
_WRITES: Writes = (
    accounts.WRITES
    | blobs.WRITES
    | casefiles.WRITES
    | documents.WRITES
    | operations.WRITES
    | sessions.WRITES
    | sweeping.WRITES
)
# Facts come last: so do the heads of their sessions, whose count `flush` looks at.
_PARTS = (BatchClaims, BatchFeed, BatchThings, BatchStatuses, BatchOperations, BatchFacts)
_FOUND_IN = {asked: (n, find) for n, part in enumerate(_PARTS) for asked, find in part.finds.items()}
_TAKEN_BY = {record: (n, take) for n, part in enumerate(_PARTS) for record, take in part.takes.items()}


class Batch:
    """The commits of one transaction. `changes` of permissions are there after `flush`."""

    def __init__(self, tx: Tx, *, holds_feed: bool = True) -> None:
        """`holds_feed`: the head of the permission feed is held from the beginning, or nobody else writes; otherwise
        it is taken last, and `flush` may find the batch overtaken.
        """
        self.changes: Sequence[Change] = ()
        self._tx = tx
        self._facts = BatchFacts()
        self._feed = BatchFeed(tx, is_held=holds_feed)
        operations = BatchOperations(tx, self._facts.newest)
        self._parts = (BatchClaims(), self._feed, BatchThings(tx), BatchStatuses(tx), operations, self._facts)

    def prepare(self, commits: Sequence[Commit]) -> None:
        """Read what most of these commits ask for: where sessions stand, which operations are open, and the like.

        Nobody else may write what they are about from here on, which is the caller's business.
        """
        self._tx.ask([question for part in self._parts for question in part.questions(commits)])

    def add(self, commit: Commit) -> Sequence[Sealed]:
        """Judge one commit, which was prepared, and take it in.

        Raises:
            Refused: A condition does not hold; nothing of this commit was written.
            Superseded: Likewise, because of a race.
        """
        for condition in commit.conditions:
            kind = type(condition)
            if kind in _FOUND_IN:
                part, find = _FOUND_IN[kind]
                found = find(self._parts[part], condition)
            else:
                found = _FINDS[kind](self._tx, condition)
            refusal = condition.refusal(found)
            if refusal is not None:
                raise refusal
        self._feed.accept(commit)
        sealed = [self._facts.seal(fact) for fact in commit.facts]
        for record in commit.records:
            kind = type(record)
            if kind in _TAKEN_BY:
                part, take = _TAKEN_BY[kind]
                take(self._parts[part], record)
            if kind in _WRITES or kind not in _TAKEN_BY:
                _WRITES[kind](self._tx, record)
        return sealed

    def flush(self) -> None:
        """Write what was numbered; the transaction can be committed then.

        Raises:
            Overtaken: It must be rolled back; a batch that holds the feed is never overtaken.
        """
        self._tx.settle()
        changes = [change for part in self._parts for change in part.changes() if change[1]]
        counts, head = self._tx.write(changes, self._feed.last)
        self._facts.check(counts)
        self.changes = self._feed.settle(head)
