"""A world of permissions with virtual time: a model store whose history is the oracle, and workers that run the real code.

Nothing here reads a clock or sleeps. One step is one thing that happens somewhere: a change is begun or committed, a
request of a worker reaches the store, its reply arrives, a push arrives, a token is minted, a check is made, an
operation is started. Everything is drawn from one seeded generator.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

from casekeeper.acl import Role
from casekeeper.acl_feed import ANY, AccessSnapshot, AclFeed, Change, FeedHead
from casekeeper.casefiles.casefile import CasefileStore, Fence, StoredAccess
from casekeeper.casefiles.freshness import LEASE_S, Freshness
from casekeeper.casefiles.grants import FoundGrant, FreshGrants, StoredGrants
from casekeeper.errors import StoreUnavailable, TokenRejected
from casekeeper.identity.principal import Principal
from casekeeper.identity.tokens import LIFETIME
from tests.journeys.permission_store import CASEFILES, EPOCH, START, Held, Pending, Store
from tests.journeys.stepping import rest_of, settle
from tests.unit.support import NOW

T = TypeVar("T")

ROLES = (Role.VIEWER, Role.EDITOR, Role.ADMIN)
USERS = ("u1", "u2", "u3")


class Violation(AssertionError):
    """The guarantee does not hold."""


@dataclass(slots=True)
class Minting:
    """A token whose permissions were read and which is not made yet."""

    user_id: str
    snapshot: AccessSnapshot


@dataclass(slots=True)
class Decided:
    """A permission on whose strength an operation may be started, some time."""

    caller: Principal
    casefile_id: str
    found: FoundGrant


@dataclass(slots=True)
class Request:
    """A question on its way to the store, or its answer on the way back."""

    look: Callable[[], Any]
    reply: "asyncio.Future[Any]"
    answer: Any = None


class Wire:
    """What a worker asks the store. Implements `AclFeed` and the one read that permissions need."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.is_cut = False
        self.asked: list[Request] = []
        self.answered: list[Request] = []

    def cut(self) -> None:
        """The process at this end is gone."""
        self.is_cut = True
        self.drop(self.asked)
        self.drop(self.answered)

    def drop(self, requests: list[Request]) -> None:
        """These get no answer."""
        for request in requests:
            if not request.reply.done():
                request.reply.set_exception(StoreUnavailable("dropped"))
        requests.clear()

    async def _ask(self, look: Callable[[], T]) -> T:
        if self.world.is_down or self.is_cut:
            raise StoreUnavailable("down")
        if self.world.chance("at once"):
            return look()
        request = Request(look, asyncio.get_running_loop().create_future())
        self.asked.append(request)
        return await request.reply

    async def head(self) -> FeedHead:
        return await self._ask(lambda: FeedHead(EPOCH, self.world.store.number))

    async def changes(self, after: int) -> Sequence[Change]:
        return await self._ask(lambda: self.world.store.changes(after))

    async def number_before(self, instant_us: int) -> int:
        instant = instant_us / 1_000_000 - START
        return await self._ask(lambda: self.world.store.number_before(instant))

    async def user_changed(self, user_id: str) -> int:
        return await self._ask(lambda: self.world.store.newest.get((ANY, user_id), 0))

    async def snapshot(self, user_id: str, casefile_ids: Collection[str], now_us: int) -> AccessSnapshot:
        raise NotImplementedError

    async def access(self, user_id: str, casefile_id: str) -> StoredAccess | None:
        return await self._ask(lambda: self.world.store.access(user_id, casefile_id))


