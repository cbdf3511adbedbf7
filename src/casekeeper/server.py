"""The composition root: opens and closes everything, and has it wired. With `wiring`, the only place that names concrete classes."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta

from pydantic import SecretStr

from casekeeper.acl_feed import Pushes
from casekeeper.agents.agent import Budgets
from casekeeper.agents.registry import AgentRegistry
from casekeeper.agents.routes import Providers
from casekeeper.clock import AgreedClock, Clock
from casekeeper.documents.document import INLINE_BYTES
from casekeeper.documents.filing import UPLOAD_KEPT
from casekeeper.errors import AccountExists
from casekeeper.execution.limits import Limits, Rates
from casekeeper.execution.recovery import Erasure, Expiry, Recovery, Sweeper
from casekeeper.execution.runner import Runner
from casekeeper.execution.stopping import Rights
from casekeeper.execution.telling import Telling
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
from casekeeper.operations.registry import MANAGED_TOOLS, ToolRegistry, tools_of_packages
from casekeeper.operations.tools import Tool
from casekeeper.reading.readers import Readers
from casekeeper.sessions.following import Polling
from casekeeper.settings import Settings
from casekeeper.storage.clocks import agreeing
from casekeeper.storage.helper import Helper, find_helper
from casekeeper.storage.limits import StoreLimits
from casekeeper.storage.opening import open_storage
from casekeeper.storage.store import Storage
from casekeeper.tools import BUILT_IN
from casekeeper.wiring import FirstLogin, Server, wire

_log = logging.getLogger("casekeeper.server")


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
    telling = Telling(helper) if helper else None
    limits = Limits(_rates(settings), clock, processes=settings.processes or settings.workers, shared=telling)
    async with (
        open_storage(
            settings.store, settings.data, announce, push, store_limits(settings), owner, pushes
        ) as storage,
        agreeing(agreed, storage.now if is_agreed else None),
        _helped(helper, telling, storage, limits),
    ):
        passwords = passwords or Passwords()
        first = await _first_operator(settings, storage, passwords, clock)
        registry = _tools(tools)
        agents = _agents(settings, registry, storage)
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
            registry,
            agents,
            readers,
            first,
            owner,
            limits,
            helper,
        )
        recovery = Recovery(storage.events, server.others, owner=owner)
        if not storage.is_shared:
            # What is open is nobody's; elsewhere it takes some seconds to tell, which the sweeper has.
            await recovery.run()
        # In a task of its own: a sweep may take long, and what a dead process left open is waited for.
        recovering = asyncio.create_task(_recovering(storage, recovery, sweep_every).run())
        recovering.add_done_callback(_tell_if_it_failed)
        sweeper = asyncio.create_task(_sweeper(server, sweep_every).run())
        sweeper.add_done_callback(_tell_if_it_failed)
        rights = Rights(runner, storage.casefiles, live, clock, is_shared=storage.is_shared)
        pushes.listen(rights.changed)
        judging = asyncio.create_task(rights.watch())
        judging.add_done_callback(_tell_if_it_failed)
        heeding = asyncio.create_task(server.stopping.heed(owner))
        heeding.add_done_callback(_tell_if_it_failed)
        waking = asyncio.create_task(server.waker.run() if goes_on else asyncio.sleep(0))
        waking.add_done_callback(_tell_if_it_failed)
        polling = asyncio.create_task(_polling(storage, live))
        polling.add_done_callback(_tell_if_it_failed)
        try:
            yield server
        finally:
            recovering.cancel()
            sweeper.cancel()
            judging.cancel()
            heeding.cancel()
            waking.cancel()
            polling.cancel()
            await runner.drain(timedelta(seconds=settings.drain_s))
            await agents.close()
            readers.close()


@asynccontextmanager
async def _helped(
    helper: Helper | None, telling: Telling | None, storage: Storage, limits: Limits
) -> AsyncGenerator[None]:
    """Hear of the other processes by the helper, where there is one."""
    if helper is None or telling is None:
        yield
        return
    epoch = (await storage.accounts.head()).epoch
    work = asyncio.create_task(telling.run(limits))
    work.add_done_callback(_tell_if_it_failed)
    try:
        async with helper.running(epoch, telling.tell_all):
            yield
    finally:
        work.cancel()


async def _polling(storage: Storage, live: LiveFeed) -> None:
    """Look for the facts of other processes, where there are any."""
    if storage.is_shared:
        await Polling(storage.events, live).run()


def _rates(settings: Settings) -> Rates:
    return Rates(settings.limit_user, settings.limit_casefile, settings.limit_tool, settings.limit_tools)


def store_limits(settings: Settings) -> StoreLimits:
    """What the settings grant a store."""
    return StoreLimits(
        settings.store_connections,
        timedelta(seconds=settings.store_connect_s),
        timedelta(seconds=settings.store_statement_s),
        timedelta(seconds=settings.store_lock_s),
        settings.firestore_channels,
        settings.search,
        settings.blobs,
    )


def _tools(more: Iterable[Tool]) -> ToolRegistry:
    for tool in (*BUILT_IN, *tools_of_packages()):
        MANAGED_TOOLS.add(tool)
    return ToolRegistry((*MANAGED_TOOLS.values(), *more))


def _tell_if_it_failed(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.critical("a task of the server has stopped; restart the server", exc_info=error)


def _recovering(storage: Storage, recovery: Recovery, every: timedelta) -> Sweeper:
    """Does every so often, and as soon as somebody has died, what `recovery` does."""

    async def is_everybodys() -> bool:
        return True

    return Sweeper([recovery.run], [], is_everybodys, storage.is_sweep_due, every)


def _sweeper(server: Server, every: timedelta) -> Sweeper:
    storage, clock = server.storage, server.clock
    expiry = Expiry(storage.casefiles, storage.accounts, storage.commits, clock)
    erasure = Erasure(storage.casefiles, storage.blobs, storage.commits)

    async def forget() -> None:
        await storage.commits.commit(Commit(records=(ForgetExpired(clock()),)))

    async def clear() -> None:
        await storage.blobs.sweep(clock() - UPLOAD_KEPT)

    return Sweeper(
        [storage.tidy],
        [expiry.sweep, erasure.sweep, server.filing.sweep, forget, clear],
        storage.is_our_turn,
        asyncio.Event(),
        every,
    )


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


def _agents(settings: Settings, tools: ToolRegistry, storage: Storage) -> AgentRegistry:
    return AgentRegistry(
        tools,
        storage.events,
        storage.blobs,
        providers=Providers(
            google_api_key=_secret_of(settings.google_api_key),
            google_base_url=settings.google_base_url,
            google_api_version=settings.google_api_version,
            openai_api_key=_secret_of(settings.openai_api_key),
            openai_base_url=settings.openai_base_url,
            anthropic_api_key=_secret_of(settings.anthropic_api_key),
            anthropic_base_url=settings.anthropic_base_url,
        ),
        aliases=settings.agent_aliases,
        budgets=Budgets(
            requests=settings.agent_requests,
            tool_calls=settings.agent_tool_calls,
            total_tokens=settings.agent_tokens,
        ),
        timeout=timedelta(seconds=settings.agent_timeout_s),
    )
