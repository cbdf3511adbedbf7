"""What an outage leaves behind: starts of operations, and takings up of waiting ones, whose answer was lost.

Such an operation may be on the record as running, owned by this process, while nobody runs it: although its process lives
it has to be treated like one whose process is gone.
"""

import asyncio
from collections.abc import Collection, Iterable
from time import monotonic

from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import OpenOperation, TakeOver

# A write whose answer was lost may still be under way; what is not there by then never comes.
_LATEST_S = 60.0


class Doubts:
    """The operations of this process of which it is not known whether they were opened."""

    def __init__(self) -> None:
        self.arose = asyncio.Event()
        """Set when there is a new one: whoever looks for orphans should do so soon, and clears it."""
        self._since_s: dict[str, float] = {}

    @property
    def event_ids(self) -> frozenset[str]:
        """Those that have to be looked for."""
        return frozenset(self._since_s)

    def add(self, commits: Iterable[Commit]) -> None:
        """Nobody knows whether these were written."""
        for commit in commits:
            for record in commit.records:
                # The end of an operation is tried again; its start and its going on are not.
                match record:
                    case OpenOperation(event_id=event_id):
                        self._note(event_id)
                    case TakeOver(operation):
                        self._note(operation.event_id)
                    case _:
                        pass

    def _note(self, event_id: str) -> None:
        self._since_s[event_id] = monotonic()
        self.arose.set()

    def looked(self, asked: Collection[str], found: Collection[str]) -> None:
        """These were looked for and those were there; what was not for long enough was never written."""
        for event_id in asked:
            if event_id not in found and self._since_s.get(event_id, 0) < monotonic() - _LATEST_S:
                self._since_s.pop(event_id, None)
