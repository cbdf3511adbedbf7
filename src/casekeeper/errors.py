"""The one exception tree. Rooms raise; doors and the command line render, by what the branches say.

```text
CasekeeperError
├── Refused                   nothing ran; the caller can act
│   ├── Unauthenticated 401   TokenMissing · TokenExpired · TokenRejected · CredentialsRejected ·
│   │                         BrowserSessionEnded · LoginStateRejected · LoginDeclined
│   ├── Denied          403   RoleTooLow · PolicyDenies · ApprovalNeeded · SessionPrivate · UserMismatch ·
│   │                         ForeignPage · OperatorOnly
│   ├── NotFound        404   CasefileNotFound · SessionNotFound · OperationNotFound · DocumentNotFound ·
│   │                         AccountNotFound · KeyNotFound · RouteNotFound
│   ├── Gone            410   RouteGone · PositionOfAnotherEpoch
│   ├── Conflict        409   SessionClosed · SessionBusy · SessionReserved · CasefileArchived · StaleVersion ·
│   │                         StillRunning · OwnerRequired · AccountExists · CasefileExists
│   ├── TooLarge        413   BodyTooLarge · CasefileFull · ThingTooLarge · HeadersTooLarge (431)
│   ├── Invalid         422   ArgumentsInvalid · CursorInvalid · PositionInvalid · RequestIdReused
│   └── Limited         429   RateLimited
├── Unavailable         503   StoreUnavailable · Overloaded · IssuerUnavailable · BrowserLoginsOff · ModelUnavailable ·
│                             ShuttingDown
└── CannotStart     exit 20   SettingsInvalid · PackageUnusable · DirectoryUnusable · DirectoryInUse · SchemaTooNew
```

An operation that ran and failed is no exception to its caller: it is a result with `success=false`.
"""

from datetime import datetime
from typing import ClassVar, Literal

from casekeeper.values import value

Check = Literal["who", "where", "what", "admit"]


@value
class FieldError:
    """One thing wrong with one field: a dotted path into the request and what is wrong, in plain words."""

    field: str
    message: str


@value
class Quota:
    """Where a rate limit stands: of `amount` a minute `left` may still start; more when `reset_s` seconds have passed."""

    name: str
    amount: int
    left: int
    reset_s: int


class CasekeeperError(Exception):
    """Root of everything that casekeeper raises on purpose. Imports nothing of a door.

    `code` is stable and clients match on it; `detail` is for people and may change.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"
    check: ClassVar[Check | None] = None
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    """Of a command that fails with it."""
    status: ClassVar[int] = 500
    """Of the HTTP response. Like the exit code, it is that of the branch."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or self.title
        super().__init__(self.detail)


class Refused(CasekeeperError):
    """Stopped before anything ran."""


class Unauthenticated(Refused):
    """WHO failed: there is no believable caller."""

    check = "who"
    exit_code, status = 10, 401


class TokenMissing(Unauthenticated):
    code = "token_missing"
    title = "An access token is needed"


class TokenExpired(Unauthenticated):
    code = "token_expired"
    title = "The access token has expired"


class TokenRejected(Unauthenticated):
    code = "token_rejected"
    title = "The access token is not accepted"


class CredentialsRejected(Unauthenticated):
    code = "credentials_rejected"
    title = "These credentials are not accepted"


class BrowserSessionEnded(Unauthenticated):
    code = "browser_session_ended"
    title = "The browser's session has ended; log in again"


class LoginStateRejected(Unauthenticated):
    code = "login_state_rejected"
    title = "This login was not begun in this browser, or too long ago; begin again"


class LoginDeclined(Unauthenticated):
    code = "login_declined"
    title = "The issuer did not log anybody in"


class Denied(Refused):
    """The caller is known and a member, but may not do this."""

    check = "where"
    exit_code, status = 11, 403


class RoleTooLow(Denied):
    code = "role_too_low"
    title = "Your role in this casefile does not allow this"

    def __init__(self, needed: str, has: str | None, detail: str | None = None) -> None:
        self.needed = needed
        self.has = has
        super().__init__(detail or f"This needs the role {needed}; yours is {has or 'public reader'}.")


