"""Which advisory locks a transaction takes, so that its conditions and numbers hold under concurrent writers.

They follow from what its commits say that they are about, and from nothing else.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from casekeeper.journal.commits import About


class Locks:
    """The locks on all that some commits are about."""

    def __init__(self, about: Iterable[About]) -> None:
        self._alone: dict[str, bool] = {}
        self._feed: bool | None = None
        for one in about:
            if one.kind == "feed":
                self._feed = one.alone or bool(self._feed)
            else:
                key = f"{one.kind} {one.id}"
                self._alone[key] = one.alone or self._alone.get(key, False)

    @property
    def advisory(self) -> list[tuple[int, bool]]:
        """The advisory locks in the order in which everybody takes them, each with whether it is taken alone."""
        return sorted((lock_number(key), alone) for key, alone in self._alone.items())

    @property
    def head(self) -> Literal["UPDATE", "SHARE", ""]:
        """How to lock the head of the feed, for those who take it first (`sql.feed`).

        The strongest lock at once, because to share it and want it alone later is how deadlocks begin; so it is for
        the advisory locks.
        """
        return "" if self._feed is None else "UPDATE" if self._feed else "SHARE"


# A worker writes to the same casefiles and sessions again and again.
@lru_cache(4096)
def lock_number(key: str) -> int:
    """The advisory lock that stands for something, by its kind and id."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)
