"""The bus between the processes of one store: Redis, where an address names one. Nothing depends on it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from casekeeper.acl_feed import Change, Pushes
from casekeeper.clock import Clock
from casekeeper.execution.rate_limits import Count, Shared
from casekeeper.journal.events import Sealed
from casekeeper.journal.feed import LiveFeed
from casekeeper.storage.addresses import check_redis


class Bus(Shared, Protocol):
    """Announces to the other processes what was committed here, and to this one what was committed there."""

    @property
    def is_up(self) -> bool:
        """Whether it can be reached just now."""
        ...

    def announce(self, sealed: Sequence[Sealed]) -> None:
        """Facts were committed here."""
        ...

    def push(self, changes: Sequence[Change]) -> None:
        """Permissions were changed here."""
        ...

    def running(
        self, epoch: str, counted: Callable[[], Iterable[Count]]
    ) -> AbstractAsyncContextManager[None]:
        """At work for the processes of one store. `counted`: what this one has counted, should it be forgotten there."""
        ...


def find_bus(address: str | None, owner: str, live: LiveFeed, pushes: Pushes, clock: Clock) -> Bus | None:
    """The bus at an address, not yet running; None without one. `owner` is this process.

    Raises:
        SettingsInvalid: There is no such bus.
        PackageUnusable: Its library is not installed.
    """
    if not address:
        return None
    check_redis(address)
    from casekeeper.storage.bus.redis_bus import RedisBus

    return RedisBus(address, owner, live, pushes, clock=clock)
