"""Which locks a transaction takes, so that it is judged and numbered as if nobody else wrote."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from casekeeper.casefiles.casefile import Fence
from casekeeper.identity.accounts import AccountStands
from casekeeper.journal.stream import Commit, Condition, PermissionChanged, Record

# Where a record keeps what it writes.
_HOLDERS = ("casefile", "grant", "session", "document", "upload", "row")


def _named_by(part: Condition | Record) -> list[str]:
    """What a condition looks at or a record writes, beyond the sessions of the facts."""
    named: list[str] = []
    for one in (part, *(getattr(part, name, None) for name in _HOLDERS)):
        if casefile_id := getattr(one, "casefile_id", None):
            named.append(f"casefile {casefile_id}")
    if key := getattr(part, "key", None):
        named.append(f"claim {key}")
    if type(part).__module__.startswith("casekeeper.identity"):
        stored = getattr(part, "stored", None)
        names = ("user_id", "family", "digest", "key_id")
        named += [f"{name} {getattr(part, name)}" for name in names if getattr(part, name, None)]
        if stored is not None:
            named.append(f"user_id {stored.account.user_id}")
    return named


def wanted_locks(commits: Iterable[Commit]) -> tuple[list[int], Literal["UPDATE", "SHARE", ""]]:
    """The advisory locks of these commits, in the order in which everybody takes them, and how to lock the feed's head.

    How is for those who take the head first (`sql_feed`): the strongest lock at once, because to share it and want it
    alone later is how deadlocks begin.
    """
    keys = set[str]()
    changes = fenced = False
    for commit in commits:
        keys.update(f"casefile {fact.casefile_id}" for fact in commit.facts)
        for part in (*commit.conditions, *commit.records):
            keys.update(_named_by(part))
            changes = changes or isinstance(part, PermissionChanged)
            fenced = fenced or isinstance(part, Fence | AccountStands)
    return sorted(lock_number(key) for key in keys), "UPDATE" if changes else "SHARE" if fenced else ""


def lock_number(key: str) -> int:
    """The advisory lock that stands for something."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
