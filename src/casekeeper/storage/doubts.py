"""What an outage leaves behind: starts of operations whose answer was lost.

Such an operation may be on the record as running. Whoever asked for it was told that it was not started, so nobody runs it,
and although its process lives it has to be ended like one whose process is gone.
"""

import asyncio
from collections.abc import Collection, Iterable
from time import monotonic

from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import OpenOperation

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
                # Whoever ends an operation tries again; whoever starts one does not.
                if isinstance(record, OpenOperation):
                    self._since_s[record.event_id] = monotonic()
                    self.arose.set()

    def looked(self, asked: Collection[str], found: Collection[str]) -> None:
        """These were looked for and those were there; what was not for long enough was never written."""
        for event_id in asked:
            if event_id not in found and self._since_s.get(event_id, 0) < monotonic() - _LATEST_S:
                self._since_s.pop(event_id, None)
