"""A house for unit tests: all rooms on a real embedded store, and a clock that moves only when it is told to."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from pydantic_core import from_json

from casekeeper.acl import Role
from casekeeper.acl_feed import Pushes
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.casefiles.changing import Changing
from casekeeper.casefiles.commands import Casefiles, CreateCasefile, DeleteTheCasefile, UpdateCasefile
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.grants import StoredGrants
from casekeeper.casefiles.opening import open_casefiles
from casekeeper.casefiles.permissions import (
    GrantRole,
    GrantView,
    Permissions,
    RevokeRole,
    TransferCasefile,
)
from casekeeper.documents.document import INLINE_BYTES
from casekeeper.documents.opening import DocumentOptions, open_documents
from casekeeper.execution.calls import Call, Started
from casekeeper.execution.corridor import Executor
from casekeeper.execution.detached import DetachedOperations
from casekeeper.execution.explain import Explain
from casekeeper.execution.nesting import Nesting
from casekeeper.execution.opening import open_execution, open_work
from casekeeper.execution.outcomes import Outcome
from casekeeper.execution.payloads import Payloads
from casekeeper.execution.rate_limits import Limits, Rates
from casekeeper.execution.runner import Runner
from casekeeper.execution.service import SessionService
from casekeeper.execution.status import Operations
from casekeeper.execution.stopping import Stopping
from casekeeper.identity.accounts import Account, Accounts, PutAccount, StoredAccount
from casekeeper.identity.api_keys import ApiKeys
from casekeeper.identity.keys import SigningKeys
from casekeeper.identity.logins import Logins
from casekeeper.identity.opening import IdentityOptions, open_identity
from casekeeper.identity.passwords import Passwords
from casekeeper.identity.principal import Principal
from casekeeper.identity.tokens import Authenticator, Tokens
from casekeeper.ids import new_pseudonym
from casekeeper.journal.commits import Commit, Commits
from casekeeper.journal.events import Sealed, StoredFact
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.opening import Journal
from casekeeper.journal.operations import OpenedOperation, OpenOperation
from casekeeper.journal.requests import Ask, Body, Requests
from casekeeper.operations.admitting import Admitting
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import OperationSource, ToolCall
from casekeeper.operations.policy import Policy
from casekeeper.operations.registry import Registry, ToolRegistry
from casekeeper.operations.tools import Tool
from casekeeper.paging import Cursors
from casekeeper.reading.readers import Readers
from casekeeper.sessions.manager import At, CasefileSessionManager
from casekeeper.sessions.opening import open_sessions
from casekeeper.sessions.reading import EventPage, Reading
from casekeeper.sessions.session import CreateSession, Visibility
from casekeeper.storage.sqlite.opening import migrate, open_embedded
from casekeeper.storage.store import Storage
from casekeeper.tools import BUILT_IN
from tests.unit.tools import ALL

NOW = datetime(2025, 10, 23, 12, tzinfo=UTC)
ANNA, BEN, CARA, DORA = "anna@example.com", "ben@example.com", "cara@example.com", "dora@example.com"
ROOT = "root@example.com"
PASSWORD = "correct horse battery"

Meanwhile = Callable[[Commit], Awaitable[None]]


class StepClock:
    """Time that stands still until it is moved."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now
        self.elapsed_s = 0.0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        """Move by a timedelta's keywords; `advance(seconds=-5)` steps back."""
        self.now += timedelta(**by)

    def monotonic(self) -> float:
        """Seconds on a clock of their own, which only `elapse` moves."""
        return self.elapsed_s

    def elapse(self, seconds: float) -> None:
        """Let that much time go by without moving the wall clock."""
        self.elapsed_s += seconds


