"""Redis between the processes of one store: hints by publish and subscribe, and the counts of rate limits.

A hint only says “read again”, or raises the number of a permission's newest change: one that is lost, doubled or late
makes nothing wrong, and the store is asked all the same. Whatever happens to Redis is noticed here and nowhere else: no
call of it raises, and none is waited for but by `exchange`, whose callers have a limit of their own.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
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
from casekeeper.execution.telling import Heard, Told
from casekeeper.journal.events import Sealed
from casekeeper.journal.feed import LiveFeed
from casekeeper.storage.redis_address import check

# Not all of it has types.
_driver: Any = redis.asyncio
_OUTAGES = (RedisError, OSError, TimeoutError)
# Longer than anybody waits, so that a pause of this process's own is not taken for an outage.
_ANSWER_S: Final = 0.5
_CONNECT_S: Final = 1.0
_AGAIN_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
# After a loss all processes are back by then: the longest pause between tries, and one try.
_SETTLED_S: Final = 3.0
_PACE_S: Final = 0.005
_QUIET_S: Final = 5.0
# This minute's counts are asked for in the next one, too.
_KEPT_S: Final = 150

# KEYS: for each count its hash for this minute and the one for the minute before, with a number for each process.
# ARGV: the process, seconds to keep; for each count: limit, share of the minute before that counts, and this
# process's number in this minute, in the one before, and how many it wants on top.
_EXCHANGE = """
local function others(key)
  local sum, all = 0, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if all[i] ~= ARGV[1] then sum = sum + tonumber(all[i + 1]) end
  end
  return sum
end
local heard = {}
for i = 0, #KEYS / 2 - 1 do
  local this, last = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local limit, inside, now, before, wanted = unpack(ARGV, 5 * i + 3, 5 * i + 7)
  local others_now, others_before = others(this), others(last)
  local counted = others_now + now + (others_before + before) * inside
  local granted = math.max(0, math.min(tonumber(wanted), math.ceil(limit - counted)))
  redis.call('HSET', this, ARGV[1], now + granted)
  redis.call('EXPIRE', this, ARGV[2])
  if tonumber(before) > 0 then
    redis.call('HSET', last, ARGV[1], before)
    redis.call('EXPIRE', last, ARGV[2])
  end
  heard[#heard + 1] = granted
  heard[#heard + 1] = others_now
  heard[#heard + 1] = others_before
end
return heard
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
        *,
        clock: Clock = utc_now,
    ) -> None:
        """`answer_s`: after how many seconds without an answer Redis counts as unavailable.

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
        self._script: Any = self._client.register_script(_EXCHANGE)
        self._owner = owner
        self._answer_s = answer_s
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
        """See `Wire`."""
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

    async def exchange(self, told: Sequence[Told]) -> Sequence[Heard] | None:
        """See `Wire`."""
        if not self.is_up or not told:
            return None
        keys = [key for one in told for key in (self._key(one, 0), self._key(one, 1))]
        values = [
            number for one in told for number in (one.amount, one.inside, one.now, one.before, one.wanted)
        ]
        try:
            async with asyncio.timeout(self._answer_s):
                heard: list[int] = await self._script(keys=keys, args=[self._owner, _KEPT_S, *values])
        except _OUTAGES as error:
            self._lose(error)
            return None
        return [Heard(*heard[at : at + 3]) for at in range(0, len(heard), 3)]

    @asynccontextmanager
    async def running(self, epoch: str, back: Callable[[], None]) -> AsyncGenerator[None]:
        """See `Bus`. Begins without Redis where that does not answer within a second."""
        # Another store, or this one after a restore, numbers its changes otherwise.
        self._prefix = f"casekeeper:{epoch}"
        keeping = asyncio.create_task(self._keep(back))
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

    async def _keep(self, back: Callable[[], None]) -> None:
        """Come back whenever the connection is lost, until cancelled."""
        tries = 0
        while True:
            self._lost.clear()
            subscription = self._client.pubsub(ignore_subscribe_messages=True)
            try:
                await self._begin(subscription)
                self._tried.set()
                tries = 0
                back()
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

    async def _begin(self, subscription: Any) -> None:
        async with asyncio.timeout(_CONNECT_S):
            seconds, us = await self._client.time()
            offset_s = seconds + us / 1_000_000 - self._clock().timestamp()
            # Less is most likely the way there; a number that changes at each return would move the minutes' borders.
            self.offset_s = offset_s if abs(offset_s) > _CONNECT_S else 0.0
            await subscription.subscribe(self._channel)
            # So that whoever asks first need not wait for a connection and for the script to be loaded.
            await self._script(keys=[], args=[])
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

    def _key(self, told: Told, ago: int) -> str:
        # Names of people do not leave the store.
        digest = hashlib.blake2b(told.key.encode(), digest_size=16).hexdigest()
        return f"{self._prefix}:{told.name}:{digest}:{told.minute - ago}"
