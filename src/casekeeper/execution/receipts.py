"""What a revoke answers with: what it has stopped, and what it waited for (docs/decisions/0013)."""

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from casekeeper.acl import Role
from casekeeper.acl_feed import Receipt
from casekeeper.casefiles.freshness import LEASE_S
from casekeeper.execution.runner import Runner
from casekeeper.journal.operations import OpenedOperation, OpenOperation
from casekeeper.operations.registry import Registry
from casekeeper.policy import Ruling

_PATIENCE_S = 1.0
_LOOK_S = 0.02


class OpenStore(Protocol):
    """Where operations that have not ended are found, whoever runs them."""

    async def open_of(self, casefile_id: str | None, user_id: str | None) -> Sequence[OpenedOperation]:
        """Those of this casefile, this user, or both."""
        ...


class Stopping:
    """Implements `Stops` for all workers: this one is told, the others hear of the change and are watched."""

    def __init__(self, runner: Runner, store: OpenStore, registry: Registry, *, is_shared: bool) -> None:
        """`is_shared`: other processes let people in by caches of their own, for at most a lease."""
        self._runner = runner
        self._store = store
        self._registry = registry
        self._is_shared = is_shared

    async def stop(
        self, reason: str, *, casefile_id: str | None = None, user_id: str | None = None, waits: bool = True
    ) -> Receipt:
        """End what runs here, and see what becomes of the rest.

        The change is committed, so nothing starts any more under the permission that is gone: what is open now is all.

        Raises:
            StoreUnavailable: What runs elsewhere cannot be read; the change stands.
        """
        self._runner.stop(reason, casefile_id=casefile_id, user_id=user_id)
        return await self._seen(casefile_id, user_id, lambda _: True, waits=waits)

    async def lowered(
        self, casefile_id: str, user_id: str, role: Role, tags: frozenset[str], *, waits: bool = True
    ) -> Receipt:
        """See what becomes of the operations that a user's new role does not cover; every worker judges its own.

        Raises:
            StoreUnavailable: What runs cannot be read; the change stands.
        """

        def is_lost(one: OpenOperation) -> bool:
            operation = self._registry.named(one.operation_type, one.operation_name)
            if operation is None:
                return False
            return self._registry.policy.decide(operation, role, tags).ruling is not Ruling.ALLOW

        return await self._seen(casefile_id, user_id, is_lost, waits=waits)

    async def settle(self) -> None:
        """Wait a lease: a worker that has not heard of the change by then believes none of its caches."""
        if self._is_shared:
            await asyncio.sleep(LEASE_S)

    async def _seen(
        self, casefile_id: str | None, user_id: str | None, is_lost: "_Judge", *, waits: bool
    ) -> Receipt:
        began = monotonic()
        open_ = await self._open(casefile_id, user_id, is_lost)
        left = open_
        if waits:
            await self.settle()
            while left and monotonic() - began < _PATIENCE_S:
                await asyncio.sleep(_LOOK_S)
                now_open = await self._open(casefile_id, user_id, is_lost)
                left = {event_id: owner for event_id, owner in now_open.items() if event_id in open_}
        unconfirmed: dict[str, tuple[str, ...]] = {}
        for event_id, owner in left.items():
            unconfirmed[owner] = (*unconfirmed.get(owner, ()), event_id)
        return Receipt(tuple(event_id for event_id in open_ if event_id not in left), unconfirmed)

    async def _open(self, casefile_id: str | None, user_id: str | None, is_lost: "_Judge") -> dict[str, str]:
        found = await self._store.open_of(casefile_id, user_id)
        return {one.row.event_id: one.row.owner for one in found if is_lost(one.row)}


_Judge = Callable[[OpenOperation], bool]
