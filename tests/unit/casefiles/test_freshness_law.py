"""The law of caching: a permission read from a token and one read from the store always agree."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from casekeeper.acl import Role
from casekeeper.errors import CasekeeperError
from casekeeper.identity.account_commands import UpdateAccount
from casekeeper.identity.principal import Principal
from tests.unit.support import ANNA, BEN, CARA, ROOT, House, copy_of, make_template, open_house

USERS = [ANNA, BEN, CARA]
users, places = st.sampled_from(USERS), st.integers(0, 1)
CHANGES = [
    "viewer",
    "editor",
    "admin",
    "for a minute",
    "revoke",
    "transfer",
    "public",
    "not public",
    "delete",
]

# The law is not about durability: in memory the disk's syncing costs nothing.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class CachedAndStored(RuleBasedStateMachine):
    """Two casefiles, three people, tokens of any age; whatever happens, both ways of asking answer the same."""

    template: Path
    root: Principal
    believed = disbelieved = 0

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(dir=MEMORY))
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.house: House = self.runner.run(self.open())
        self.tokens: list[Principal] = []
        self.casefiles: list[str] = []

    async def open(self) -> House:
        copy_of(self.template, self.directory)
        return await self.stack.enter_async_context(open_house(self.directory))

    def teardown(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.close()
        shutil.rmtree(self.directory)

    def attempt(self, work: Awaitable[Any]) -> None:
        """Do it, if the rules allow it: what is refused changes nothing, which the invariant sees too."""

        async def tried() -> None:
            with suppress(CasekeeperError):
                await work

        self.runner.run(tried())

    @initialize()
    def begin(self) -> None:
        async def furnish() -> None:
            self.root = await self.house.caller(ROOT)
            for user_id in USERS:
                await self.house.account(user_id)
            for _ in range(2):
                await self.new_casefile()

        self.runner.run(furnish())

    async def new_casefile(self) -> None:
        anna = await self.house.caller(ANNA)
        casefile_id = (await self.house.casefile(anna)).casefile_id
        self.casefiles.append(casefile_id)
        until = self.house.clock() + timedelta(minutes=1)
        with suppress(CasekeeperError):
            await self.house.grant(anna, casefile_id, BEN, Role.EDITOR)
            await self.house.grant(anna, casefile_id, CARA, Role.VIEWER, until=until)
        for user_id in USERS:
            await self.log_in(user_id)

    async def log_in(self, user_id: str) -> None:
        stored = await self.house.storage.accounts.account(user_id)
        if stored and stored.account.is_active:
            self.tokens.append(await self.house.caller(user_id, *self.casefiles[-2:]))

    @rule(user=users)
    def mint(self, user: str) -> None:
        self.runner.run(self.log_in(user))

    @rule(data=st.data(), place=places)
    def mint_more(self, data: st.DataObject, place: int) -> None:
        token = data.draw(st.sampled_from(self.tokens))

        async def better() -> None:
            minted = await self.house.logins.scopes_for(token, self.casefiles[-1 - place])
            self.tokens.append(self.house.tokens.verify(minted.token))

        self.attempt(better())

    @rule(place=places, user=users, what=st.sampled_from(CHANGES))
    def change(self, place: int, user: str, what: str) -> None:
        self.attempt(self.changed(self.casefiles[-1 - place], user, what))

    async def changed(self, casefile_id: str, user: str, what: str) -> None:
        house, casefile = self.house, await self.house.storage.casefiles.casefile(casefile_id)
        assert casefile is not None
        owner = await house.caller(casefile.owner)
        match what:
            case "revoke":
                await house.revoke(owner, casefile_id, user)
            case "transfer":
                await house.transfer(owner, casefile_id, user)
            case "public" | "not public":
                role = "viewer" if what == "public" else "none"
                await house.update(owner, casefile_id, public_role=role)
            case "delete":
                await house.delete(owner, casefile_id)
                await self.new_casefile()
                self.casefiles = [c for c in self.casefiles if c != casefile_id]
                self.casefiles.insert(0, casefile_id)
            case "for a minute":
                until = house.clock() + timedelta(minutes=1)
                await house.grant(owner, casefile_id, user, Role.EDITOR, until=until)
            case _:
                await house.grant(owner, casefile_id, user, Role(what))

    @rule(user=st.sampled_from([BEN, CARA]), back=st.booleans())
    def end_account(self, user: str, back: bool) -> None:
        async def end() -> None:
            for is_active in (False, True)[: 1 + back]:
                command = UpdateAccount(user_id=user, is_active=is_active)
                await self.house.accounts.update(self.root, command, self.house.ask(self.root))

        self.attempt(end())

    @rule(seconds=st.sampled_from([1, 59, 61]))
    def wait(self, seconds: int) -> None:
        self.house.clock.advance(seconds=seconds)

    @invariant()
    def both_ways_agree(self) -> None:
        self.runner.run(self.compare())

    async def compare(self) -> None:
        for token in self.tokens:
            if not await self.house.freshness.stands(token.user_id, token.epoch, token.asof):
                continue
            for casefile_id in self.casefiles:
                cached = await self.house.gate.look(token, casefile_id)
                stored = await self.house.gate.look(token, casefile_id, again=True)
                assert (cached and cached.role_name) == (stored and stored.role_name)
                believed = cached is not None and cached.source == "token"
                CachedAndStored.believed += believed
                CachedAndStored.disbelieved += not believed and casefile_id in token.scopes


@pytest.mark.timeout(90)
def test_cached_and_stored_permission_agree_after_anything(tmp_path_factory: pytest.TempPathFactory):
    CachedAndStored.template = make_template(tmp_path_factory.mktemp("law"))

    limits = settings(
        max_examples=20,
        stateful_step_count=15,
        deadline=None,
        # Looking for the shortest story takes minutes; add Phase.shrink when there is one to be found.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(CachedAndStored, settings=limits)

    assert CachedAndStored.believed > 0, "nothing was ever read from a token, so nothing was shown"
    assert CachedAndStored.disbelieved > 0, "no token was ever stale, so nothing was shown"
