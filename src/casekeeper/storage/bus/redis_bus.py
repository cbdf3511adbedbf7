"""Redis between the processes of one store: hints by publish and subscribe, and the counts of rate limits.

A hint only says “read again”, or raises the number of a permission's newest change: one that is lost, doubled or late
makes nothing wrong, and the store is asked all the same. Whatever happens to Redis is noticed here and nowhere else: no
call of it raises, and none is waited for but by `take`, and that for a tenth of a second.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import redis.asyncio
from pydantic import BaseModel, ValidationError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from casekeeper.acl_feed import Change, Pushes
from casekeeper.clock import Clock, utc_now
from casekeeper.execution.rate_limits import Count, Spent, Taken
from casekeeper.journal.events import Sealed
from casekeeper.journal.feed import LiveFeed
from casekeeper.storage.redis_address import check

# Not all of it has types.
_driver: Any = redis.asyncio
_OUTAGES = (RedisError, OSError, TimeoutError)
_TAKE_S: Final = 0.1
# Longer than anybody waits, so that a pause of this process's own is not taken for an outage.
_ANSWER_S: Final = 0.5
_CONNECT_S: Final = 1.0
_AGAIN_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
# After a loss all processes are back by then: the longest pause between tries, and one try.
_SETTLED_S: Final = 3.0
_PACE_S: Final = 0.005
_LANES: Final = 16
# Counts that are sent at once when Redis is back.
_BATCH: Final = 200
_QUIET_S: Final = 5.0
# This minute's counts are asked for in the next one, too.
_KEPT_S: Final = 150

# KEYS: for each count its hash for this minute and the one for the minute before, with a number for each process.
# ARGV: the process, seconds to keep, share of the minute before that counts, 1 if one more is to be counted; for each
# count: limit, and what this process knows to have counted in this minute and in the one before. It is more than stands
# here where Redis was unavailable or has lost its memory.
_TAKE = """
local function total(key, own)
  if tonumber(own) > (tonumber(redis.call('HGET', key, ARGV[1])) or 0) then
    redis.call('HSET', key, ARGV[1], own)
    redis.call('EXPIRE', key, ARGV[2])
  end
  local sum = 0
  for _, number in ipairs(redis.call('HVALS', key)) do sum = sum + number end
  return sum
