"""What the record says of the rain, in the order in which PostgreSQL committed it.

The server stamps each transaction with the instant of its commit (`track_commit_timestamp`). An operation's start holds
the head of the permission feed shared until it is committed, a change holds it alone: so these instants order the two,
with no help of casekeeper's own numbers.
"""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.postgres import selected
from tests.journeys.rain_ledger import NOBODY, Violation

OPTION = "track_commit_timestamp=on"
_TRIES, _AGAIN_S = 120, 0.5
_LATE = timedelta(seconds=1)
_RIGHTS = {"viewer": {"read"}, "editor": {"read", "write"}, "owner": {"read", "write"}, NOBODY: set[str]()}
_CHANGES = """
SELECT pg_xact_commit_timestamp(e.xmin), e.rid, 'change', e.casefile_id, e.kind, convert_from(p.body, 'UTF8')
FROM events e JOIN payloads p USING (session_id, seq)
WHERE e.kind IN ('granted', 'role_changed', 'revoked', 'expired')"""
_STARTS = """
SELECT pg_xact_commit_timestamp(e.xmin), e.rid, 'start', e.casefile_id, e.operation_name, a.user_id
FROM events e JOIN accounts a ON a.pseudonym = e.actor WHERE e.kind = 'started'"""
# What a tool has written is fenced by itself. Documents have no order with facts of the same transaction, so there they
# get the benefit of the doubt: first.
_WRITES = """
SELECT pg_xact_commit_timestamp(d.xmin), -1::bigint, 'write', d.casefile_id, d.event_id, d.created_by
FROM documents d"""
_FEED = "SELECT pg_xact_commit_timestamp(xmin) FROM acl_feed ORDER BY number"
_GAPS = "SELECT session_id FROM events GROUP BY session_id HAVING max(seq) <> count(*) OR min(seq) <> 1"
_OPEN = "SELECT event_id FROM open_operations"


@dataclass(frozen=True, slots=True)
class _Held:
    """A role as of some commit."""

    role: str
    since: datetime | None = None
    until: datetime | None = None


async def judge_record(url: str, owners: set[str], writing: set[str]) -> Counter[str]:
    """How many changes, starts and writes there are; `writing` are the operations that take an editor.

    Raises:
        Violation: Something was started or written after the right to it was gone.
    """
    rows = [row for sql in (_CHANGES, _STARTS, _WRITES) for row in await selected(url, sql)]
    rows.sort(key=lambda row: (row[0], row[1]))
    held: dict[tuple[str, str], _Held] = {}
    found = Counter[str]()
    for at, _, what, casefile_id, name, detail in rows:
        found[what] += 1
        if what == "change":
            user_id, now = _changed(at, name, json.loads(detail)["inputs"])
            held[user_id, casefile_id] = now
            continue
        found[f"{what} by {'owner' if detail in owners else 'guest'}"] += 1
        default = "owner" if detail in owners else NOBODY
        holds = held.get((detail, casefile_id), _Held(default))
        role = NOBODY if holds.until and at > holds.until + _LATE else holds.role
        needed = "write" if what == "write" or name in writing else "read"
        if needed not in _RIGHTS[role]:
            raise Violation(
                f"the record has a {what} of {name} by {detail} in {casefile_id} at {at}, who was {role}; "
                f"the last that was said of them is {holds}"
            )
    await _judge_order(url)
    return found


async def _judge_order(url: str) -> None:
    committed = [at for (at,) in await selected(url, _FEED)]
    if committed != sorted(committed):
        raise Violation("the feed is not in the order of commits")
    if gaps := await selected(url, _GAPS):
        raise Violation(f"numbers are missing in {gaps}")
    tries = 0
    while left := await selected(url, _OPEN):
        # What had lost the store tells its end as soon as it can.
        if tries == _TRIES:
            raise Violation(f"operations never ended: {left}")
        await asyncio.sleep(_AGAIN_S)
        tries += 1


def _changed(at: datetime, kind: str, inputs: dict[str, Any]) -> tuple[str, _Held]:
    if kind in ("revoked", "expired"):
        return inputs["user_id"], _Held(NOBODY, at)
    until = inputs.get("expires_at")
    return inputs["user_id"], _Held(inputs["role"], at, datetime.fromisoformat(until) if until else None)