@dataclass
class Meddling:
    """The store's commits, before each of which something else may happen first: a rival's commit, an outage."""

    behind: Commits
    queue: list[Meanwhile] = field(default_factory=list[Meanwhile])

    def meanwhile(self, *happens: Meanwhile) -> None:
        """Let these happen, one before each of the next commits."""
        self.queue += happens

    async def commit(self, commit: Commit) -> Sequence[Sealed]:
        if self.queue:
            await self.queue.pop(0)(commit)
        return await self.behind.commit(commit)


def fast_passwords() -> Passwords:
    """Argon2 at its cheapest: a test proves what is compared, not how long it takes."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def make_template(directory: Path) -> Path:
    """A migrated, empty data directory; migrating takes longer than all that a unit test does."""
    directory.mkdir(parents=True, exist_ok=True)
    migrate(directory / "casekeeper.db")
    return directory


def copy_of(template: Path, directory: Path) -> Path:
    """A data directory of one's own."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(template / "casekeeper.db", directory / "casekeeper.db")
    return directory


@dataclass
class House:
    """Every room, and shorthand for what tests do in them."""

    clock: StepClock
    storage: Storage
    commits: Meddling
    requests: Requests
    keys: SigningKeys
    tokens: Tokens
    freshness: Freshness
    authenticator: Authenticator
    accounts: Accounts
    api_keys: ApiKeys
    logins: Logins
    stored: StoredGrants
    gate: Gate
    changing: Changing
    casefiles: Casefiles
    permissions: Permissions
    manager: CasefileSessionManager
    tools: ToolRegistry
    registry: Registry
    admitting: Admitting
    detached: DetachedOperations
    stopping: Stopping
    runner: Runner
    payloads: Payloads
    live: LiveFeed
    nesting: Nesting
    executor: Executor
    reading: Reading
    operations: Operations
    sessions: SessionService
    explain: Explain
    due: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: int = 0

    # WHO

    async def account(
        self, user_id: str, *, is_operator: bool = False, password: str | None = None
    ) -> Account:
        """Make an account, as it stands in the store."""
        account = Account(
            user_id=user_id, is_operator=is_operator, created_at=self.clock(), pseudonym=new_pseudonym()
        )
        hashed = await fast_passwords().hash(password) if password else None
        await self.storage.commits.commit(Commit(records=(PutAccount(StoredAccount(account, hashed)),)))
        return account

    async def caller(self, user_id: str, *casefile_ids: str) -> Principal:
        """The account with a token of this moment that carries these casefiles' scopes; made where it is missing."""
        stored = await self.storage.accounts.account(user_id)
        account = stored.account if stored else await self.account(user_id, is_operator=user_id == ROOT)
        snapshot = await self.storage.accounts.snapshot(user_id, casefile_ids, 0)
        minted = self.tokens.mint(
            user_id,
            account.pseudonym,
            is_operator=account.is_operator,
            snapshot=snapshot,
            scopes=snapshot.scopes,
        )
        return self.tokens.verify(minted.token)

    def ask(
        self, caller: Principal, request_id: str | None = None, *, body: bytes = b"null", route: str = "r"
    ) -> Ask:
        """A request; one with an id can be repeated."""
        self._asked += 1
        name = request_id or f"req_{self._asked}"
        return Ask(caller.user_id, route, name, Body.of_json(body), is_repeatable=request_id is not None)

    # WHERE

    async def casefile(self, owner: Principal, **fields: Any) -> CasefileView:
        """A new casefile of this owner."""
        command = CreateCasefile.model_validate({"title": "Rent dispute", **fields})
        made, _ = await self.casefiles.create(owner, command, self.ask(owner))
        return made

    async def grant(
        self, by: Principal, casefile_id: str, user_id: str, role: Role, *, until: datetime | None = None
    ) -> GrantView:
        """Give a role."""
        command = GrantRole(casefile_id=casefile_id, user_id=user_id, role=role, expires_at=until)
        granted, _ = await self.permissions.grant(by, command, self.ask(by))
        return granted

    async def revoke(self, by: Principal, casefile_id: str, user_id: str) -> None:
        """Take a role away."""
        await self.permissions.revoke(by, RevokeRole(casefile_id=casefile_id, user_id=user_id), self.ask(by))

    async def transfer(self, by: Principal, casefile_id: str, user_id: str) -> CasefileView:
        """Make somebody else the owner."""
        command = TransferCasefile(casefile_id=casefile_id, user_id=user_id)
        return (await self.permissions.transfer(by, command, self.ask(by)))[0]

    async def update(self, by: Principal, casefile_id: str, **changes: Any) -> CasefileView:
        """Change a casefile."""
        command = UpdateCasefile(casefile_id=casefile_id, **changes)
        return (await self.casefiles.update(by, command, self.ask(by)))[0]

    async def delete(self, by: Principal, casefile_id: str) -> None:
        """Delete a casefile."""
        await self.casefiles.delete(by, DeleteTheCasefile(casefile_id=casefile_id), self.ask(by))

    async def session(
        self, caller: Principal, casefile_id: str, visibility: Visibility = Visibility.PRIVATE
    ) -> str:
        """A new session's id."""
        command = CreateSession(casefile_id=casefile_id, visibility=visibility)
        made, _ = await self.sessions.create_session(caller, command, self.ask(caller))
        return made.session_id

    # RUN

    def call(
        self,
        caller: Principal,
        place: At,
        tool_name: str,
        /,
        *,
        request_id: str | None = None,
        timeout: timedelta | None = None,
        **parameters: Any,
    ) -> Call:
        """A call of a tool."""
        operation = ToolCall(operation_type="tool", tool_name=tool_name, parameters=parameters)
        return Call(caller, place, operation, self.ask(caller, request_id, route="execute"), timeout)

    def context_of(self, started: Started) -> MDSContext:
        """What a started operation may see and do, as its own code gets it."""
        return self.nesting.context(self.executor, started)

    async def resume(self, event_id: str) -> Started | None:
        """Take up a waiting operation, due or not."""
        [opened] = await self.storage.events.opened([event_id])
        return await self.executor.resume(opened)

    async def wake(self) -> list[Outcome]:
        """Take up all that is due, and what becomes due by that, until nothing is; how each stretch of it ended."""
        outcomes: list[Outcome] = []
        while due := [one for one in await self.storage.events.due(100) if _is_due(one, self.clock())]:
            for one in due:
                if started := await self.executor.resume(one):
                    outcomes.append(await asyncio.wait_for(started.running.ended, 10))
        return outcomes

    async def row(self, event_id: str) -> OpenOperation | None:
        """The row of an open operation."""
        found = await self.storage.events.opened([event_id])
        return found[0].row if found else None

    async def start(self, caller: Principal, place: At, tool_name: str, /, **more: Any) -> Started:
        """Start a tool; it must not be a repeat."""
        _, started = await self.executor.execute(self.call(caller, place, tool_name, **more))
        assert isinstance(started, Started)
        return started

    async def run(self, caller: Principal, place: At, tool_name: str, /, **more: Any) -> Outcome:
        """Run a tool to its end."""
        started = await self.start(caller, place, tool_name, **more)
        return await asyncio.wait_for(started.running.ended, 10)

    # RECORD

    async def facts(self, session_id: str) -> list[dict[str, Any]]:
        """A session's facts as their readers get them."""
        rows = await self.storage.events.facts(session_id, EventPage(view="journal", limit=200), None, 1000)
        return [from_json(row.json()) for row in rows]

    async def rows(self, session_id: str) -> Sequence[StoredFact]:
        """A session's facts as they are stored."""
        return await self.storage.events.facts(session_id, EventPage(view="journal", limit=200), None, 1000)

    async def kinds(self, session_id: str | None) -> list[str]:
        """The kinds of a session's facts, in order."""
        return [fact["kind"] for fact in await self.facts(session_id or "")]


