"""Facts as the SQL stores select them, and the user ids of their actors."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Select, func, select

from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.statements import IsInJson, Reads, Static, Tx

_e, _p = t.events.c, t.payloads
asked = t.payloads.alias("asked")
"""The payload of the fact that started what this one ends."""

HEADER = (_e.session_id, _e.seq, _e.at_us, _e.header, _e.hash, _e.actor)
"""A fact without its payload, in the order of `StoredFact`, with the actor's pseudonym in place of the user id."""

_PAYLOAD = (_p.c.salt, _p.c.body, _p.c.blob, func.coalesce(_p.c.size, 0))
_ASKED = (
    asked.c.body.label("asked_body"),
    asked.c.blob.label("asked_blob"),
    func.coalesce(asked.c.size, 0).label("asked_size"),
)

_NAMES = Static(
    select(t.accounts.c.pseudonym, t.accounts.c.user_id).where(IsInJson(t.accounts.c.pseudonym, "actors"))
)
# Past it the names are read anew, which only costs a look-up a page.
_NAMES_KEPT = 100_000


def facts(*before: Any) -> Select[*tuple[Any, ...]]:
    """Selects other columns and then facts with their payloads, in the order of `StoredFact`."""
    return (
        select(*before, *HEADER, *_PAYLOAD, *_ASKED)
        .select_from(t.events)
        .outerjoin(_p, (_p.c.session_id == _e.session_id) & (_p.c.seq == _e.seq))
        .outerjoin(asked, (asked.c.session_id == _e.session_id) & (asked.c.seq == _e.started_seq))
    )


class Names:
    """The user ids of pseudonyms, which never change."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self._known: dict[str, str] = {}

    async def of(self, actors: Iterable[str]) -> Mapping[str, str]:
        """The user ids of these pseudonyms and of others; pseudonyms without an account are missing."""
        wanted = set(actors)
        if wanted <= self._known.keys():
            return self._known
        return await self._reads.point(lambda tx: self.within(tx, wanted))

    def within(self, tx: Tx, actors: Iterable[str]) -> Mapping[str, str]:
        """The same, as part of another read."""
        known, wanted = self._known, set(actors)
        if unknown := wanted - known.keys():
            if len(known) > _NAMES_KEPT:
                known.clear()
                unknown = wanted
            found = tx.all(_NAMES, actors=json.dumps(sorted(unknown)))
            known.update((pseudonym, user_id) for pseudonym, user_id in found)
        return known
