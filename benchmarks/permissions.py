"""What checking a permission costs, and how often the store is asked, while permissions change."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Row
from casekeeper.acl import Grant, Role
from casekeeper.casefiles.casefile import PutGrant
from casekeeper.casefiles.commands import CreateCasefile
from casekeeper.identity.accounts import Account, PutAccount, StoredAccount
from casekeeper.identity.principal import Principal
from casekeeper.ids import new_pseudonym
from casekeeper.journal.commits import Commit, PermissionChanged, Record
from casekeeper.journal.events import Kind
from casekeeper.journal.requests import Ask
from casekeeper.operations.operation import EVERYWHERE
from casekeeper.operations.policy import Ruling
from casekeeper.server import Server, open_server
from casekeeper.settings import Settings

USERS, CASEFILES = 500, 20
"""Together 10,000 grants, any of which may change."""
ACTIVE = 200
"""Of which so many are in use."""
CHECKS_S = 500
_TICK_S = 0.01
_COSTS = 20_000

_Pair = tuple[str, str]


@dataclass
class _Client:
    """A user at work: keeps a token and swaps it as clients do."""

    token: str


def permissions(folder: Path, seconds: float) -> list[Row]:
    """Checks at a steady rate under three rates of change, and what one check costs when nothing changes."""
    return asyncio.run(_measured(folder, max(seconds, 3.0)))


async def _measured(folder: Path, seconds: float) -> list[Row]:
    async with open_server(Settings(data=folder, limit_user=0, limit_casefile=0)) as server:
        bench = _Bench(server)
        await bench.fill()
        rows = [await bench.cost()]
        for changes_s, among, aim in ((1, "all", 99.0), (100, "all", 95.0), (100, "those in use", None)):
            saved, told = await bench.rain(
                changes_s, seconds, bench.pairs if among == "all" else bench.active
            )
            name = f"checks saved, {changes_s}/s of {among}"
            rows.append(Row(name, f"{saved:.1f} %  {told}", against="%", aim=aim, measured=saved))
        return rows


class _Bench:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._chance = random.Random(7)
        self._clients: dict[str, _Client] = {}
        self.pairs: list[_Pair] = []
        self.active: list[_Pair] = []

    async def fill(self) -> None:
        """People and casefiles, everybody in all of them; some at work, with tokens."""
        server, now = self._server, self._server.clock()
        users = [f"user{number}@example.com" for number in range(USERS)]
        accounts = [Account(user_id=user, created_at=now, pseudonym=new_pseudonym()) for user in users]
        await server.storage.commits.commit(
            Commit(records=[PutAccount(StoredAccount(account, None)) for account in accounts])
        )
        owner = await self._caller(
            (await server.identity.logins.mint_for(server.settings.operator)).access_token
        )
        for number in range(CASEFILES):
            command = CreateCasefile(title=f"Number {number}")
            made, _ = await server.casefiles.commands.create(
                owner, command, Ask(owner.user_id, "bench", f"bench-{number}")
            )
            self.pairs += [(made.casefile_id, user) for user in users]
        for start in range(0, len(self.pairs), 500):
            await self._change(self.pairs[start : start + 500], Role.EDITOR)
        self.active = self._chance.sample(self.pairs, ACTIVE)
        for _, user_id in self.active:
            self._clients[user_id] = _Client((await server.identity.logins.mint_for(user_id)).access_token)
        for pair in self.active:
            await self._check(pair)

    async def cost(self) -> Row:
        """Processor time of WHO, WHERE and WHAT from the token."""
        server = self._server
        operation = await server.execution.work.admitting.registry.named("tool", "note_add", EVERYWHERE)
        assert operation is not None
        casefile_id, user_id = self.active[0]
        token, before = self._clients[user_id].token, server.casefiles.freshness.counters.store
        began = time.process_time()
        for _ in range(_COSTS):
            access = await server.sessions.manager.enter(await self._caller(token), casefile_id)
            assert server.execution.work.admitting.decide(operation, access).ruling is Ruling.ALLOW
        took_us = (time.process_time() - began) / _COSTS * 1e6
        reads = server.casefiles.freshness.counters.store - before
        return Row("who, where, what", f"{took_us:.1f} us of processor time, {reads} reads of the store")

    async def rain(self, changes_s: int, seconds: float, among: Sequence[_Pair]) -> tuple[float, str]:
        """Check and change at these rates; how many checks needed no read, polls counted, in per cent."""
        counters = self._server.casefiles.freshness.counters
        before = (counters.checks, counters.store, counters.polls)
        began, checked, changed = time.monotonic(), 0, 0
        while (passed := time.monotonic() - began) < seconds:
            while changed < passed * changes_s:
                role = self._chance.choice((Role.VIEWER, Role.EDITOR))
                await self._change([self._chance.choice(among)], role)
                changed += 1
            while checked < passed * CHECKS_S:
                await self._check(self._chance.choice(self.active))
                checked += 1
            await asyncio.sleep(_TICK_S)
        checks, store, polls = (
            now - then
            for now, then in zip((counters.checks, counters.store, counters.polls), before, strict=True)
        )
        told = f"of {checks:,} checks, {changed:,} changes: {store:,} reads, {polls:,} polls"
        return 100 * (1 - (store + polls) / checks), told

    async def _check(self, pair: _Pair) -> None:
        casefile_id, user_id = pair
        client = self._clients[user_id]
        caller = await self._caller(client.token)
        access = await self._server.sessions.manager.enter(caller, casefile_id)
        if access.source != "token":
            client.token = (await self._server.identity.logins.scopes_for(caller, casefile_id)).token

    async def _caller(self, token: str) -> Principal:
        return await self._server.identity.authenticator.authenticate(token)

    async def _change(self, pairs: Sequence[_Pair], role: Role) -> None:
        now, records = self._server.clock(), list[Record]()
        for casefile_id, user_id in pairs:
            grant = Grant(
                casefile_id=casefile_id,
                user_id=user_id,
                role=role,
                granted_by="bench@example.com",
                granted_at=now,
            )
            changed = PermissionChanged(casefile_id, user_id, Kind.ROLE_CHANGED, now)
            records += [PutGrant(grant), changed]
        await self._server.storage.commits.commit(Commit(records=records))
