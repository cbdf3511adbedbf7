"""The composition root, top to bottom: opens the store and each room with what it needs, and closes them in order.

The only place that names concrete stores.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Literal

from pydantic import SecretStr

from casekeeper.acl_feed import Pushes
from casekeeper.background import Every, each, running
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.opening import CasefileRoom, open_casefiles
from casekeeper.clock import AgreedClock, Clock
from casekeeper.documents.document import INLINE_BYTES
from casekeeper.documents.opening import DocumentOptions, DocumentRoom, open_documents
from casekeeper.errors import PackageUnusable
from casekeeper.execution.opening import Execution, open_execution, open_work, watching
from casekeeper.execution.rate_limits import Limits, Rates
from casekeeper.execution.recovery import Erasure, Expiry, in_turn
from casekeeper.execution.runner import Runner
from casekeeper.identity.keys import made_once
from casekeeper.identity.opening import (
    FirstLogin,
    Identity,
    IdentityOptions,
    first_operator,
    open_identity,
)
from casekeeper.identity.passwords import Passwords
from casekeeper.journal.commits import Commit, ForgetExpired
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.opening import Journal
from casekeeper.journal.requests import Requests
from casekeeper.operations.admitting import Admitting
from casekeeper.operations.policy import Policy
from casekeeper.operations.registry import (
    MANAGED_TOOLS,
    DuplicateTool,
    Registry,
    ToolRegistry,
    tools_of_packages,
)
from casekeeper.operations.sources import SourceParts, open_sources
from casekeeper.operations.tools import Tool
from casekeeper.paging import Cursors
from casekeeper.reading.readers import Readers
from casekeeper.sessions.opening import SessionRoom, open_sessions
from casekeeper.settings import Settings
from casekeeper.storage.bus.opening import Bus, find_bus
from casekeeper.storage.clocks import agree
from casekeeper.storage.opening import open_storage
from casekeeper.storage.store import Storage
from casekeeper.tools import BUILT_IN
from casekeeper.values import value

Use = Literal["serve", "command", "prepare"]
"""What a process opens a server for: to serve; for one command, which leaves what waits to a server; only to have the store
made, migrated and its keys in place, for which nothing is begun in the background."""


@value
class Server:
    """The store, and the rooms that the doors open to."""

    settings: Settings
    clock: Clock
    storage: Storage
    bus: Bus | None
    identity: Identity
    casefiles: CasefileRoom
    documents: DocumentRoom
    sessions: SessionRoom
    execution: Execution
    first_login: FirstLogin | None

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served: the store writes, and the server is not stopping."""
        return self.storage.commits.is_writable and not self.execution.work.runner.is_leaving

    async def drain(self) -> None:
        """Stop, in order, while the doors are open: not ready, then nothing new and streams end, then what runs.

        Takes `stop_delay_s` and `drain_s`, and some seconds more for what had to be interrupted.
        """
        runner = self.execution.work.runner
        runner.is_leaving = True
        await asyncio.sleep(self.settings.stop_delay_s)
        self.sessions.reading.end()
        await runner.drain(timedelta(seconds=self.settings.drain_s))