def _is_due(opened: OpenedOperation, now: datetime) -> bool:
    return opened.row.wake_at is not None and opened.row.wake_at <= now


def _opened(
    storage: Storage,
    clock: StepClock,
    live: LiveFeed,
    pushes: Pushes,
    tools: Iterable[Tool],
    grace: timedelta,
    limits: tuple[int, int],
    policy: Policy,
    agents: Iterable[OperationSource],
    *,
    everybody_creates: bool,
) -> House:
    """The rooms as `server.py` opens them, with commits that can be meddled with and a clock that stands still."""
    commits = Meddling(storage.commits)
    journal = Journal(commits, Requests(storage.accounts, clock), Cursors(b"s" * 32), clock, live)
    registered = ToolRegistry((*BUILT_IN, *ALL, *tools))
    admitting = Admitting(Registry([registered, *agents]), policy)
    work = open_work(
        journal, storage.events, storage.blobs, admitting, Runner(grace), owner="this", is_shared=False
    )
    freshness = Freshness(storage.accounts, clock, monotonic=clock.monotonic)
    pushes.listen(freshness.push)
    options = IdentityOptions(storage.directory / "keys")
    identity = open_identity(options, journal, storage.accounts, freshness, work.stopping, fast_passwords())
    casefiles = open_casefiles(
        journal,
        storage.casefiles,
        storage.accounts,
        freshness,
        work.stopping,
        with_tags=policy.is_by_tags,
        everybody_creates=everybody_creates,
    )
    # No tool here reads uploads, so no process is ever started.
    readers = Readers(storage.directory / "spool", document_bytes=2**30, inline_bytes=INLINE_BYTES)
    documents = open_documents(
        DocumentOptions(), journal, casefiles, storage.documents, storage.search, storage.blobs, readers
    )
    sessions = open_sessions(journal, casefiles.gate, storage.sessions, storage.events, storage.blobs)
    counted = Limits(Rates(*limits), clock)
    execution = open_execution(journal, work, identity, casefiles, documents, sessions, counted)
    return House(
        clock=clock,
        storage=storage,
        commits=commits,
        requests=journal.requests,
        keys=identity.signing_keys,
        tokens=identity.tokens,
        freshness=freshness,
        authenticator=identity.authenticator,
        accounts=identity.accounts,
        api_keys=identity.api_keys,
        logins=identity.logins,
        stored=casefiles.stored,
        gate=casefiles.gate,
        changing=casefiles.changing,
        casefiles=casefiles.commands,
        permissions=casefiles.permissions,
        manager=sessions.manager,
        tools=registered,
        registry=admitting.registry,
        admitting=admitting,
        detached=work.detached,
        due=work.due,
        stopping=work.stopping,
        runner=work.runner,
        payloads=work.payloads,
        live=live,
        nesting=execution.nesting,
        executor=execution.executor,
        reading=sessions.reading,
        operations=execution.operations,
        sessions=execution.sessions,
        explain=execution.explain,
    )


@asynccontextmanager
async def open_house(
    directory: Path,
    *,
    tools: Iterable[Tool] = (),
    clock: StepClock | None = None,
    grace: timedelta = timedelta(seconds=5),
    limits: tuple[int, int] = (0, 0),
    everybody_creates: bool = True,
    policy: Policy | None = None,
    agents: Iterable[OperationSource] = (),
) -> AsyncGenerator[House]:
    """A house on a migrated directory; what still runs in it at the end is stopped."""
    live, pushes = LiveFeed(), Pushes()
    async with open_embedded(directory, live.announce, pushes) as storage:
        house = _opened(
            storage,
            clock or StepClock(),
            live,
            pushes,
            tools,
            grace,
            limits,
            policy or Policy(),
            agents,
            everybody_creates=everybody_creates,
        )
        try:
            yield house
        finally:
            house.commits.queue.clear()
            await house.runner.drain(timedelta())
