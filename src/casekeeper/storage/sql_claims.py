"""Claims of requests as one batch meets them: read once for all of its commits, written once at its end."""

import json
from collections.abc import Iterable

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects.postgresql import Insert
from sqlalchemy.sql import ClauseElement

from casekeeper.clock import to_us
from casekeeper.journal.commits import Commit
from casekeeper.journal.requests import Claim, ReleaseClaim
from casekeeper.storage import sql_schema as t
from casekeeper.storage.sql_statements import Bulk, IsInJson, Parameters, Static, Tx
from casekeeper.storage.sql_writing import us

_CLAIMED = Static(
    select(t.requests.c.key, t.requests.c.made, t.requests.c.expires_us).where(
        IsInJson(t.requests.c.key, "keys")
    )
)
_RELEASE = Static(
    update(t.requests)
    .where(t.requests.c.made == bindparam("made_"), t.requests.c.expires_us.is_(None))
    .values(expires_us=bindparam("expires"))
)


def _replace(new: Insert) -> ClauseElement:
    changed = {column.name: new.excluded[column.name] for column in t.requests.c if column.name != "key"}
    return new.on_conflict_do_update(index_elements=["key"], set_=changed)


_PUT = Bulk(t.requests, _replace)


class BatchClaims:
    """The claims that the commits of one transaction ask for, make and release."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self._known: dict[str, tuple[str, int | None]] = {}
        self._made: dict[str, Parameters] = {}
        self._released: dict[str, int] = {}

    def prepare(self, commits: Iterable[Commit]) -> None:
        """Read the claims that the commits ask for."""
        keys = {one.key for commit in commits for one in commit.conditions if isinstance(one, Claim)}
        if keys:
            rows = self._tx.all(_CLAIMED, keys=json.dumps(sorted(keys)))
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

    def settle(self) -> None:
        """Write them, the new ones first: one may be released in the batch that makes it."""
        self._tx.bulk(_PUT, list(self._made.values()))
        self._tx.many(
            _RELEASE, [{"made_": made, "expires": expires_us} for made, expires_us in self._released.items()]
        )
