"""Ends what runs for somebody who lost the right to it: whoever took it, in whichever process, or its own end."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from casekeeper.acl_feed import ANY, Change
from casekeeper.casefiles.casefile import CasefileStore
from casekeeper.clock import Clock
from casekeeper.errors import Unavailable
from casekeeper.execution.runner import Runner
from casekeeper.journal.events import Kind
from casekeeper.journal.feed import LiveFeed

EVERY = timedelta(milliseconds=500)
"""How late the end of a grant is noticed, and a change that no push told of."""

_log = logging.getLogger("casekeeper.rights")

_Pair = tuple[str, str]


class Rights:
    """Judges running operations again when a permission has changed or ended, and wakes those who follow a record.

    Their next step would be refused anyway; this is for what waits, computes or talks to somebody else.
    """

    def __init__(
        self, runner: Runner, store: CasefileStore, live: LiveFeed, clock: Clock, *, is_shared: bool
    ) -> None:
        """`is_shared`: other processes change permissions as well, and a push of theirs may be lost."""
        self._runner = runner
        self._store = store
        self._live = live
        self._clock = clock
        self._is_shared = is_shared
        self._due: set[_Pair] = set()
        self._woken = asyncio.Event()
        self._is_away = False

    def changed(self, changes: Sequence[Change]) -> None:
        """Look at whom these changes are about."""
        for change in changes:
            self._due.update(
                (casefile_id, user_id)
                for casefile_id, user_id in self._pairs()
                if change.casefile_id in (ANY, casefile_id) and change.user_id in (ANY, user_id)
            )
        self._live.wake()
        self._woken.set()

    async def watch(self) -> None:
        """Judge until cancelled."""
        while True:
            try:
                async with asyncio.timeout(EVERY.total_seconds()):
                    await self._woken.wait()
            except TimeoutError:
                pass
            self._woken.clear()
            for pair in self._due | self._ended() | (self._pairs() if self._is_shared else set[_Pair]()):
                try:
                    await self._judge(*pair)
                    self._due.discard(pair)
                    self._is_away = False
                except Unavailable as error:
                    # It stays due; meanwhile nothing that it does can be written.
                    self._due.add(pair)
                    if not self._is_away:
                        _log.warning("a permission could not be looked up (%s); trying again", error)
                    self._is_away = True

    def _pairs(self) -> set[_Pair]:
        return {(running.fact.casefile_id, running.user_id) for running in self._runner.all()}

    def _ended(self) -> set[_Pair]:
        now = self._clock()
        return {
            (running.fact.casefile_id, running.user_id)
            for running in self._runner.all()
            if running.ends_at is not None and running.ends_at <= now
        }

    async def _judge(self, casefile_id: str, user_id: str) -> None:
        stored = await self._store.access(user_id, casefile_id)
        grant = stored.grant if stored and stored.grant and stored.grant.is_live(self._clock()) else None
        tags = stored.tags if stored else frozenset[str]()
        for running in self._runner.all():
            if (running.fact.casefile_id, running.user_id) != (casefile_id, user_id):
                continue
            if grant is None or not running.may_go_on(grant.role, tags):
                running.stop(Kind.CANCELLED, "rights_lost", "The permission for it was lost.")
            else:
                running.ends_at = grant.expires_at