class PolicyDenies(Denied):
    """A rule of the operators forbids it; `needed` is the role for which it would not, if there is one."""

    code = "policy_denies"
    title = "A rule of this server forbids this"
    check = "what"

    def __init__(self, rule: str | None = None, needed: str | None = None, detail: str | None = None) -> None:
        self.rule = rule
        self.needed = needed
        super().__init__(detail)


class ApprovalNeeded(Denied):
    """It would be let in with an approval; `rule` is the operators' rule that asks for one, if one does."""

    code = "approval_needed"
    title = "This needs an approval, and this server cannot ask for one yet"
    check = "what"

    def __init__(self, rule: str | None = None, detail: str | None = None) -> None:
        self.rule = rule
        super().__init__(f"{detail} {self.title}." if detail else None)


class SessionPrivate(Denied):
    code = "session_private"
    title = "Only its own user works in a private session"


class UserMismatch(Denied):
    code = "user_mismatch"
    title = "user_id is not the caller"
    check = "who"


class ForeignPage(Denied):
    """A browser's session was used by a page of another site."""

    code = "foreign_page"
    title = "The request comes from a page of another site"
    check = "who"


class OperatorOnly(Denied):
    code = "operator_only"
    title = "Only an operator may do this"
    check = "who"


class NotFound(Refused):
    """Missing, or hidden from this caller: the two are told apart nowhere."""

    check = "where"
    exit_code, status = 12, 404
    kind: ClassVar[str] = "thing"

    def __init__(self, name: str | None = None) -> None:
        super().__init__(f"There is no {self.kind} {name} that you may see." if name else None)


class CasefileNotFound(NotFound):
    code = "casefile_not_found"
    title = "No such casefile"
    kind = "casefile"


class SessionNotFound(NotFound):
    code = "session_not_found"
    title = "No such session"
    kind = "session"


class OperationNotFound(NotFound):
    code = "operation_not_found"
    title = "No such operation"
    kind = "operation"


class DocumentNotFound(NotFound):
    code = "document_not_found"
    title = "No such document"
    kind = "document"


class AccountNotFound(NotFound):
    code = "account_not_found"
    title = "No such account"
    kind = "account"


class KeyNotFound(NotFound):
    code = "key_not_found"
    title = "No such API key"
    kind = "API key"


class RouteNotFound(NotFound):
    code = "route_not_found"
    title = "No such route"
    kind = "route"
    check = None


class Gone(Refused):
    """Was here once, and is not coming back."""

    exit_code, status = 17, 410


class RouteGone(Gone):
    code = "route_gone"
    title = "This route belongs to the former API"

    def __init__(self, successor: str) -> None:
        self.successor = successor
        super().__init__(f"Use {successor} instead; docs/migration.md says how.")


class PositionOfAnotherEpoch(Gone):
    """The store was restored from a backup since the position was given out: what comes behind it is not known."""

    code = "position_of_another_epoch"
    title = "The position is from before a restore; begin anew"


class Conflict(Refused):
    """The state does not allow this now."""

    check = "admit"
    exit_code, status = 13, 409


class SessionClosed(Conflict):
    code = "session_closed"
    title = "The session is closed"


class SessionBusy(Conflict):
    code = "session_busy"
    title = "Operations of this session have not ended"
    retryable = True

    def __init__(self, open_operations: tuple[str, ...]) -> None:
        self.open_operations = open_operations
        super().__init__("Not ended yet: " + ", ".join(open_operations[:20]))


class SessionReserved(Conflict):
    code = "session_reserved"
    title = "The record session of a casefile runs no operations and is never closed"


class CasefileArchived(Conflict):
    code = "casefile_archived"
    title = "The casefile is archived: it can be read, not changed"


class StaleVersion(Conflict):
    code = "stale_version"
    title = "The casefile has changed since that version"

    def __init__(self, expected: int, current: int) -> None:
        self.current = current
        super().__init__(f"expected_version is {expected}, the casefile is at {current}. Read it again.")


class StillRunning(Conflict):
    code = "still_running"
    title = "The operation of this request_id is still running"
    retryable = True
    retry_after_s = 2


class OwnerRequired(Conflict):
    code = "owner_required"
    title = "A casefile always has exactly one owner; transfer it instead"


