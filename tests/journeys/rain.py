"""Guests who try all doors all the time, and hosts who grant, revoke, open to the public and log out meanwhile."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import inf
from time import monotonic, time
from typing import Any

from casekeeper.casefiles.freshness import LEASE_S
from tests.journeys.rain_ledger import NOBODY, PUBLIC, READER, Ledger, Pair, Violation
from tests.journeys.rain_lines import Lines, Reply
from tests.journeys.rain_logins import Logout, Person, Token
from tests.journeys.rain_site import Site, Storm
from tests.journeys.support import tool_call

# On a machine that is busy otherwise it rains for longer, so that there is something to judge.
_FEW = 5
_WANTED = ("execute note_add: 200", "revokes", "logouts", "public roles off")
_GUESTS, _PLACES, _HOSTS, _CALLERS = 6, 8, 4, 16
# So many of the places are open to the public now and then.
_OPENED = 2
# Each logout has all of a guest's permissions read from the store again.
_LOGOUT_EVERY_S = (0.3, 2.0)
ANY_ROLE, NEEDS = {"viewer", "editor"}, {"document_list": {"viewer", "editor"}, "note_add": {"editor"}}


class Rain:
    """The whole of it, drawn from one seed."""

    def __init__(self, site: Site, storm: Storm, seed: int) -> None:
        self.site = site
        self.storm = storm
        self.rng = random.Random(seed)
        self.lines = Lines([worker.port for worker in site.workers])
        self.ledger = Ledger()
        self.told = Counter[str]()
        self.guests: list[Person] = []
        self.owner = Person("", "")
        self.places: list[str] = []
        self._requests = 0

    @property
    def operations(self) -> int:
        """How many operations were asked for."""
        return sum(self.told[f"execute {name}"] for name in NEEDS)

    async def settle_in(self) -> None:
        """Make the people and the places."""
        self.owner, *self.guests = [await self._person(f"user{number}") for number in range(_GUESTS + 1)]
        for number in range(_PLACES):
            made = await self.ask(self.owner, 0, "/v1/casefiles/create", {"title": f"Case {number}"})
            self.places.append(made.body["payload"]["casefile_id"])

    async def _person(self, name: str) -> Person:
        operator, user_id = self.site.workers[0].token, f"{name}@example.com"
        await self.lines.post(0, "/v1/accounts/create", {"user_id": user_id}, operator)
        made = await self.lines.post(0, "/v1/keys/create", {"user_id": user_id}, operator)
        return Person(user_id, made.body["payload"]["api_key"])

    # Asking

    async def ask(self, person: Person, worker: int, path: str, payload: Any, request_id: str = "") -> Reply:
        """A call with one of the person's tokens; again if the store was away."""
        while True:
            token = person.token(self.rng)
            if token is None:
                await self.log_in(person, worker)
                continue
            reply = await self.lines.post(worker, path, payload, token.text, request_id)
            if reply.status == 503:
                self._must_be_excused(path, reply)
                await asyncio.sleep(0.05)
                continue
            person.judge(token, f"{path} at worker {worker}", reply)
            if reply.status != 401:
                self._take_scopes(person, token, reply)
                return reply
            self.told["401 after a logout"] += 1

    async def log_in(self, person: Person, worker: int) -> None:
        """Get a fresh token, with some scopes."""
        some = self.rng.sample(self.places, self.rng.randint(0, len(self.places)))
        payload = {"api_key": person.api_key, "casefile_ids": some}
        reply = await self.lines.post(worker, "/v1/auth/token", payload)
        self.told["logins"] += 1
        if reply.status == 503:
            self._must_be_excused("log in", reply)
            return
        if reply.status == 401 and person.was_logged_out(reply.sent, reply.answered):
            # It was under way, and a logout ends those as well.
            self.told["logins overtaken by a logout"] += 1
            return
        if reply.status != 200:
            raise Violation(f"a login at worker {worker} was answered {reply.status}: {reply.body}")
        person.tokens.append(Token(reply.body["payload"]["access_token"], reply.sent, reply.answered))

    def _take_scopes(self, person: Person, token: Token, reply: Reply) -> None:
        if reply.status == 200 and (news := reply.body["payload"].get("updated_scopes")):
            person.tokens.append(token.child(news["token"], reply))
            self.told["tokens swapped"] += 1

    def _must_be_excused(self, what: str, reply: Reply) -> None:
        self.told["503 while the store was away"] += 1
        if not self.storm.excuses_refusal(reply.sent, reply.answered):
            raise Violation(f"{what} was answered 503, and no fault excuses it: {reply.body}")

    # Guests

    async def call(self, done: asyncio.Event) -> None:
        """Try doors until it is over."""
        while not done.is_set():
            guest, place = self.rng.choice(self.guests), self.rng.choice(self.places)
            worker, dice = self.rng.randrange(len(self.site.workers)), self.rng.random()
            if dice < 0.02:
                await self.log_in(guest, worker)
            elif dice < 0.04:
                await self.list_places(guest, worker)
            elif dice < 0.20:
                await self.get(guest, place, worker)
            else:
                await self.execute(guest, place, worker, "note_add" if dice < 0.35 else "document_list")

    async def get(self, guest: Person, place: str, worker: int) -> None:
        """Read the casefile."""
        reply = await self.ask(guest, worker, "/v1/casefiles/get", {"casefile_id": place})
        roles = {200: {*ANY_ROLE, READER}, 404: {NOBODY}}.get(reply.status)
        self._judge((guest.user_id, place), "get", worker, reply, roles)

    async def execute(self, guest: Person, place: str, worker: int, name: str) -> None:
        """Run a tool."""
        parameters = {"text": "rain"} if name == "note_add" else {"limit": 1}
        payload = tool_call(name, parameters, casefile_id=place)
        reply = await self.ask(guest, worker, "/v1/sessions/execute", payload)
        too_low = {*ANY_ROLE, READER} - NEEDS[name]
        roles = {200: NEEDS[name], 404: {NOBODY}, 403: too_low}.get(reply.status)
        if reply.status == 200:
            self._look_at(reply)
        self._judge((guest.user_id, place), f"execute {name}", worker, reply, roles)

    async def list_places(self, guest: Person, worker: int) -> None:
        """List the casefiles: each must be there or not."""
        reply = await self.ask(guest, worker, "/v1/casefiles/list", {})
        if reply.status != 200:
            raise Violation(f"a list was answered {reply.status}: {reply.body}")
        seen = {one["casefile_id"] for one in reply.body["payload"]["items"]}
        for place in self.places:
            roles = ANY_ROLE if place in seen else {NOBODY, READER}
            self._judge((guest.user_id, place), "list", worker, reply, roles)

    def _look_at(self, reply: Reply) -> None:
        payload = reply.body["payload"]
        self.told["from a cache" if payload["permission_from_cache"] else "from the store"] += 1
        if payload["success"]:
            return
        kind = payload["error"]["type"]
        self.told[f"ended by {kind}"] += 1
        # It ran when the right to it went, or the store.
        if kind == "store_unavailable":
            self._must_be_excused("an operation", reply)
        elif kind not in ("rights_lost", "role_too_low", "token_rejected"):
            raise Violation(f"an operation failed: {payload['error']}")

    def _judge(self, pair: Pair, what: str, worker: int, reply: Reply, roles: set[str] | None) -> None:
        self.told[what] += 1
        self.told[f"{what}: {reply.status}"] += 1
        if roles is None:
            raise Violation(f"{what} at worker {worker} was answered {reply.status}: {reply.body}")
        self.ledger.judge(pair, f"{what} at worker {worker}", reply.sent, reply.answered, roles)

    # Hosts

    async def change(self, pairs: Sequence[Pair], done: asyncio.Event) -> None:
        """Change these guests' roles until it is over; nobody else does."""
        while not done.is_set():
            user_id, place = pair = self.rng.choice(pairs)
            before = self.ledger.present(pair)
            role, ends_s = self._next(before.role)
            payload: dict[str, Any] = {"casefile_id": place, "user_id": user_id}
            until = inf
            if ends_s:
                ends = time() + ends_s
                until = monotonic() + ends - time()
                payload["expires_at"] = datetime.fromtimestamp(ends, UTC).isoformat()
            waits = self.rng.random() < 0.75
            payload["wait"] = "effective" if waits else "none"
            await self._make(pair, role, until, payload, waits=waits)
            if (role in (NOBODY, "viewer") and before.role == "editor") or role == NOBODY:
                await self._try_all_doors(pair)

    def _next(self, role: str) -> tuple[str, float]:
        dice, rng = self.rng.random(), self.rng
        if role != NOBODY and dice < 0.6:
            return NOBODY, 0
        ends_s = rng.uniform(0.6, 2) if rng.random() < 0.25 else 0
        return rng.choice(("viewer", "editor")), ends_s

    async def _make(
        self, pair: Pair, role: str, until: float, payload: dict[str, Any], *, waits: bool
    ) -> None:
        self._requests += 1
        verb = "revoke" if role == NOBODY else "grant"
        if role != NOBODY:
            payload["role"] = role
        made = self.ledger.begin(pair, role, monotonic(), until)
        worker = self.rng.randrange(len(self.site.workers))
        path, request_id = f"/v1/permissions/{verb}", f"change-{self._requests}"
        reply = await self.ask(self.owner, worker, path, payload, request_id)
        if reply.status == 422 and until < monotonic():
            # The end had come before it was asked for: nothing was changed.
            self.ledger.withdraw(pair)
            return
        if reply.status != 200:
            raise Violation(f"a {verb} at worker {worker} was answered {reply.status}: {reply.body}")
        self.told[f"{verb}s"] += 1
        if not waits:
            # As the documents have it: a lease later on every worker.
            await asyncio.sleep(LEASE_S)
        made.holds = monotonic()

    async def _try_all_doors(self, pair: Pair) -> None:
        guest = next(one for one in self.guests if one.user_id == pair[0])
        async with asyncio.TaskGroup() as group:
            for worker in range(len(self.site.workers)):
                group.create_task(self.get(guest, pair[1], worker))
                group.create_task(self.execute(guest, pair[1], worker, "note_add"))

    async def open_and_shut(self, done: asyncio.Event) -> None:
        """Let the public read a place, and no longer, until it is over; nobody else does."""
        while not done.is_set():
            place = self.rng.choice(self.places[:_OPENED])
            pair = (PUBLIC, place)
            role = READER if self.ledger.present(pair).role == NOBODY else NOBODY
            self._requests += 1
            made = self.ledger.begin(pair, role, monotonic())
            payload = {"casefile_id": place, "public_role": "viewer" if role == READER else "none"}
            worker, request_id = self.rng.randrange(len(self.site.workers)), f"change-{self._requests}"
            reply = await self.ask(self.owner, worker, "/v1/casefiles/update", payload, request_id)
            if reply.status != 200:
                raise Violation(f"a public role at worker {worker} was answered {reply.status}: {reply.body}")
            made.holds = monotonic()
            self.told["public roles" if role == READER else "public roles off"] += 1
            for guest in self.rng.sample(self.guests, 2) if role == NOBODY else ():
                await self._try_all_doors((guest.user_id, place))
            await asyncio.sleep(self.rng.uniform(0.1, 0.5))

    async def log_out(self, done: asyncio.Event) -> None:
        """Log a guest out everywhere now and then until it is over; nobody else does."""
        while not done.is_set():
            await asyncio.sleep(self.rng.uniform(*_LOGOUT_EVERY_S))
            guest, worker = self.rng.choice(self.guests), self.rng.randrange(len(self.site.workers))
            tokens = list(guest.tokens)
            guest.logouts.append(made := Logout(monotonic()))
            reply = await self.ask(guest, worker, "/v1/auth/logout", {})
            if reply.status != 200:
                raise Violation(f"a logout at worker {worker} was answered {reply.status}: {reply.body}")
            made.holds = monotonic()
            self.told["logouts"] += 1
            async with asyncio.TaskGroup() as group:
                for worker in range(len(self.site.workers)):
                    for token in tokens:
                        group.create_task(self._try_token(guest, token, worker))

    async def _try_token(self, guest: Person, token: Token, worker: int) -> None:
        """One of those that a logout has ended; a list asks no casefile's permission."""
        reply = await self.lines.post(worker, "/v1/casefiles/list", {}, token.text)
        if reply.status == 503:
            self._must_be_excused("a list", reply)
            return
        guest.judge(token, f"a list at worker {worker}", reply)
        self.told["tokens tried just after a logout"] += 1

    # All of it

    async def fall(self, seconds: float, operations: int) -> None:
        """Rain for so long, and until so many operations were asked for.

        Raises:
            Violation: See the ledger.
        """
        done, began = asyncio.Event(), monotonic()
        pairs = [(guest.user_id, place) for guest in self.guests for place in self.places]
        storm = asyncio.create_task(self.storm.rage())
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(_HOSTS):
                    group.create_task(self.change(pairs[number::_HOSTS], done))
                group.create_task(self.open_and_shut(done))
                group.create_task(self.log_out(done))
                for _ in range(_CALLERS):
                    group.create_task(self.call(done))
                while (
                    monotonic() - began < seconds
                    or self.operations < operations
                    or len(self.storm.told) < self.storm.kinds
                    or min(self.told[name] for name in _WANTED) < _FEW
                ):
                    if storm.done():
                        storm.result()
                    await asyncio.sleep(0.1)
                done.set()
        except ExceptionGroup as errors:
            raise next(_leaves(errors.subgroup(Violation) or errors)) from None
        finally:
            storm.cancel()
            await asyncio.gather(storm, return_exceptions=True)


def _leaves(errors: Any) -> Iterator[Exception]:
    for error in errors.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
