"""Claims of requests as one batch meets them: read once for all of its commits, written once at its end."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.many import BulkUpdate, ByIds
from casekeeper.storage.sql.statements import Bulk, Question, Row, Writing
from casekeeper.storage.sql.writing import us

_CLAIMED = ByIds(select(t.requests.c.key, t.requests.c.made, t.requests.c.expires_us), t.requests.c.key)
_RELEASE = BulkUpdate(t.requests, "made", "expires_us", where=t.requests.c.expires_us.is_(None))


def _replace(new: Insert) -> ClauseElement:
    changed = {column.name: new.excluded[column.name] for column in t.requests.c if column.name != "key"}
    return new.on_conflict_do_update(index_elements=["key"], set_=changed)


_PUT = Bulk(t.requests, _replace)


class BatchClaims:
    """The claims that the commits of one transaction ask for, make and release."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int | None]] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._released: dict[str, int] = {}

    def questions(self, commits: Iterable[Commit]) -> Sequence[Question]:
        """Which claims the commits ask for."""
        keys = {one.key for commit in commits for one in commit.conditions if isinstance(one, Claim)}
        return (_CLAIMED.question(keys, self._know),) if keys else ()

    def _know(self, rows: list[Row]) -> None:
        self._known = {key: (made, expires_us) for key, made, expires_us in rows}

    def live(self, claim: Claim) -> str | None:
        """What the same request has made, if it came first and is remembered still."""
        made, expires_us = self._known.get(claim.key, ("", 0))
        if expires_us is None:
            expires_us = self._released.get(made)
        return made if expires_us is None or expires_us > to_us(claim.now) else None

    def put(self, claim: Claim) -> None:
        """Claim a request."""
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

    def release(self, record: ReleaseClaim) -> None:
        """Let a claim end in time."""
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
