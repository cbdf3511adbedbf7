"""Puts the rooms together: one function, top to bottom, in the order of the corridor."""

import asyncio
import secrets
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from casekeeper.acl_feed import Pushes
from casekeeper.casefiles.access import Gate
from casekeeper.casefiles.changing import Changing
from casekeeper.casefiles.commands import Casefiles
from casekeeper.casefiles.freshness import Freshness
from casekeeper.casefiles.grants import FreshGrants, StoredGrants
from casekeeper.casefiles.permissions import Permissions
from casekeeper.clock import Clock
from casekeeper.documents.casefile_documents import CasefileDocuments
from casekeeper.documents.custody import Custody
from casekeeper.documents.document import FencedWrite
from casekeeper.documents.filing import Filing
from casekeeper.execution.corridor import Executor
from casekeeper.execution.explain import Explain
from casekeeper.execution.life import Life
from casekeeper.execution.limits import Limits
from casekeeper.execution.nesting import Nesting
from casekeeper.execution.others import Others
from casekeeper.execution.outcomes import Outcomes
from casekeeper.execution.recovery import Recovery
from casekeeper.execution.resuming import Resuming
from casekeeper.execution.runner import Runner
from casekeeper.execution.service import SessionService
from casekeeper.execution.session_changes import SessionChanges
from casekeeper.execution.sizes import Sizes
from casekeeper.execution.status import Operations
from casekeeper.execution.stopping import Stopping
from casekeeper.execution.waking import Waker
from casekeeper.identity.accounts import Accounts
from casekeeper.identity.api_keys import ApiKeys
from casekeeper.identity.browser_sessions import BrowserSessions
from casekeeper.identity.code_flow import CodeFlow
from casekeeper.identity.discovery import Discovery
from casekeeper.identity.fetching import Fetcher
from casekeeper.identity.issuer_keys import IssuerKeys
from casekeeper.identity.issuers import Issuers
from casekeeper.identity.keys import SigningKeys, made_once
from casekeeper.identity.logins import Logins
from casekeeper.identity.logouts import Logouts
from casekeeper.identity.passwords import Passwords
from casekeeper.identity.principal import Principal
from casekeeper.identity.seals import Seals
from casekeeper.identity.tokens import Authenticator, Tokens
from casekeeper.journal.feed import LiveFeed
from casekeeper.journal.requests import Requests
from casekeeper.operations.admitting import Admitting
from casekeeper.operations.catalogue import Catalogue
from casekeeper.operations.operation import OperationSource
from casekeeper.operations.policy import Policy
from casekeeper.operations.registry import Registry
from casekeeper.paging import Cursors
from casekeeper.reading.readers import Readers
from casekeeper.sessions.manager import CasefileSessionManager
from casekeeper.sessions.reading import Reading
from casekeeper.sessions.recording import Recording
from casekeeper.settings import Settings
from casekeeper.storage.bus.opening import Helper
from casekeeper.storage.store import Storage
from casekeeper.values import value


@value
class FirstLogin:
    """The operator made at first start; the password is shown once."""

    user_id: str
    password: str


@value
class Server:
    """Everything that the doors need."""

    settings: Settings
    storage: Storage
    authenticator: Authenticator
    signing_keys: SigningKeys
    accounts: Accounts
    api_keys: ApiKeys
    logins: Logins
    logouts: Logouts
    browser_sessions: BrowserSessions
    code_flow: CodeFlow
    casefiles: Casefiles
    permissions: Permissions
    filing: Filing
    custody: Custody
    sessions: SessionService
    operations: Operations
    reading: Reading
    recording: Recording
    manager: CasefileSessionManager
    freshness: Freshness
    explain: Explain
    catalogue: Catalogue
    admitting: Admitting
    others: Others
    stopping: Stopping
    waker: Waker
    runner: Runner
    clock: Clock
    first_login: FirstLogin | None
    helper: Helper | None

    @property
    def is_ready(self) -> bool:
        """Whether requests can be served: the store writes, and the server is not stopping."""
        return self.storage.commits.is_writable and not self.runner.is_leaving

    async def drain(self) -> None:
        """Stop, in order, while the doors are open: not ready, then nothing new and streams end, then what runs.

        Takes `stop_delay_s` and `drain_s`, and some seconds more for what had to be interrupted.
        """
        self.runner.is_leaving = True
        await asyncio.sleep(self.settings.stop_delay_s)
        self.reading.end()
        await self.runner.drain(timedelta(seconds=self.settings.drain_s))


async def recover_alone(storage: Storage, clock: Clock, owner: str) -> None:
    """Hand on or close what a former process left open, in a store that no server holds."""
    sizes, nobody = Sizes(storage.blobs), asyncio.Event()
    others = Others(Runner(), storage.commits, sizes, storage.events, clock, nobody)
    await Recovery(storage.events, others, owner=owner).run()


