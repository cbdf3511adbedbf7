"""Faults that are planted in all servers of a rain, which must notice them: a test that cannot fail proves nothing.

They change the code of the process in which they are planted, and of no other.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from casekeeper.casefiles.casefile import Fence
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.grants import FreshGrants
from casekeeper.clock import AgreedClock
from casekeeper.execution.stopping import Stopping


def _deaf(self: Freshness, changes: Any) -> None:
    """Hear of nothing but by polls."""


def _for_five_seconds(self: Any, sent: float) -> None:
    self._lease = self._due = sent + 5


async def _at_once(self: Stopping) -> None:
    await asyncio.sleep(0)


def _pass(self: Fence, found: Any) -> Exception | None:
    return None


def _for_ever(self: FreshGrants, ends_at: datetime | None) -> bool:
    return True


async def _always(self: Freshness, user_id: str, epoch: str, asof: int) -> bool:
    return True


async def _not_at_all(self: AgreedClock, store_now: Any) -> None:
    await store_now()


_FAULTS: dict[str, list[tuple[type, str, Callable[..., Any]]]] = {
    "": [],
    "a lease of five seconds, and no pushes": [
        (Freshness, "push", _deaf),
        (Freshness, "_extend", _for_five_seconds),
    ],
    "a revoke does not wait, and no pushes": [(Freshness, "push", _deaf), (Stopping, "settle", _at_once)],
    "no fence": [(Fence, "refusal", _pass)],
    "tokens outlive logouts": [(Freshness, "stands", _always)],
    "grants have no end": [(FreshGrants, "_is_live", _for_ever)],
    "each goes by its own clock": [(AgreedClock, "ask", _not_at_all)],
}
FAULTS = [name for name in _FAULTS if name]


def plant(name: str) -> None:
    """Plant a fault in this process."""
    for kind, method, instead in _FAULTS[name]:
        setattr(kind, method, instead)