@asynccontextmanager
async def open_server(
    settings: Settings,
    *,
    clock: Clock | None = None,
    tools: Iterable[Tool] = (),
    passwords: Passwords | None = None,
    sweep_every: timedelta = timedelta(seconds=30),
    use: Use = "serve",
) -> AsyncGenerator[Server]:
    """A server on its data directory, recovered and swept; closed in order when the context ends.

    `clock`: the store's own where several processes share one (docs/decisions/0015), else the machine's. `tools` come
    on top of the built-in ones and those of installed packages.

    Raises:
        CannotStart: The settings, a package, the data directory or the store cannot be used.
        StoreUnavailable: The store does not answer.
    """
    agreed, live, pushes = AgreedClock(), LiveFeed(), Pushes()
    is_agreed, clock = clock is None, clock or agreed
    is_at_work = use != "prepare"
    # Another process, or this one after a restart, is another owner: what it left open is an orphan.
    owner = f"{os.getpid()}-{secrets.token_hex(6)}" if is_at_work else ""
    bus = find_bus(_secret_of(settings.redis), owner, live, pushes, agreed) if is_at_work else None
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(
            open_storage(
                settings.store,
                settings.data,
                bus.announce if bus else live.announce,
                bus.push if bus else pushes,
                settings.store_limits,
                owner,
                pushes,
            )
        )
        works = [await agree(agreed, storage.now)] if is_agreed and storage.now else list[Every]()
        limits = await stack.enter_async_context(_limited(settings, clock, storage, bus))
        registered = SourceParts(settings, storage, _tools(tools))
        sources = await stack.enter_async_context(open_sources(registered))

        keys = settings.data / "keys"
        cursors = Cursors(made_once(keys / "cursor.secret", partial(secrets.token_bytes, 32)))
        journal = Journal(storage.commits, Requests(storage.accounts, clock), cursors, clock, live)
        policy = Policy(settings.policies, tainted_needs_approval=settings.agent_egress == "approval")
        admitting, runner = Admitting(Registry(sources), policy), Runner()
        work = open_work(
            journal,
            storage.events,
            storage.blobs,
            admitting,
            runner,
            owner=owner,
            is_shared=storage.is_shared,
        )
        freshness = Freshness(storage.accounts, clock)
        pushes.listen(freshness.push)
        passwords = passwords or Passwords()
        first_login = await first_operator(settings.operator, journal, storage.accounts, passwords)
        identity = open_identity(
            _identity_options(settings), journal, storage.accounts, freshness, work.stopping, passwords
        )
        casefiles = open_casefiles(
            journal,
            storage.casefiles,
            storage.accounts,
            freshness,
            work.stopping,
            with_tags=policy.is_by_tags,
            everybody_creates=settings.everybody_creates,
        )
        readers = Readers(
            settings.data / "spool", document_bytes=settings.document_bytes, inline_bytes=INLINE_BYTES
        )
        stack.callback(readers.close)
        documents = open_documents(
            DocumentOptions(settings.upload_bytes, settings.casefile_bytes, settings.record_reads),
            journal,
            casefiles,
            storage.documents,
            storage.search,
            storage.blobs,
            readers,
        )
        sessions = open_sessions(
            journal,
            casefiles.gate,
            storage.sessions,
            storage.events,
            storage.blobs,
            auto_idle=timedelta(hours=settings.session_idle_hours),
        )
        execution = open_execution(journal, work, identity, casefiles, documents, sessions, limits)
        server = Server(
            settings,
            clock,
            storage,
            bus,
            identity,
            casefiles,
            documents,
            sessions,
            execution,
            first_login,
        )
        if not is_at_work:
            yield server
            return
        if not storage.is_shared:
            # What is open is nobody's; elsewhere it takes some seconds to tell, which the sweep has.
            await execution.recovery.run()
        works += [
            *_sweeps(server, sweep_every),
            *watching(journal, work, casefiles, pushes, is_shared=storage.is_shared),
        ]
        if use == "serve":
            works.append(execution.waker.looking)
        stack.push_async_callback(runner.drain, timedelta(seconds=settings.drain_s))
        await stack.enter_async_context(running(*works))
        yield server


@asynccontextmanager
async def _limited(
    settings: Settings, clock: Clock, storage: Storage, bus: Bus | None
) -> AsyncGenerator[Limits]:
    """Rate limits, counted together with the other processes, which are heard of then, where there is a bus."""
    rates = Rates(settings.limit_user, settings.limit_casefile, settings.limit_tool, settings.limit_tools)
    processes = settings.processes or settings.workers
    limits = Limits(rates, clock, processes=processes, shared=bus)
    if bus is None:
        yield limits
        return
    epoch = (await storage.accounts.head()).epoch
    async with bus.running(epoch, limits.known):
        yield limits


def _tools(more: Iterable[Tool]) -> ToolRegistry:
    try:
        for tool in (*BUILT_IN, *tools_of_packages()):
            MANAGED_TOOLS.add(tool)
        return ToolRegistry((*MANAGED_TOOLS.values(), *more))
    except DuplicateTool as error:
        raise PackageUnusable(f"Of the installed packages and what is added here, {error}.") from error


def _identity_options(settings: Settings) -> IdentityOptions:
    return IdentityOptions(
        settings.data / "keys",
        settings.issuer,
        settings.issuers,
        settings.origin,
        timedelta(hours=settings.browser_session_hours),
    )


def _sweeps(server: Server, every: timedelta) -> Iterator[Every]:
    """What is swept every so often, by each process or by the one whose turn it is."""
    storage, clock = server.storage, server.clock
    expiry = Expiry(storage.casefiles, storage.accounts, storage.commits, clock)
    erasure = Erasure(storage.casefiles, storage.blobs, storage.commits)

    async def forget() -> None:
        await storage.commits.commit(Commit(records=(ForgetExpired(clock()),)))

    shared = partial(
        in_turn, storage.is_our_turn, expiry.sweep, erasure.sweep, server.documents.sweep, forget
    )
    # Apart from the others, which may take long: somebody waits for what a dead process left open.
    yield Every(
        every, server.execution.recovery.run, name="recovering operations", woken=storage.is_sweep_due
    )
    yield Every(every, partial(each, storage.tidy, shared), name="sweeping")


def _secret_of(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