def wire(
    settings: Settings,
    storage: Storage,
    live: LiveFeed,
    pushes: Pushes,
    runner: Runner,
    passwords: Passwords,
    clock: Clock,
    sources: Sequence[OperationSource],
    readers: Readers,
    first: FirstLogin | None,
    owner: str,
    limits: Limits,
    helper: Helper | None,
) -> Server:
    """A server of these parts: each room gets what it asks for, from the first check to the last."""
    commits, blobs = storage.commits, storage.blobs
    # The deployment's secret for cursors.
    secret = made_once(settings.data / "keys" / "cursor.secret", partial(secrets.token_bytes, 32))
    cursors = Cursors(secret)
    seals = Seals(made_once(settings.data / "keys" / "browser.secret", partial(secrets.token_bytes, 32)))
    requests = Requests(storage.accounts, clock)
    # WHO
    signing_keys = SigningKeys(settings.data / "keys")
    tokens = Tokens(signing_keys, settings.issuer, settings.issuer, clock)
    freshness = Freshness(storage.accounts, clock)
    pushes.listen(freshness.push)
    authenticator = Authenticator(tokens, freshness)
    policy = Policy(settings.policies, tainted_needs_approval=settings.agent_egress == "approval")
    registry = Registry(sources)
    admitting = Admitting(registry, policy)
    sizes = Sizes(blobs)
    outcomes = Outcomes(storage.events, sizes, live)
    due = asyncio.Event()
    others = Others(runner, commits, sizes, storage.events, clock, due)
    life = Life(
        runner, commits, requests, sizes, storage.events, outcomes, others, clock, owner=owner, due=due
    )
    stops = Stopping(runner, storage.events, admitting, others, commits, is_shared=storage.is_shared)
    accounts = Accounts(storage.accounts, commits, requests, passwords, stops, cursors, clock)
    fetch = Fetcher()
    issuers = Issuers(((issuer, IssuerKeys(issuer, fetch)) for issuer in settings.issuers), clock)
    api_keys = ApiKeys(storage.accounts, commits, requests, stops, clock)
    logins = Logins(storage.accounts, commits, storage.accounts, tokens, passwords, api_keys, clock, issuers)
    # WHERE
    stored = StoredGrants(storage.casefiles, clock)
    grants = FreshGrants(stored, freshness, clock, with_tags=policy.is_by_tags)
    gate = Gate(grants, storage.casefiles, commits, clock)
    changing = Changing(gate, storage.casefiles, commits, requests, clock)
    casefiles = Casefiles(
        gate,
        changing,
        storage.casefiles,
        commits,
        requests,
        stops,
        cursors,
        clock,
        everybody_creates=settings.everybody_creates,
    )
    permissions = Permissions(
        gate, changing, casefiles, storage.casefiles, storage.accounts, stops, cursors, clock
    )
    manager = CasefileSessionManager(
        storage.sessions, gate, clock, timedelta(hours=settings.session_idle_hours)
    )
    # RUN

    def documents(casefile_id: str, user_id: str, event_id: str, write: FencedWrite) -> CasefileDocuments:
        return CasefileDocuments(
            storage.documents,
            storage.search,
            blobs,
            readers,
            cursors,
            clock,
            casefile_id=casefile_id,
            user_id=user_id,
            event_id=event_id,
            write=write,
            bytes_max=settings.casefile_bytes,
        )

    async def stored_user(user_id: str) -> Principal | None:
        return await accounts.active_principal(user_id, freshness.epoch)

    nesting = Nesting(
        gate, commits, requests, sizes, live, documents, admitting, runner, outcomes, stops, clock
    )
    resuming = Resuming(manager, admitting, stored_user, life, others, sizes, storage.events, clock)
    executor = Executor(
        manager,
        gate,
        requests,
        admitting,
        limits,
        runner,
        commits,
        sizes,
        life,
        resuming,
        nesting.context,
        clock,
    )
    waker = Waker(storage.events, executor, runner, clock, due)
    # RECORD, read
    reading = Reading(storage.events, manager, gate, live, cursors, clock)
    operations = Operations(manager, reading, runner, stops, outcomes, sizes, logins)
    sessions = SessionService(
        manager,
        executor,
        operations,
        SessionChanges(manager, operations, commits, requests, clock),
        reading,
        storage.sessions,
        requests,
        logins,
        cursors,
        clock,
    )
    filing = Filing(
        gate,
        storage.documents,
        blobs,
        commits,
        requests,
        cursors,
        clock,
        upload_limit=settings.upload_bytes,
    )
    custody = Custody(
        gate,
        changing,
        storage.casefiles,
        storage.documents,
        blobs,
        commits,
        clock,
        records_reads=settings.record_reads,
    )
    explain = Explain(gate, storage.casefiles, accounts, admitting)
    return Server(
        settings=settings,
        storage=storage,
        authenticator=authenticator,
        signing_keys=signing_keys,
        accounts=accounts,
        api_keys=api_keys,
        logins=logins,
        logouts=Logouts(storage.accounts, commits, requests, stops, clock),
        browser_sessions=BrowserSessions(
            storage.accounts,
            commits,
            storage.accounts,
            freshness,
            seals,
            clock,
            timedelta(hours=settings.browser_session_hours),
        ),
        code_flow=CodeFlow(
            ((issuer, Discovery(issuer, fetch)) for issuer in settings.issuers),
            issuers,
            logins,
            fetch.post,
            seals,
            f"{settings.origin}/v1/auth/callback",
            clock,
        ),
        casefiles=casefiles,
        permissions=permissions,
        filing=filing,
        custody=custody,
        sessions=sessions,
        operations=operations,
        reading=reading,
        recording=Recording(storage.events, blobs, manager),
        manager=manager,
        freshness=freshness,
        explain=explain,
        catalogue=Catalogue(registry, gate),
        admitting=admitting,
        others=others,
        stopping=stops,
        waker=waker,
        runner=runner,
        clock=clock,
        first_login=first,
        helper=helper,
    )
