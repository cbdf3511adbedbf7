"""Imports a bundle into a store: validated first, invisible until it is complete, validated again before it is shown.

Facts, documents and blobs are written while there is no casefile in which they could be seen; the last commit makes
the casefile, its grants and its people. What a try leaves behind that broke off is found and completed by the next.
"""

from collections.abc import Mapping
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from casekeeper.acl import Grant
from casekeeper.acl_feed import ANY
from casekeeper.bundles.archive import BundleUnfit
from casekeeper.bundles.contents import Counts, parts
from casekeeper.bundles.intake import Intake
from casekeeper.bundles.integrity import Judged, judge, must_be_intact
from casekeeper.bundles.people import People, people_of
from casekeeper.casefiles.casefile import CasefileIsAbsent, PutCasefile, PutGrant
from casekeeper.clock import Clock
from casekeeper.errors import CasefileExists
from casekeeper.identity.accounts import Account, AccountAbsent, PutAccount, StoredAccount
from casekeeper.ids import new_event_id
from casekeeper.journal.adoption import ChainBroken, ChainEndsAt
from casekeeper.journal.commits import Commit, PermissionChanged, Superseded
from casekeeper.journal.events import Fact, Kind, Payload
from casekeeper.sessions.recording import Recording
from casekeeper.storage.store import Storage
from casekeeper.values import value
from casekeeper.verify import verify

_IN_MEMORY = 16 * 1024 * 1024


@value
class Imported:
    """What has come in. `is_new` is false where all of it was there already."""

    casefile_id: str
    counts: Counts
    is_new: bool
    new_accounts: tuple[str, ...] = ()


class Importing:
    """Takes bundles in for whoever holds the store."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        # `of_session` asks nobody for permission, so there is no manager to give.
        self._recording = Recording(storage.events, storage.blobs, cast(Any, None))

    async def take(self, file: BinaryIO, caller: Account, mapped: Mapping[str, str]) -> Imported:
        """Take in all of the bundle or nothing; a repeat does nothing.

        Raises:
            BundleUnfit: It is damaged, or the remains of another import are in the way.
            CasefileExists: There is a casefile of that id with another record, or was one.
            StoreUnavailable: The store cannot write; a repeat goes on where it was.
        """
        judged = judge(file)
        must_be_intact(judged)
        casefile_id = judged.lists.head.casefile_id
        if await self._storage.casefiles.casefile(casefile_id) is not None:
            await self._must_have_all(judged)
            return Imported(casefile_id, judged.counts, is_new=False)
        # It may have been here and been deleted.
        await self._storage.commits.commit(Commit(conditions=(CasefileIsAbsent(casefile_id),)))
        people = await people_of(self._storage.accounts, judged.lists.people, mapped, self._clock())
        file.seek(0)
        intake = Intake(self._storage, casefile_id, people)
        try:
            for part in parts(file):
                await intake.take(part)
        except (Superseded, ChainBroken) as error:
            raise BundleUnfit(f"what is left of another import of {casefile_id} is in the way") from error
        await intake.finish()
        await self._must_be_there(judged)
        await self._show(judged, people, caller)
        return Imported(casefile_id, judged.counts, True, tuple(account.user_id for account in people.new))

    async def _must_have_all(self, judged: Judged) -> None:
        """Of a casefile that is here, every session ends where the bundle's does, or further on."""
        for session_id, summary in judged.records.items():
            rows = await self._storage.events.record(session_id, summary.head_seq - 1, 1)
            if [(row[0], row[2].hex()) for row in rows] != [(summary.head_seq, summary.head_hash)]:
                raise CasefileExists(
                    f"There is a casefile {summary.casefile_id} here, and its record is another: "
                    f"{session_id} has no such fact {summary.head_seq}."
                )

    async def _must_be_there(self, judged: Judged) -> None:
        """What was written is read back: the same chains, as many documents."""
        casefile_id, counts = judged.lists.head.casefile_id, judged.counts
        for session_id, expected in judged.records.items():
            with SpooledTemporaryFile(_IN_MEMORY) as lines:
                async for line in self._recording.of_session(casefile_id, session_id):
                    lines.write(line)
                lines.seek(0)
                report = verify(lines)
            if report.findings or report.sessions != (expected,):
                raise BundleUnfit(f"{session_id} was not taken in as it is in the bundle")
        found = await self._storage.documents.counts(casefile_id)
        if (found.documents, found.bytes) != (counts.documents, counts.bytes):
            raise BundleUnfit("the documents were not taken in as they are in the bundle")

    async def _show(self, judged: Judged, people: People, caller: Account) -> None:
        casefile = judged.lists.casefile
        session_id, now = casefile.record_session_id or "", self._clock()
        end = judged.records[session_id]
        fact = Fact(
            casefile_id=casefile.casefile_id,
            session_id=session_id,
            event_id=new_event_id(now),
            kind=Kind.IMPORTED,
            actor=caller.pseudonym,
            started_at=now,
            payload=Payload.of_fields(inputs={"format": "bundle", "people": people.changed}),
        )
        conditions = (
            CasefileIsAbsent(casefile.casefile_id),
            ChainEndsAt(casefile.casefile_id, session_id, end.head_seq, bytes.fromhex(end.head_hash)),
            *(AccountAbsent(account.user_id) for account in people.new),
        )
        records = (
            *(PutAccount(StoredAccount(account, None)) for account in people.new),
            PutCasefile(casefile.model_copy(update={"owner": people.of(casefile.owner)})),
            *(PutGrant(grant) for grant in _grants(judged.lists.grants, people)),
            PermissionChanged(casefile.casefile_id, ANY, Kind.IMPORTED, now),
        )
        await self._storage.commits.commit(Commit((fact,), conditions, records))


def _grants(grants: list[Grant], people: People) -> list[Grant]:
    """The grants for the accounts here. Where two people became one account, the higher role counts."""
    by_user: dict[str, Grant] = {}
    for grant in grants:
        user_id = people.of(grant.user_id)
        here = grant.model_copy(update={"user_id": user_id, "granted_by": people.of(grant.granted_by)})
        if user_id not in by_user or not by_user[user_id].role.covers(grant.role):
            by_user[user_id] = here
    return list(by_user.values())
