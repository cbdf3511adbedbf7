"""Claims of requests in SQL: a batch reads them once for all of its commits and writes them once at its end."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Table, bindparam, or_, select

from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.storage.rows import us
from casekeeper.storage.sql.parts import FindsHere, Part, TakesHere
from casekeeper.storage.sql.schema import integer, metadata, partial_on_sqlite, string
from casekeeper.storage.sql.statements import (
    BulkUpdate,
    ByIds,
    Question,
    Reads,
    Row,
    Static,
    Writing,
    replacing,
)

REQUESTS = Table(
    "requests",
    metadata,
    string("key", key=True),
    string("fingerprint"),
    string("made"),
    integer("expires_us", null=True),
    partial_on_sqlite("requests_made", "expires_us IS NULL", "made"),
    partial_on_sqlite("requests_expires", "expires_us IS NOT NULL", "expires_us"),
)

_c = REQUESTS.c
_KNOWN = ByIds(select(_c.key, _c.made, _c.expires_us), _c.key)
_RELEASE = BulkUpdate(REQUESTS, "made", "expires_us", where=_c.expires_us.is_(None))
_PUT = replacing(REQUESTS, "key")
_CLAIMED = Static(
    select(_c.fingerprint, _c.made).where(
        _c.key == bindparam("key"), or_(_c.expires_us.is_(None), _c.expires_us > bindparam("now"))
    )
)


class BatchClaims(Part):
    """The claims that the commits of one transaction ask for, make and release."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int | None]] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._released: dict[str, int] = {}

    def questions(self, commits: Iterable[Commit]) -> Sequence[Question]:
        """Which claims the commits ask for."""
        keys = {one.key for commit in commits for one in commit.conditions if isinstance(one, Claim)}
        return (_KNOWN.question(keys, self._know),) if keys else ()

    def _know(self, rows: list[Row]) -> None:
        self._known = {key: (made, expires_us) for key, made, expires_us in rows}

    def _live(self, claim: Claim) -> str | None:
        """What the same request has made, if it came first and is remembered still."""
        made, expires_us = self._known.get(claim.key, ("", 0))
        if expires_us is None:
            expires_us = self._released.get(made)
        return made if expires_us is None or expires_us > to_us(claim.now) else None

    def _put(self, claim: Claim) -> None:
        expires_us = us(claim.expires_at)
        # What it takes the place of needs no end any more, and two changes must not touch one row.
        former, _ = self._known.get(claim.key, ("", None))
        self._released.pop(former, None)
        self._known[claim.key] = (claim.made, expires_us)
        self._made[claim.key] = {
            "key": claim.key,
            "fingerprint": claim.fingerprint,
            "made": claim.made,
            "expires_us": expires_us,
        }

    def _release(self, record: ReleaseClaim) -> None:
        self._released[record.made] = to_us(record.expires_at)

    def changes(self) -> Sequence[Writing]:
        """How they are written."""
        for claim in self._made.values():
            # One may be released in the batch that makes it.
            released_us = self._released.pop(claim["made"], None)
            if claim["expires_us"] is None:
                claim["expires_us"] = released_us
        released = [{"made": made, "expires_us": expires_us} for made, expires_us in self._released.items()]
        return (_PUT, list(self._made.values())), (_RELEASE, released)

    finds: ClassVar[FindsHere] = {Claim: _live}
    takes: ClassVar[TakesHere] = {Claim: _put, ReleaseClaim: _release}


class SqlClaims:
    """Implements `Claims`."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads

    async def claimed(self, key: str, now: datetime) -> tuple[str, str] | None:
        row: Any = await self._reads.point(lambda tx: tx.one(_CLAIMED, key=key, now=to_us(now)))
        return row
