"""Stopping what another process runs: it is asked through the store, where the one that runs it looks."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from casekeeper.errors import Unavailable
from casekeeper.execution.runner import Runner
from casekeeper.journal.events import Kind

EVERY = timedelta(milliseconds=250)
"""How late a process notices that it was asked, while it runs anything at all."""

_log = logging.getLogger("casekeeper.stops")


class StopStore(Protocol):
    """Where it is asked."""

    async def asked_to_stop(self, owner: str) -> Sequence[tuple[str, str]]:
        """Event ids of an owner's open operations that were asked to stop, and why."""
        ...


async def heed_stops(store: StopStore, runner: Runner, owner: str) -> None:
    """Stop what runs here and was asked to, until cancelled."""
    is_away = False
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        if not runner.all():
            continue
        try:
            asked = await store.asked_to_stop(owner)
        except Unavailable as error:
            if not is_away:
                _log.warning("what was asked to stop could not be looked up (%s); trying again", error)
            is_away = True
            continue
        is_away = False
        for event_id, reason in asked:
            if running := runner.find(event_id):
                running.stop(Kind.CANCELLED, "cancelled", reason)