end
local granted, spent = tonumber(ARGV[4]), {}
for i = 0, #KEYS / 2 - 1 do
  local limit, own_now, own_before = unpack(ARGV, 3 * i + 5, 3 * i + 7)
  local now, before = total(KEYS[2 * i + 1], own_now), total(KEYS[2 * i + 2], own_before)
  if limit - now - before * ARGV[3] <= 0 then granted = 0 end
  spent[#spent + 1] = now
  spent[#spent + 1] = before
end
if granted == 1 then
  for i = 1, #KEYS, 2 do
    redis.call('HINCRBY', KEYS[i], ARGV[1], 1)
    redis.call('EXPIRE', KEYS[i], ARGV[2])
  end
end
return {granted, unpack(spent)}
"""

_log = logging.getLogger("casekeeper.redis")


class _News(BaseModel):
    """What one process tells the others: who it is, where it wrote facts, and whose permissions it changed."""

    sender: str
    sessions: list[str]
    changes: list[tuple[int, str, str]]


class RedisBus:
    """Implements `Bus`."""

    def __init__(
        self,
        address: str,
        owner: str,
        live: LiveFeed,
        pushes: Pushes,
        answer_s: float = _ANSWER_S,
        take_s: float = _TAKE_S,
        *,
        clock: Clock = utc_now,
    ) -> None:
        """After `answer_s` seconds without an answer Redis counts as unavailable; nobody waits longer than `take_s`.

        Raises what `redis_address.check` does.
        """
        check(address)
        parts = urlsplit(address)
        self._name = f"Redis at {parts.hostname}:{parts.port or 6379}"
        self._client: Any = _driver.from_url(
            address,
            # We try again ourselves, and sooner tell those who wait.
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=None,
            protocol=2,
        )
        self._script: Any = self._client.register_script(_TAKE)
        # A call takes a connection for itself.
        self._lanes = asyncio.Semaphore(_LANES)
        self._taking: set[asyncio.Task[list[int] | None]] = set()
        self._owner = owner
        self._answer_s = answer_s
        self._take_s = take_s
        self._clock = clock
        self._live = live
        self._pushes = pushes
        self._prefix = ""
        self._sessions: set[str] = set()
        self._changes: list[Change] = []
        self._news = asyncio.Event()
        self._lost = asyncio.Event()
        self._tried = asyncio.Event()
        self._settled_at_s = float("-inf")
        self.is_up = False
        self.offset_s = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether it is there, and all processes have had time to come back to it."""
        return self.is_up and monotonic() >= self._settled_at_s

    def announce(self, sealed: Sequence[Sealed]) -> None:
        """See `Bus`."""
        self._live.announce(sealed)
        if self.is_up:
            self._sessions.update(s.fact.session_id for s in sealed)
            self._news.set()

    def push(self, changes: Sequence[Change]) -> None:
        """See `Bus`."""
        self._pushes(changes)
        if self.is_up and changes:
            self._changes += changes
            self._news.set()

    async def take(self, counts: Sequence[Count], inside: float) -> Taken | None:
        """See `Shared`."""
        if not self.is_settled:
            return None
        # It goes on behind the deadline: that no answer comes at all is how an outage is noticed.
        taking = asyncio.create_task(self._take(counts, inside))
        self._taking.add(taking)
        taking.add_done_callback(self._taking.discard)
        await asyncio.wait({taking}, timeout=self._take_s)
        found = taking.result() if taking.done() else None
        if found is None:
            return None
        granted, *spent = found
        pairs = zip(counts, spent[::2], spent[1::2], strict=True)
        return Taken(bool(granted), [Spent(count.amount, now, before) for count, now, before in pairs])

    async def _take(self, counts: Sequence[Count], inside: float) -> list[int] | None:
        try:
            async with asyncio.timeout(self._answer_s), self._lanes:
                return await self._send_counts(counts, inside, 1)
        except _OUTAGES as error:
            self._lose(error)
            return None

    async def _send_counts(self, counts: Sequence[Count], inside: float, wanted: int) -> list[int]:
        keys = [key for one in counts for key in (self._key(one, 0), self._key(one, 1))]
        own = [number for one in counts for number in (one.amount, one.now, one.before)]
        return await self._script(keys=keys, args=[self._owner, _KEPT_S, inside, wanted, *own])

    @asynccontextmanager
    async def running(self, epoch: str, counted: Callable[[], Iterable[Count]]) -> AsyncGenerator[None]:
        """See `Bus`. Begins without Redis where that does not answer within a second."""
        # Another store, or this one after a restore, numbers its changes otherwise.
        self._prefix = f"casekeeper:{epoch}"
        keeping = asyncio.create_task(self._keep(counted))
        await self._tried.wait()
        try:
            yield
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            with suppress(*_OUTAGES):
                if self.is_up and self._news.is_set():
                    await self._send()
                await self._client.aclose()
            self.is_up = False

    async def _keep(self, counted: Callable[[], Iterable[Count]]) -> None:
        """Come back whenever the connection is lost, until cancelled."""
        tries = 0
        while True:
            self._lost.clear()
            subscription = self._client.pubsub(ignore_subscribe_messages=True)
            try:
                await self._begin(subscription, list(counted()))
                self._tried.set()
                tries = 0
                await self._work(subscription)
            except _OUTAGES as error:
                self._lose(error)
            finally:
                self._tried.set()
                with suppress(*_OUTAGES):
                    await subscription.aclose()
            with suppress(*_OUTAGES):
                await self._client.connection_pool.disconnect()
            # Not all at once: they have lost it all at once.
            await asyncio.sleep(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)] * random.uniform(0.5, 1))  # noqa: S311
            tries += 1

    async def _begin(self, subscription: Any, counts: Sequence[Count]) -> None:
        async with asyncio.timeout(_CONNECT_S):
            seconds, us = await self._client.time()
            offset_s = seconds + us / 1_000_000 - self._clock().timestamp()
            # Less is most likely the way there; a number that changes at each return would move the minutes' borders.
            self.offset_s = offset_s if abs(offset_s) > _CONNECT_S else 0.0
            await subscription.subscribe(self._channel)
            # Even where there is nothing to send: so the first caller does not wait for the script to be loaded.
            for at in range(0, max(1, len(counts)), _BATCH):
                await self._send_counts(counts[at : at + _BATCH], 0, 0)
        if self._tried.is_set():
            _log.warning("%s is back", self._name)
            self._settled_at_s = monotonic() + _SETTLED_S
        self.is_up = True

    async def _work(self, subscription: Any) -> None:
        """Until the connection is lost, which one of the three notices and tells by an error."""
        tasks = [
            asyncio.create_task(work)
            for work in (self._listen(subscription), self._publish(), self._lost.wait())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, subscription: Any) -> None:
        while True:
            message = await subscription.get_message(timeout=None)
            if message is not None:
                # Whoever else writes there is not to be trusted with our liveness.
                with suppress(ValidationError):
                    self._hear(_News.model_validate_json(message["data"]))

    def _hear(self, news: _News) -> None:
        if news.sender != self._owner:
            self._live.heard(news.sessions)
            self._pushes([Change(*change) for change in news.changes])

    async def _publish(self) -> None:
        while True:
            try:
                async with asyncio.timeout(_QUIET_S):
                    await self._news.wait()
            except TimeoutError:
                # A connection that nobody uses may be dead for long.
                async with asyncio.timeout(self._answer_s):
                    await self._client.ping()
                continue
            await self._send()
            # A burst of commits becomes one message.
            await asyncio.sleep(_PACE_S)

    async def _send(self) -> None:
        sessions, changes = frozenset(self._sessions), list(self._changes)
        told = [(change.number, change.casefile_id, change.user_id) for change in changes]
        news = _News(sender=self._owner, sessions=list(sessions), changes=told)
        async with asyncio.timeout(self._answer_s):
            await self._client.publish(self._channel, news.model_dump_json())
        # Only now: who is stopped in between sends it once more, which does no harm.
        self._sessions -= sessions
        del self._changes[: len(changes)]
        if not self._sessions and not self._changes:
            self._news.clear()

    def _lose(self, error: BaseException) -> None:
        if self.is_up or not self._tried.is_set():
            reason = str(error) or type(error).__name__
            _log.warning("%s cannot be used (%s); going on without it, and trying again", self._name, reason)
        self.is_up = False
        self._sessions.clear()
        self._changes.clear()
        self._lost.set()

    @property
    def _channel(self) -> str:
        return f"{self._prefix}:news"

    def _key(self, count: Count, ago: int) -> str:
        # Names of people do not leave the store.
        digest = hashlib.blake2b(count.key.encode(), digest_size=16).hexdigest()
        return f"{self._prefix}:{count.name}:{digest}:{count.minute - ago}"
