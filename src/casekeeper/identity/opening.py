"""Opens the room WHO: accounts, their credentials, and the operator of the first start."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from casekeeper.acl_feed import AclFeed, Stops
from casekeeper.errors import AccountExists
from casekeeper.identity.accounts import Account, AccountAbsent, Accounts, PutAccount, StoredAccount
from casekeeper.identity.api_keys import ApiKeys
from casekeeper.identity.browser_sessions import BrowserSessions
from casekeeper.identity.code_flow import CodeFlow
from casekeeper.identity.credentials import CredentialStore
from casekeeper.identity.discovery import Discovery
from casekeeper.identity.fetching import Fetcher
from casekeeper.identity.issuer import Issuer
from casekeeper.identity.issuer_keys import IssuerKeys
from casekeeper.identity.issuers import Issuers
from casekeeper.identity.keys import SigningKeys, made_once
from casekeeper.identity.logins import Logins
from casekeeper.identity.logouts import Logouts
from casekeeper.identity.passwords import Passwords
from casekeeper.identity.seals import Seals
from casekeeper.identity.tokens import Authenticator, Standing, Tokens
from casekeeper.ids import new_pseudonym
from casekeeper.journal.commits import Commit
from casekeeper.journal.opening import Journal
from casekeeper.values import value


class IdentityStore(CredentialStore, AclFeed, Protocol):
    """Accounts and credentials, and the number of the newest permission change."""


@value
class IdentityOptions:
    """What a deployment decides about it.

    Attributes:
        keys: The folder of signing keys and secrets; what is missing in it is made.
        issuer: Who says that it made the tokens, and for whom.
        issuers: Issuers outside that are believed.
        origin: Where browsers reach this server.
        browser_session: How long a browser stays logged in.
    """

    keys: Path
    issuer: str = "casekeeper"
    issuers: Sequence[Issuer] = ()
    origin: str = "http://127.0.0.1"
    browser_session: timedelta = timedelta(hours=12)


@value
class Identity:
    """Who calls, and the accounts."""

    signing_keys: SigningKeys
    tokens: Tokens
    authenticator: Authenticator
    accounts: Accounts
    api_keys: ApiKeys
    logins: Logins
    logouts: Logouts
    browser_sessions: BrowserSessions
    code_flow: CodeFlow


@value
class FirstLogin:
    """The operator made at first start; the password is shown once."""

    user_id: str
    password: str


def open_identity(
    options: IdentityOptions,
    journal: Journal,
    store: IdentityStore,
    standing: Standing,
    stops: Stops,
    passwords: Passwords,
) -> Identity:
    """The room, with its keys in the folder that the options name."""
    commits, requests, clock = journal.commits, journal.requests, journal.clock
    signing_keys = SigningKeys(options.keys)
    seals = Seals(made_once(options.keys / "browser.secret", partial(secrets.token_bytes, 32)))
    tokens = Tokens(signing_keys, options.issuer, options.issuer, clock)
    fetch = Fetcher()
    issuers = Issuers(((issuer, IssuerKeys(issuer, fetch)) for issuer in options.issuers), clock)
    api_keys = ApiKeys(store, commits, requests, stops, clock)
    logins = Logins(store, commits, store, tokens, passwords, api_keys, clock, issuers)
    return Identity(
        signing_keys,
        tokens,
        Authenticator(tokens, standing),
        Accounts(store, commits, requests, passwords, stops, journal.cursors, clock),
        api_keys,
        logins,
        Logouts(store, commits, requests, stops, clock),
        BrowserSessions(store, commits, store, standing, seals, clock, options.browser_session),
        CodeFlow(
            ((issuer, Discovery(issuer, fetch)) for issuer in options.issuers),
            issuers,
            logins,
            fetch.post,
            seals,
            f"{options.origin}/v1/auth/callback",
            clock,
        ),
    )


async def first_operator(
    user_id: str, journal: Journal, store: IdentityStore, passwords: Passwords
) -> FirstLogin | None:
    """Make an operator where there are no accounts yet; None where there are."""
    if await store.accounts("", 1):
        return None
    password = secrets.token_urlsafe(12)
    account = Account(
        user_id=user_id,
        display_name="Operator",
        is_operator=True,
        created_at=journal.clock(),
        pseudonym=new_pseudonym(),
    )
    stored = StoredAccount(account, await passwords.hash(password))
    try:
        await journal.commits.commit(
            Commit(conditions=(AccountAbsent(user_id),), records=(PutAccount(stored),))
        )
    except AccountExists:
        # Another process starts as well, was quicker, and shows its password.
        return None
    return FirstLogin(user_id, password)
