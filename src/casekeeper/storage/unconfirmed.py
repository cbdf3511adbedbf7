"""Unconfirmed writes: operations that were started or resumed by a commit whose acknowledgement was lost in an outage.

Such an operation may be on the record as running, owned by this process, while nobody runs it: although its process lives
it has to be treated like one whose process is gone.
"""

import asyncio
from collections.abc import Collection, Iterable
from time import monotonic

from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import OpenOperation, OwnedBy, TakeOver
from casekeeper.values import value

# A write whose answer was lost may still be under way; what is not there by then never comes.
_LATEST_S = 60.0


@value
class _Taken:
    """Who would have an operation, and by which attempt, if the write has come through."""

    owner: str
    attempt: int


class Unconfirmed:
    """The operations of which it is not known whether this process has them."""

    def __init__(self) -> None:
        self.arose = asyncio.Event()
        """Set when there is a new one: the search for orphans should run soon, and clears it."""
        self._taken: dict[str, _Taken] = {}
        self._since_s: dict[str, float] = {}

    @property
    def event_ids(self) -> frozenset[str]:
        """Those that have to be looked for."""
        return frozenset(self._taken)

    def add(self, commits: Iterable[Commit]) -> None:
        """Nobody knows whether these were written."""
        # The end of an operation, and its parking, are tried again; its start and its going on are not.
        for event_id, taken in _taken(commits):
            self._taken[event_id] = taken
            self._since_s[event_id] = monotonic()
            self.arose.set()

    def resolve(self, commits: Iterable[Commit]) -> None:
        """These were written and answered: what they take up runs, though an earlier try is unconfirmed."""
        if self._taken:
            for event_id, taken in _taken(commits):
                if self._taken.get(event_id) == taken:
                    self._forget(event_id)

    def is_lost(self, event_id: str, owner: str, attempt: int) -> bool:
        """Whether an operation that this owner has, by this attempt, is there by a write whose answer was lost."""
        return self._taken.get(event_id) == _Taken(owner, attempt)

    def looked(self, asked: Collection[str], lost: Collection[str]) -> None:
        """These were looked for and those are lost; what was not for long enough was never written, or has gone on."""
        for event_id in asked:
            if event_id not in lost and self._since_s.get(event_id, 0) < monotonic() - _LATEST_S:
                self._forget(event_id)

    def _forget(self, event_id: str) -> None:
        self._taken.pop(event_id, None)
        self._since_s.pop(event_id, None)


def _taken(commits: Iterable[Commit]) -> Iterable[tuple[str, _Taken]]:
    """The operations that these commits begin or take up."""
    for commit in commits:
        for record in commit.records:
            match record:
                case OpenOperation(event_id=event_id, owner=owner, attempt=attempt):
                    yield event_id, _Taken(owner, attempt)
                case TakeOver(operation=operation, owner=owner):
                    waited = next(
                        one
                        for one in commit.conditions
                        if isinstance(one, OwnedBy) and one.operation == operation
                    )
                    yield operation.event_id, _Taken(owner, waited.attempt + 1)
                case _:
                    pass
