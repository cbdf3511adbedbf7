"""The composition root: opens and closes everything, and has it wired. With `wiring`, the only place that names concrete classes."""

import os
import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from pydantic import SecretStr

from casekeeper.acl_feed import Pushes
from casekeeper.background import Every, each, running
from casekeeper.clock import AgreedClock, Clock
from casekeeper.documents.document import INLINE_BYTES
from casekeeper.documents.filing import UPLOAD_KEPT
from casekeeper.errors import AccountExists, PackageUnusable
from casekeeper.execution.limits import Limits, Rates
from casekeeper.execution.recovery import Erasure, Expiry, Recovery, in_turn
from casekeeper.execution.runner import Runner
from casekeeper.execution.stopping import Rights
from casekeeper.identity.accounts import (
    Account,
    AccountAbsent,
    PutAccount,
    StoredAccount,
)
from casekeeper.identity.passwords import Passwords
from casekeeper.ids import new_pseudonym
from casekeeper.journal.commits import Commit, ForgetExpired
from casekeeper.journal.feed import LiveFeed
from casekeeper.operations.registry import MANAGED_TOOLS, DuplicateTool, ToolRegistry, tools_of_packages
from casekeeper.operations.sources import SourceParts, open_sources
from casekeeper.operations.tools import Tool
from casekeeper.reading.readers import Readers
from casekeeper.sessions.following import Polling
from casekeeper.settings import Settings
from casekeeper.storage.bus.opening import Helper, find_helper
from casekeeper.storage.clocks import agreeing
from casekeeper.storage.opening import open_storage
from casekeeper.storage.store import Storage
from casekeeper.tools import BUILT_IN
from casekeeper.wiring import FirstLogin, Server, wire


@asynccontextmanager
async def open_server(
    settings: Settings,
    *,
    clock: Clock | None = None,
    tools: Iterable[Tool] = (),
    passwords: Passwords | None = None,
    sweep_every: timedelta = timedelta(seconds=30),
    goes_on: bool = True,
) -> AsyncGenerator[Server]:
    """A server on its data directory, recovered and swept; closed in order when the context ends.

    `clock`: the store's own where several processes share one (docs/decisions/0015), else the machine's. `tools` come
    on top of the built-in ones and those of installed packages. `goes_on`: what waits is taken up here; a process that only
    does one thing leaves that to a server.
    """
    agreed = AgreedClock()
    is_agreed, clock = clock is None, clock or agreed
    live, pushes, runner = LiveFeed(), Pushes(), Runner()
    # Another process, or this one after a restart, is another owner: what it left open is an orphan.
    owner = f"{os.getpid()}-{secrets.token_hex(6)}"
    helper = find_helper(_secret_of(settings.redis), owner, live, pushes, agreed)
    announce, push = (helper.announce, helper.push) if helper else (live.announce, pushes)
    limits = Limits(_rates(settings), clock, processes=settings.processes or settings.workers, shared=helper)
    async with (
        open_storage(
            settings.store, settings.data, announce, push, settings.store_limits, owner, pushes
        ) as storage,
        agreeing(agreed, storage.now if is_agreed else None),
        _helped(helper, storage, limits),
        open_sources(SourceParts(settings, storage, _tools(tools))) as sources,
    ):
        passwords = passwords or Passwords()
        first = await _first_operator(settings, storage, passwords, clock)
        readers = Readers(
            settings.data / "spool", document_bytes=settings.document_bytes, inline_bytes=INLINE_BYTES
        )
        server = wire(
            settings,
            storage,
            live,
            pushes,
            runner,
            passwords,
            clock,
            sources,
            readers,
            first,
            owner,
            limits,
            helper,
        )
        recovery = Recovery(storage.events, server.others, owner=owner)
        if not storage.is_shared:
            # What is open is nobody's; elsewhere it takes some seconds to tell, which the sweep has.
            await recovery.run()
        rights = Rights(runner, storage.casefiles, live, clock, is_shared=storage.is_shared)
        pushes.listen(rights.changed)
        works = [*_sweeps(server, recovery, sweep_every), rights.judging, server.stopping.heeding(owner)]
        if goes_on:
            works.append(server.waker.looking)
        if storage.is_shared:
            works.append(Polling(storage.events, live).looking)
        try:
            async with running(*works):
                yield server
        finally:
            await runner.drain(timedelta(seconds=settings.drain_s))
            readers.close()


@asynccontextmanager
async def _helped(helper: Helper | None, storage: Storage, limits: Limits) -> AsyncGenerator[None]:
    """Hear of the other processes by the helper, where there is one."""
    if helper is None:
        yield
        return
    epoch = (await storage.accounts.head()).epoch
    async with helper.running(epoch, limits.known):
        yield


def _rates(settings: Settings) -> Rates:
    return Rates(settings.limit_user, settings.limit_casefile, settings.limit_tool, settings.limit_tools)


def _tools(more: Iterable[Tool]) -> ToolRegistry:
    try:
        for tool in (*BUILT_IN, *tools_of_packages()):
            MANAGED_TOOLS.add(tool)
        return ToolRegistry((*MANAGED_TOOLS.values(), *more))
    except DuplicateTool as error:
        raise PackageUnusable(f"Of the installed packages and what is added here, {error}.") from error


def _sweeps(server: Server, recovery: Recovery, every: timedelta) -> list[Every]:
    """What is swept every so often, by each process or by the one whose turn it is."""
    storage, clock = server.storage, server.clock
    expiry = Expiry(storage.casefiles, storage.accounts, storage.commits, clock)
    erasure = Erasure(storage.casefiles, storage.blobs, storage.commits)

    async def forget() -> None:
        await storage.commits.commit(Commit(records=(ForgetExpired(clock()),)))

    async def clear() -> None:
        await storage.blobs.sweep(clock() - UPLOAD_KEPT)

    shared = partial(
        in_turn, storage.is_our_turn, expiry.sweep, erasure.sweep, server.filing.sweep, forget, clear
    )
    return [
        # Apart from the others, which may take long: somebody waits for what a dead process left open.
        Every(every, recovery.run, name="recovering operations", woken=storage.is_sweep_due),
        Every(every, partial(each, storage.tidy, shared), name="sweeping"),
    ]


async def _first_operator(
    settings: Settings, storage: Storage, passwords: Passwords, clock: Clock
) -> FirstLogin | None:
    if await storage.accounts.accounts("", 1):
        return None
    password = secrets.token_urlsafe(12)
    account = Account(
        user_id=settings.operator,
        display_name="Operator",
        is_operator=True,
        created_at=clock(),
        pseudonym=new_pseudonym(),
    )
    stored = StoredAccount(account, await passwords.hash(password))
    try:
        await storage.commits.commit(
            Commit(conditions=(AccountAbsent(account.user_id),), records=(PutAccount(stored),))
        )
    except AccountExists:
        # Another process starts as well, was quicker, and shows its password.
        return None
    return FirstLogin(account.user_id, password)


def _secret_of(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