class AccountExists(Conflict):
    code = "account_exists"
    title = "There is an account with this user id already"


class CasefileExists(Conflict):
    code = "casefile_exists"
    title = "There is a casefile with this id already"


class TooLarge(Refused):
    """More than this server takes."""

    exit_code, status = 14, 413


class BodyTooLarge(TooLarge):
    code = "body_too_large"
    title = "The request body is too large"


class CasefileFull(TooLarge):
    code = "casefile_full"
    title = "The casefile holds as many bytes as it may"


class ThingTooLarge(TooLarge):
    code = "thing_too_large"
    title = "This is larger than it may be"


class HeadersTooLarge(TooLarge):
    code = "headers_too_large"
    status = 431  # RFC 6585 §5
    title = "The request headers are too large"


class Invalid(Refused):
    """The request itself is wrong; `errors` names the fields."""

    exit_code, status = 15, 422

    def __init__(self, detail: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        self.errors = errors
        super().__init__(detail or "; ".join(f"{e.field}: {e.message}" for e in errors[:3]) or None)


class ArgumentsInvalid(Invalid):
    code = "arguments_invalid"
    title = "The request does not fit"
    check = "what"


class CursorInvalid(Invalid):
    code = "cursor_invalid"
    title = "The cursor is not one of ours, or belongs to another query"

    def __init__(self) -> None:
        super().__init__(errors=(FieldError("cursor", self.title),))


class PositionInvalid(Invalid):
    code = "position_invalid"
    title = "The position is not one of ours"

    def __init__(self) -> None:
        super().__init__(errors=(FieldError("position", self.title),))


class RequestIdReused(Invalid):
    code = "request_id_reused"
    title = "This request_id was used for another request"
    check = "admit"


class Limited(Refused):
    """Too much, too fast."""

    check = "admit"
    exit_code, status = 16, 429
    retryable = True


class RateLimited(Limited):
    code = "rate_limited"
    title = "Too many requests"

    def __init__(
        self, policy: str, retry_at: datetime, retry_after_s: int, quotas: tuple[Quota, ...] = ()
    ) -> None:
        self.quotas = quotas
        self.policy = policy
        self.retry_at = retry_at
        self.retry_after_s = retry_after_s
        super().__init__(f"The limit {policy} is spent; try again in {retry_after_s} s.")


class Unavailable(CasekeeperError):
    """Something that casekeeper needs is unavailable. Nothing was half done; a retry is safe."""

    retryable = True
    exit_code, status = 18, 503


class StoreUnavailable(Unavailable):
    code = "store_unavailable"
    title = "The store cannot be reached or cannot write"


class IssuerUnavailable(Unavailable):
    code = "issuer_unavailable"
    title = "The issuer cannot be reached, or does not answer as it should"
    check = "who"


class BrowserLoginsOff(Unavailable):
    code = "browser_logins_off"
    title = "The setting public_url is missing: browsers can log in on this machine only"
    check = "who"
    retryable = False


class Overloaded(Unavailable):
    code = "overloaded"
    title = "More is waiting than this server can take; try again in a moment"


class ModelUnavailable(Unavailable):
    code = "model_unavailable"
    title = "No model can answer"
    check = "what"
    retryable = False  # a key or a package is missing: trying again does not bring it


class ShuttingDown(Unavailable):
    code = "shutting_down"
    title = "The server is stopping"


class CannotStart(CasekeeperError):
    """Settings, packages, data directory or store do not let a process begin: the operator must act.

    `detail` is one line that names what it is and, where that is not plain, the cure; it holds no passwords.
    """

    exit_code = 20


class SettingsInvalid(CannotStart):
    code = "settings_invalid"
    title = "The settings cannot be used"


class PackageUnusable(CannotStart):
    code = "package_unusable"
    title = "A package is missing or cannot be loaded"


class DirectoryUnusable(CannotStart):
    code = "directory_unusable"
    title = "The data directory is missing or cannot be used"


class DirectoryInUse(CannotStart):
    code = "directory_in_use"
    title = "Another process holds the data directory"


class SchemaTooNew(CannotStart):
    code = "schema_too_new"
    title = "The store was written by a newer casekeeper"
