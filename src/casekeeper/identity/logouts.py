"""Logging out: one login, or an account everywhere at once."""

from pydantic import BaseModel, Field, SecretStr, model_validator

from casekeeper.acl_feed import ANY, Stops
from casekeeper.clock import Clock
from casekeeper.errors import AccountNotFound, ArgumentsInvalid, FieldError
from casekeeper.identity.accounts import EndRefreshFamilies
from casekeeper.identity.credentials import CredentialStore, EndFamily, PutKey, digest_of
from casekeeper.identity.principal import Principal, own_or_operator
from casekeeper.ids import UserId
from casekeeper.journal.commits import Commit, Commits, PermissionChanged, Record
from casekeeper.journal.requests import Ask, Requests
from casekeeper.strict import Strict


class LogOut(Strict):
    """End a login, or everything that an account is logged in with; operators end another's, too."""

    user_id: UserId | None = Field(default=None, description="Whose; one's own if not given.")
    refresh_token: SecretStr | None = Field(
        default=None,
        description="End only the login that this token renews; its access token lives on for its ten minutes.",
    )
    browser_session: bool = Field(
        default=False, description="End only the browser's session by whose cookie this is asked, at once."
    )
    keys: bool = Field(default=False, description="Revoke all API keys of the account, too.")

    @model_validator(mode="after")
    def _one_login_or_all(self) -> "LogOut":
        if self.browser_session and (self.refresh_token or self.user_id or self.keys):
            raise ValueError("browser_session stands alone")
        return self

    @property
    def is_everywhere(self) -> bool:
        """Whether more than one login ends."""
        return self.refresh_token is None and not self.browser_session


class LoggedOut(BaseModel):
    """What was ended."""

    user_id: str
    everywhere: bool
    stopped: list[str] = Field(default=[], description="Operations that ran and have ended; 1,000 at most.")
    waiting: list[str] = Field(
        default=[], description="Operations that waited and have ended; 1,000 at most."
    )
    unconfirmed: dict[str, list[str]] = Field(
        default={}, description="Operations that have not ended yet, by worker. They can do nothing any more."
    )


class Logouts:
    """Ends logins."""

    def __init__(
        self, store: CredentialStore, commits: Commits, requests: Requests, stops: Stops, clock: Clock
    ) -> None:
        self._store = store
        self._commits = commits
        self._requests = requests
        self._stops = stops
        self._clock = clock

    async def log_out(self, caller: Principal, command: LogOut, ask: Ask) -> tuple[LoggedOut, bool]:
        """End a login or, without a refresh token, all tokens of the account on every worker, and what it has running.

        Raises:
            OperatorOnly: It is another's account.
            AccountNotFound: There is none.
            ArgumentsInvalid: A browser's session is meant, and none was used.
        """
        user_id = own_or_operator(caller, command.user_id)
        if command.browser_session and caller.browser_session is None:
            raise ArgumentsInvalid(
                errors=(FieldError("payload.browser_session", "came with no such cookie"),)
            )
        if await self._store.account(user_id) is None:
            raise AccountNotFound(user_id)

        async def answer(_: str) -> LoggedOut:
            if not command.is_everywhere:
                return LoggedOut(user_id=user_id, everywhere=False)
            receipt = await self._stops.stop("the account was logged out", user_id=user_id)
            unconfirmed = {worker: list(ids) for worker, ids in receipt.unconfirmed.items()}
            return LoggedOut(
                user_id=user_id,
                everywhere=True,
                stopped=list(receipt.stopped),
                waiting=list(receipt.waiting),
                unconfirmed=unconfirmed,
            )

        async def make() -> LoggedOut:
            claim = self._requests.claim(ask, user_id)
            records = [*claim, *await self._ended(user_id, command, caller.browser_session)]
            await self._commits.commit(Commit(conditions=claim, records=records))
            return await answer(user_id)

        return await self._requests.once(ask, make, answer)

    async def _ended(self, user_id: str, command: LogOut, browser_session: str | None) -> list[Record]:
        if command.browser_session and browser_session is not None:
            return [EndFamily(browser_session)]
        if command.refresh_token:
            found = await self._store.refresh(digest_of(command.refresh_token.get_secret_value()))
            # One that is not known has ended already, or never was this account's.
            return [EndFamily(found.family)] if found and found.user_id == user_id else []
        now = self._clock()
        records: list[Record] = [
            EndRefreshFamilies(user_id),
            PermissionChanged(ANY, user_id, "logged_out", now),
        ]
        for key in await self._store.keys(user_id) if command.keys else ():
            kept = await self._store.key(key.key_id)
            if kept and key.revoked_at is None:
                records.append(PutKey(key.model_copy(update={"revoked_at": now}), kept[1]))
        return records