class Worker:
    """A process: its own clock, its own knowledge."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.offset = world.rng.uniform(-1e6, 1e6)
        self.wire = Wire(world)
        self.pushes: list[Change] = []
        plan = world.plan
        feed: AclFeed = self.wire
        self.freshness = plan.freshness(
            feed, world.wall, monotonic=lambda: world.now + self.offset, pairs_kept=plan.pairs_kept
        )
        stored = StoredGrants(cast(CasefileStore, self.wire), world.wall)
        self.grants = plan.grants(stored, self.freshness, world.wall, remembered_max=4)


@dataclass(frozen=True)
class Plan:
    """Which code runs; a fault is planted by giving another part."""

    freshness: type[Freshness] = Freshness
    grants: type[FreshGrants] = FreshGrants
    fence: type[Fence] = Fence
    numbers_before_commit: bool = False
    asof_after_read: bool = False
    pairs_kept: int = 7


STEPS = (
    "tick",
    "pause",
    "long pause",
    "begin change",
    "commit change",
    "begin mint",
    "end mint",
    "push",
    "serve",
    "reply",
    "check",
    "execute",
    "outage",
    "recovery",
    "restart",
)
USUAL = (15, 0.4, 0.02, 3, 3, 6, 6, 4, 25, 25, 90, 15, 0.1, 6, 0.1)


class World:
    """One story: so many steps, with weights of its own (swarm testing)."""

    def __init__(self, rng: random.Random, plan: Plan) -> None:
        self.rng = rng
        self.plan = plan
        self.now = 1000.0
        self.is_down = False
        self.tick_s = rng.choice((0.001, 0.005, 0.02, 0.08))
        self.weights = [weight * rng.choice((0.3, 1, 1, 4)) for weight in USUAL]
        self.odds = {
            "at once": rng.choice((0, 0.5, 0.9)),
            "lost": rng.choice((0, 0.1, 1)),
            "doubled": rng.choice((0, 0.3)),
            "late": rng.choice((0, 0.5)),
            "ends": rng.choice((0, 0.5)),
        }
        self.store = Store(self, numbers_before_commit=plan.numbers_before_commit)
        self.workers = [Worker(self) for _ in range(rng.choice((1, 2, 3)))]
        self.pending: list[Pending] = []
        self.minting: list[Minting] = []
        self.tokens: list[Principal] = []
        self.decided: list[Decided] = []
        self.checks: set[asyncio.Task[None]] = set()
        self.violation: Violation | None = None
        self.allowed = {"token": 0, "worker": 0, "store": 0}
        self.refused = self.started = self.fenced = 0
        for casefile_id in CASEFILES:
            for user_id in USERS:
                if rng.random() < 0.8:
                    granted = self.store.grants[casefile_id, user_id]
                    granted.put(0, Held(rng.choice(ROLES)))

    def wall(self) -> datetime:
        """The wall clock."""
        return NOW + timedelta(seconds=self.now)

    def chance(self, what: str) -> bool:
        """Whether it happens this time."""
        return self.rng.random() < self.odds[what]

    async def run(self, steps: int) -> None:
        """Let that much happen.

        Raises:
            Violation: The guarantee was broken.
        """
        happen = [getattr(self, f"_{name.replace(' ', '_')}") for name in STEPS]
        try:
            for step in self.rng.choices(happen, self.weights, k=steps):
                # No two steps happen at the same instant, so before and after are never in doubt.
                self.now += 1e-6
                waits = step()
                if waits:
                    await settle()
                if self.violation:
                    raise self.violation
        finally:
            for worker in self.workers:
                worker.wire.cut()
            while self.checks:
                await settle()
            await settle()

    # Time and trouble

    def _tick(self) -> bool:
        self.now += self.rng.expovariate(1 / self.tick_s)
        return True

    def _pause(self) -> bool:
        self.now += self.rng.uniform(0.1, 2)
        return True

    def _long_pause(self) -> bool:
        self.now += self.rng.uniform(60, 1500)
        oldest = self.wall() - LIFETIME
        self.tokens = [token for token in self.tokens if token.expires_at > oldest + LIFETIME]
        return True

    def _outage(self) -> bool:
        self.is_down = True
        for worker in self.workers:
            worker.wire.drop(worker.wire.asked)
        return True

    def _recovery(self) -> bool:
        self.is_down = False
        return False

    def _restart(self) -> bool:
        index = self.rng.randrange(len(self.workers))
        self.workers[index].wire.cut()
        self.workers[index] = Worker(self)
        return True

    # Changes

    def _begin_change(self) -> bool:
        rng, store = self.rng, self.store
        casefile_id, user_id = rng.choice(CASEFILES), rng.choice(USERS)
        kind = rng.choices(("grant", "revoke", "public", "delete", "end"), (12, 8, 3, 2, 2))[0]
        grants = store.grants[casefile_id, user_id]
        if kind == "grant":
            ends_at = self.now + rng.choice((0.1, 0.5, 3)) if self.chance("ends") else None
            held = Held(rng.choice(ROLES), ends_at)
            pending = Pending(casefile_id, user_id, lambda _: grants.put(self.now, held))
        elif kind == "revoke":
            pending = Pending(casefile_id, user_id, lambda _: grants.put(self.now, Held(None)))
        elif kind == "public":
            held, public = Held(rng.choice((None, Role.VIEWER))), store.public[casefile_id]
            pending = Pending(casefile_id, ANY, lambda _: public.put(self.now, held))
        elif kind == "delete":
            pending = Pending(casefile_id, ANY, lambda _: self._delete(casefile_id))
        else:
            ended = store.ended[user_id]
            pending = Pending(ANY, user_id, lambda number: ended.append((self.now, number)))
        if self.plan.numbers_before_commit:
            store.drawn += 1
            pending.number = store.drawn
        self.pending.append(pending)
        return False

    def _delete(self, casefile_id: str) -> None:
        """All grants go at once, under one number; whoever is granted one later has a casefile again."""
        self.store.public[casefile_id].put(self.now, Held(None))
        for user_id in USERS:
            self.store.grants[casefile_id, user_id].put(self.now, Held(None))

    def _commit_change(self) -> bool:
        if not self.pending or self.is_down:
            return False
        change = self.store.commit(self._any(self.pending))
        for worker in self.workers:
            if self.chance("lost"):
                continue
            if self.chance("late"):
                worker.pushes.append(change)
            else:
                worker.freshness.push([change])
            if self.chance("doubled"):
                worker.pushes.append(change)
        return False

    def _push(self) -> bool:
        worker = self.rng.choice(self.workers)
        if worker.pushes:
            worker.freshness.push([self._any(worker.pushes)])
        return False

    # Tokens

    def _begin_mint(self) -> bool:
        if not self.is_down:
            user_id = self.rng.choice(USERS)
            self.minting.append(Minting(user_id, self.store.snapshot(user_id)))
        return False

    def _end_mint(self) -> bool:
        if not self.minting:
            return False
        minting = self._any(self.minting)
        asof = self.store.number if self.plan.asof_after_read else minting.snapshot.asof
        scopes = minting.snapshot.scopes
        ends = self.wall() + LIFETIME
        self.tokens.append(
            Principal(
                minting.user_id,
                "p",
                is_operator=False,
                epoch=EPOCH,
                asof=asof,
                expires_at=ends,
                scopes=scopes,
            )
        )
        del self.tokens[:-8]
        return False

    # Requests

    def _serve(self) -> bool:
        wire = self.rng.choice(self.workers).wire
        if wire.asked and not self.is_down:
            request = self._any(wire.asked)
            request.answer = request.look()
            wire.answered.append(request)
        return False

    def _reply(self) -> bool:
        wire = self.rng.choice(self.workers).wire
        if not wire.answered:
            return False
        request = self._any(wire.answered)
        if not request.reply.done():
            request.reply.set_result(request.answer)
        return True

    def _any(self, of: list[T]) -> T:
        return of.pop(self.rng.randrange(len(of)))

    # What it is all about

    def _check(self) -> bool:
        if not self.tokens:
            return False
        worker, token = self.rng.choice(self.workers), self.rng.choice(self.tokens)
        check = self._checked(worker, token, self.rng.choice(CASEFILES))
        # Most checks never wait; a task each would cost more than all else.
        try:
            first = check.send(None)
        except StopIteration:
            return False
        task = asyncio.ensure_future(rest_of(check, first))
        self.checks.add(task)
        task.add_done_callback(self.checks.discard)
        return True

    async def _checked(self, worker: Worker, token: Principal, casefile_id: str) -> None:
        begun = self.now
        try:
            if not await worker.freshness.stands(token.user_id, token.epoch, token.asof):
                self.refused += 1
                return
            self._judge_standing(token, min(begun, self.now - LEASE_S))
            begun_finding = self.now
            found = await worker.grants.find(token, casefile_id)
        except (StoreUnavailable, TokenRejected):
            self.refused += 1
            return
        if found is None:
            self.refused += 1
            self._judge_absence(token, casefile_id, begun_finding)
            return
        self.allowed[found.source] += 1
        since = begun_finding if found.source == "store" else min(begun, self.now - LEASE_S)
        self._judge(found, token, casefile_id, since)
        self.decided.append(Decided(token, casefile_id, found))
        del self.decided[:-10]

    def _judge(self, found: FoundGrant, token: Principal, casefile_id: str, since: float) -> None:
        if found.role is None:
            if not self.store.public[casefile_id].was(Role.VIEWER, since, self.now):
                self._broken(f"{token.user_id} reads {casefile_id}, which is not public")
            return
        if not self.store.grants[casefile_id, token.user_id].was(found.role, since, self.now):
            self._broken(f"{token.user_id} is {found.role} in {casefile_id} by {found.source}, since {since}")
        held = found.ends_at or _end(token, casefile_id, found)
        if found.source != "store" and held is not None and self.wall() >= held:
            self._broken(f"{token.user_id} is let into {casefile_id} by {found.source} after the grant's end")

    def _judge_standing(self, token: Principal, since: float) -> None:
        if any(number > token.asof and at < since for at, number in self.store.ended[token.user_id]):
            self._broken(f"a token of {token.user_id} stands which was ended before {since}")

    def _judge_absence(self, token: Principal, casefile_id: str, since: float) -> None:
        if not self.store.grants[casefile_id, token.user_id].lacked(since, self.now):
            self._broken(f"{token.user_id} has a grant in {casefile_id} and is refused")

    def _execute(self) -> bool:
        if not self.decided or self.is_down:
            return False
        decided, store = self._any(self.decided), self.store
        user_id, casefile_id, found = decided.caller.user_id, decided.casefile_id, decided.found
        fence = self.plan.fence(user_id, casefile_id, found.asof)
        if fence.refusal(store.newest_of(user_id, casefile_id)) is not None:
            self.fenced += 1
            return False
        self.started += 1
        held = store.public[casefile_id] if found.role is None else store.grants[casefile_id, user_id]
        if held.held[-1].role is not (found.role or Role.VIEWER):
            self._broken(f"an operation of {user_id} started in {casefile_id} after the revoke")
        if any(number > decided.caller.asof for _, number in store.ended[user_id]):
            self._broken(f"an operation of {user_id} started after its token was ended")
        return False

    def _broken(self, how: str) -> None:
        self.violation = self.violation or Violation(f"at {self.now}: {how}")


def _end(token: Principal, casefile_id: str, found: FoundGrant) -> datetime | None:
    scope = token.scopes.get(casefile_id) if found.source == "token" else None
    return (
        None
        if scope is None or scope.not_after is None
        else datetime.fromtimestamp(scope.not_after, NOW.tzinfo)
    )


@dataclass
class Tally:
    """What happened in all stories together."""

    steps: int = 0
    token: int = 0
    worker: int = 0
    store: int = 0
    refused: int = 0
    started: int = 0
    fenced: int = 0

    def add(self, world: World, steps: int) -> None:
        """Count a story in."""
        self.steps += steps
        self.token += world.allowed["token"]
        self.worker += world.allowed["worker"]
        self.store += world.allowed["store"]
        self.refused += world.refused
        self.started += world.started
        self.fenced += world.fenced


async def simulate(seed: int, steps: int, plan: Plan = Plan(), *, story: int = 2_000) -> Tally:
    """Many stories, until so many steps have been made.

    Raises:
        Violation: One broke the guarantee; its seed is in the message.
    """
    tally, number = Tally(), 0
    while tally.steps < steps:
        world = World(random.Random(f"{seed}/{number}"), plan)
        try:
            await world.run(story)
        except Violation as broken:
            raise Violation(f"seed {seed}, story {number}, {broken}") from None
        tally.add(world, story)
        number += 1
    return tally
