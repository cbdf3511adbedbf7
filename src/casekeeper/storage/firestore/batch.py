"""How a commit joins a batch: its conditions are checked, its facts numbered and hashed, its records written.

Each concept's module says which conditions and records of its own there are (`FINDS`, `WRITES`, `AHEAD`): a new concept is
added here and nowhere else.
"""

from collections.abc import Iterable, Sequence

from casekeeper.casefiles.casefile import OpenRecordSession, PutCasefile
from casekeeper.journal.adoption import AdoptFacts
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import Sealed
from casekeeper.journal.operations import OpenOperation
from casekeeper.journal.requests import Claim
from casekeeper.sessions.adoption import AdoptSession
from casekeeper.sessions.session import PutSession
from casekeeper.storage.firestore import (
    accounts,
    casefiles,
    documents,
    facts,
    feed,
    operations,
    requests,
    sessions,
    things,
)
from casekeeper.storage.firestore.parts import Ahead, Finds, Writes
from casekeeper.storage.firestore.view import View

_FINDS: Finds = (
    accounts.FINDS
    | casefiles.FINDS
    | facts.FINDS
    | feed.FINDS
    | operations.FINDS
    | requests.FINDS
    | sessions.FINDS
    | things.FINDS
)
# In the order in which those of one commit are written: a grant behind its casefile, an operation's claim is released
# before its row goes.
_WRITES: Writes = (
    casefiles.WRITES
    | sessions.WRITES
    | requests.WRITES
    | feed.WRITES
    | accounts.WRITES
    | operations.WRITES
    | documents.WRITES
    | things.WRITES
)
_AHEAD: Ahead = (
    casefiles.AHEAD
    | documents.AHEAD
    | feed.AHEAD
    | operations.AHEAD
    | requests.AHEAD
    | sessions.AHEAD
    | things.AHEAD
)
_ORDER = {type_: place for place, type_ in enumerate(_WRITES)}
# Written before the facts of their commit, which may be the new session's first.
_MAKES_SESSIONS = (PutCasefile, OpenRecordSession, PutSession, AdoptSession)


def paths_of(commit: Commit) -> Iterable[str]:
    """What a commit will certainly ask for, to be read at once."""
    casefile_ids = {fact.session_id: fact.casefile_id for fact in commit.facts}
    for one in (*commit.conditions, *commit.records):
        if ahead := _AHEAD.get(type(one)):
            yield from ahead(one, casefile_ids)


async def judge(view: View, commit: Commit, nonce: str) -> Sequence[Sealed]:
    """Take a commit into the batch.

    Raises:
        Refused: A condition does not hold; the view is to be thrown away.
        Superseded: Likewise, because of a race.
        LookupError: It asks for what cannot be.
    """
    for condition in commit.conditions:
        refusal = condition.refusal(await _FINDS[type(condition)](view, condition))
        if refusal is not None:
            raise refusal
    records = sorted(
        (record for record in commit.records if not isinstance(record, OpenOperation | AdoptFacts)),
        key=lambda record: _ORDER[type(record)],
    )
    for record in records:
        if isinstance(record, _MAKES_SESSIONS):
            await _WRITES[type(record)](view, record)
    sealed = [await facts.seal(view, fact, nonce) for fact in commit.facts]
    for record in commit.records:
        if isinstance(record, AdoptFacts):
            await facts.adopt(view, record, nonce)
        if isinstance(record, OpenOperation):
            claim = next((r.key for r in records if isinstance(r, Claim) and r.made == record.event_id), None)
            operations.begin(view, record, sealed[-1], claim)
    for record in records:
        if not isinstance(record, _MAKES_SESSIONS):
            await _WRITES[type(record)](view, record)
    return sealed
