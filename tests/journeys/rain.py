"""Guests who try all doors all the time, and hosts who grant and revoke meanwhile."""

import asyncio
import random
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from time import monotonic, time
from typing import Any

import orjson

from casekeeper.casefiles.freshness import LEASE_S
from tests.journeys.rain_ledger import NOBODY, Ledger, Pair, Violation
from tests.journeys.rain_site import Site, Storm
from tests.journeys.support import tool_call

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
_ANSWER_S = 60.0
# On a machine that is busy otherwise it rains for longer, so that there is something to judge.
_FEW = 5
# Well below the ten minutes of a token.
_TOKEN_S = 240.0
_GUESTS, _PLACES, _HOSTS, _CALLERS = 6, 8, 4, 16
ANY_ROLE, NEEDS = {"viewer", "editor"}, {"document_list": {"viewer", "editor"}, "note_add": {"editor"}}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and when it was asked for and arrived."""

    status: int
    body: Any
    sent: float
    answered: float


class Lines:
    """Connections to the workers, kept open."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._idle: dict[int, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {
            port: [] for port in ports
        }

    async def post(
        self, worker: int, path: str, payload: Any, token: str = "", request_id: str = ""
    ) -> Reply:
        """Ask; again, where a connection that was kept turns out to be closed."""
        body = orjson.dumps({"payload": payload, **({"request_id": request_id} if request_id else {})})
        auth = f"authorization: Bearer {token}\r\n" if token else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{auth}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        port, data = self._ports[worker], head.encode() + body
        async with asyncio.timeout(_ANSWER_S):
            while self._idle[port]:
                with suppress(OSError, EOFError):
                    return await self._ask(port, *self._idle[port].pop(), data)
            return await self._ask(port, *await asyncio.open_connection("127.0.0.1", port), data)

    async def _ask(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes
    ) -> Reply:
        try:
            sent = monotonic()
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
            answered = monotonic()
        except BaseException:
            writer.transport.abort()
            raise
        self._idle[port].append((reader, writer))
        return Reply(int(head[9:12]), orjson.loads(body), sent, answered)

    def close(self) -> None:
        """Let go of all."""
        for _, writer in (one for idle in self._idle.values() for one in idle):
            writer.transport.abort()


@dataclass
class Person:
    """Somebody with an API key and tokens of any age, some of which carry scopes that are long gone."""

    user_id: str
    api_key: str
    tokens: deque[tuple[str, float]] = field(default_factory=lambda: deque[tuple[str, float]](maxlen=8))

    def token(self, rng: random.Random) -> str | None:
        """Any that is not about to end."""
        while self.tokens and self.tokens[0][1] < monotonic() - _TOKEN_S:
            self.tokens.popleft()
        return rng.choice(self.tokens)[0] if self.tokens else None


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
            reply = await self.lines.post(worker, path, payload, token, request_id)
            if reply.status != 503:
                self._take_scopes(person, reply)
                return reply
            self._must_be_excused(path, reply)
            await asyncio.sleep(0.05)

    async def log_in(self, person: Person, worker: int) -> None:
        """Get a fresh token, with some scopes."""
        some = self.rng.sample(self.places, self.rng.randint(0, len(self.places)))
        payload = {"api_key": person.api_key, "casefile_ids": some}
        reply = await self.lines.post(worker, "/v1/auth/token", payload)
        self.told["logins"] += 1
        if reply.status == 503:
            self._must_be_excused("log in", reply)
            return
        if reply.status != 200:
            raise Violation(f"a login at worker {worker} was answered {reply.status}: {reply.body}")
        person.tokens.append((reply.body["payload"]["access_token"], monotonic()))

    def _take_scopes(self, person: Person, reply: Reply) -> None:
        if reply.status == 200 and (news := reply.body["payload"].get("updated_scopes")):
            # As old as the oldest that it may come from.
            person.tokens.append((news["token"], person.tokens[0][1]))
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
        roles = {200: ANY_ROLE, 404: {NOBODY}}.get(reply.status)
        self._judge((guest.user_id, place), "get", worker, reply, roles)

    async def execute(self, guest: Person, place: str, worker: int, name: str) -> None:
        """Run a tool."""
        parameters = {"text": "rain"} if name == "note_add" else {"limit": 1}
        payload = tool_call(name, parameters, casefile_id=place)
        reply = await self.ask(guest, worker, "/v1/sessions/execute", payload)
        roles = {200: NEEDS[name], 404: {NOBODY}, 403: ANY_ROLE - NEEDS[name]}.get(reply.status)
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
            roles = ANY_ROLE if place in seen else {NOBODY}
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
        elif kind not in ("rights_lost", "role_too_low"):
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
                for _ in range(_CALLERS):
                    group.create_task(self.call(done))
                while (
                    monotonic() - began < seconds
                    or self.operations < operations
                    or len(self.storm.told) < self.storm.kinds
                    or min(self.told["execute note_add: 200"], self.told["revokes"]) < _FEW
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
