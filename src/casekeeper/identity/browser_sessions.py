"""A browser's login: a secret in a cookie that no script can read, looked up on every call.

The secret is not a token and never changes, so that any number of tabs may use it at once; what ends it is a row that
is gone, which holds for every worker at once. It is kept among the refresh tokens, so whatever ends those ends it.
"""

import secrets
from collections import OrderedDict
from datetime import datetime, timedelta

from casekeeper.acl_feed import AclFeed
from casekeeper.clock import Clock, to_us
from casekeeper.errors import BrowserSessionEnded, CredentialsRejected
from casekeeper.identity.accounts import AccountStands
from casekeeper.identity.credentials import CredentialStore, EndFamily, PutRefresh, StoredRefresh
from casekeeper.identity.logins import Known
from casekeeper.identity.principal import Principal
from casekeeper.identity.seals import Seals
from casekeeper.identity.tokens import LIFETIME, Standing
from casekeeper.journal.commits import Commit, Commits, Record, Superseded
from casekeeper.values import value

_RENEW = LIFETIME / 2
_CACHE_SIZE = 10_000


@value
class OpenedSession:
    """A session that has just begun; `secret` goes into the cookie and nowhere else."""

    secret: str
    principal: Principal


class BrowserSessions:
    """Opens browsers' sessions and says who calls by one."""

    def __init__(
        self,
        store: CredentialStore,
        commits: Commits,
        feed: AclFeed,
        standing: Standing,
        seals: Seals,
        clock: Clock,
        lifetime: timedelta,
        *,
        cache_size: int = _CACHE_SIZE,
    ) -> None:
        self._store = store
        self._commits = commits
        self._feed = feed
        self._standing = standing
        self._seals = seals
        self._clock = clock
        self.lifetime = lifetime
        self._cache_size = cache_size
        self._principals: OrderedDict[str, Principal] = OrderedDict()

    async def open(self, known: Known, former: str | None = None) -> OpenedSession:
        """A new session; the one of the `former` secret, which it replaces in its browser, ends.

        Raises:
            CredentialsRejected: The account was ended or changed since it was looked up.
        """
        secret, family = secrets.token_urlsafe(32), secrets.token_hex(16)
        now, account = self._clock(), known.account
        ends_at = now + self.lifetime
        records: list[Record] = [PutRefresh(self._digest(secret), family, account.user_id, ends_at)]
        if former and (row := await self._store.refresh(self._digest(former))):
            records.append(EndFamily(row.family))
        stands = AccountStands(account.user_id, known.snapshot.asof)
        try:
            await self._commits.commit(Commit(conditions=(stands,), records=records))
        except Superseded as error:
            raise CredentialsRejected from error
        return OpenedSession(secret, _principal(known, family, min(now + LIFETIME, ends_at)))

    async def authenticate(self, secret: str) -> Principal:
        """WHO, for a cookie.

        Raises:
            BrowserSessionEnded: It was logged out, has had its time, or its account was deactivated or changed.
        """
        digest, now = self._digest(secret), self._clock()
        row = await self._store.refresh(digest)
        if row is None or now >= row.expires_at:
            self._principals.pop(digest, None)
            raise BrowserSessionEnded
        principal = self._principals.get(digest)
        if principal is None or principal.expires_at - now < _RENEW or not await self._stands(principal):
            principal = self._principals[digest] = await self._afresh(row, now)
            if not await self._stands(principal):
                raise BrowserSessionEnded
        self._principals.move_to_end(digest)
        while len(self._principals) > self._cache_size:
            self._principals.popitem(last=False)
        return principal

    async def _afresh(self, row: StoredRefresh, now: datetime) -> Principal:
        # The snapshot comes first: whatever changes the account after it is newer than its `asof`.
        snapshot = await self._feed.snapshot(row.user_id, (), to_us(now))
        stored = await self._store.account(row.user_id)
        if stored is None or not stored.account.is_active:
            raise BrowserSessionEnded
        return _principal(Known(stored.account, snapshot), row.family, min(now + LIFETIME, row.expires_at))

    async def _stands(self, principal: Principal) -> bool:
        return await self._standing.stands(principal.user_id, principal.epoch, principal.asof)

    def _digest(self, secret: str) -> str:
        # Unlike that of a refresh token, so that what is in the cookie is good for nothing but a cookie.
        return self._seals.mac("browser session", secret)


def _principal(known: Known, family: str, expires_at: datetime) -> Principal:
    account = known.account
    return Principal(
        account.user_id,
        account.pseudonym,
        is_operator=account.is_operator,
        epoch=known.snapshot.epoch,
        asof=known.snapshot.asof,
        expires_at=expires_at,
        browser_session=family,
    )
