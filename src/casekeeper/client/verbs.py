"""The server's calls as data: route, the command that is sent, and what comes back.

Commands and answers are the server's own models. They are named here and loaded with the first call that needs them,
so that importing the SDK stays cheap.
"""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from casekeeper.client.errors import invalid
from casekeeper.values import value

if TYPE_CHECKING:
    from casekeeper.casefiles.casefile import CasefileView
    from casekeeper.casefiles.commands import Deleted
    from casekeeper.casefiles.permissions import ChangedGrant, GrantView
    from casekeeper.client.results import Result
    from casekeeper.documents.custody import DocumentsDeleted
    from casekeeper.documents.document import Document, DocumentSummary
    from casekeeper.documents.filing import Uploaded
    from casekeeper.execution.explain import Verdict
    from casekeeper.execution.service import SessionCreated, SessionDetail
    from casekeeper.identity.accounts import Account
    from casekeeper.identity.api_keys import NewApiKey
    from casekeeper.identity.credentials import ApiKey
    from casekeeper.identity.logins import TokenSet
    from casekeeper.identity.logouts import LoggedOut
    from casekeeper.journal.events import ExecutionEvent
    from casekeeper.operations.operation import CatalogEntry
    from casekeeper.paging import Page
    from casekeeper.sessions.session import SessionClosedAnswer, UnifiedSession

T = TypeVar("T")


@value
class Verb(Generic[T]):
    """One call.

    Attributes:
        takes: The command, as `module:Model`.
        gives: The answer's payload, as `module:Model`.
        paged: Whether the payload is a page of these.
        changes: Whether it starts work or changes state, so that it carries a `request_id`.
    """

    path: str
    takes: str
    gives: str
    paged: bool = False
    changes: bool = False

    def command(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The fields that are given, validated, as JSON.

        Raises:
            Invalid: They do not fit.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        model: type[BaseModel] = _load(self.takes)
        try:
            command = model.model_validate(given)
        except ValidationError as error:
            raise invalid(error) from error
        return command.model_dump(mode="json", exclude_unset=True)

    def answer(self, payload: Any) -> T:
        """The payload of an answer as its model."""
        return _adapter(self.gives, self.paged).validate_python(payload)


def read(gives: str, payload: Any, *, paged: bool = False) -> Any:
    """JSON from the server as the model named `module:Model`."""
    return _adapter(gives, paged).validate_python(payload)


@cache
def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"casekeeper.{module}"), attribute)


@cache
def _adapter(gives: str, paged: bool) -> TypeAdapter[Any]:
    model = _load(gives)
    return TypeAdapter(_load("paging:Page")[model] if paged else model)


_CASEFILE = "casefiles.casefile:CasefileView"
_GRANT = "casefiles.permissions:GrantView"
_CHANGED_GRANT = "casefiles.permissions:ChangedGrant"
_RESULT = "client.results:Result"
_ACCOUNT = "identity.accounts:Account"
_KEY = "identity.credentials:ApiKey"

LOG_IN: "Verb[TokenSet]" = Verb("/v1/auth/token", "identity.logins:Login", "identity.logins:TokenSet")
REFRESH: "Verb[TokenSet]" = Verb("/v1/auth/refresh", "identity.logins:Refresh", "identity.logins:TokenSet")

LOG_OUT: "Verb[LoggedOut]" = Verb(
    "/v1/auth/logout", "identity.logouts:LogOut", "identity.logouts:LoggedOut", changes=True
)

CREATE_CASEFILE: "Verb[CasefileView]" = Verb(
    "/v1/casefiles/create", "casefiles.commands:CreateCasefile", _CASEFILE, changes=True
)
GET_CASEFILE: "Verb[CasefileView]" = Verb("/v1/casefiles/get", "casefiles.commands:GetCasefile", _CASEFILE)
LIST_CASEFILES: "Verb[Page[CasefileView]]" = Verb(
    "/v1/casefiles/list", "casefiles.commands:ListCasefiles", _CASEFILE, paged=True
)
UPDATE_CASEFILE: "Verb[CasefileView]" = Verb(
    "/v1/casefiles/update", "casefiles.commands:UpdateCasefile", _CASEFILE, changes=True
)
DELETE_CASEFILE: "Verb[Deleted]" = Verb(
    "/v1/casefiles/delete",
    "casefiles.commands:DeleteTheCasefile",
    "casefiles.commands:Deleted",
    changes=True,
)

GRANT: "Verb[ChangedGrant]" = Verb(
    "/v1/permissions/grant", "casefiles.permissions:GrantRole", _CHANGED_GRANT, changes=True
)
REVOKE: "Verb[ChangedGrant]" = Verb(
    "/v1/permissions/revoke", "casefiles.permissions:RevokeRole", _CHANGED_GRANT, changes=True
)
LIST_GRANTS: "Verb[Page[GrantView]]" = Verb(
    "/v1/permissions/list", "casefiles.permissions:ListGrants", _GRANT, paged=True
)
CHECK: "Verb[Verdict]" = Verb(
    "/v1/permissions/check", "execution.explain:CheckPermission", "execution.explain:Verdict"
)
TRANSFER: "Verb[CasefileView]" = Verb(
    "/v1/permissions/transfer", "casefiles.permissions:TransferCasefile", _CASEFILE, changes=True
)

CREATE_SESSION: "Verb[SessionCreated]" = Verb(
    "/v1/sessions/create",
    "sessions.session:CreateSession",
    "execution.service:SessionCreated",
    changes=True,
)
EXECUTE: "Verb[Result]" = Verb("/v1/sessions/execute", "execution.service:Execute", _RESULT, changes=True)
GET_SESSION: "Verb[SessionDetail]" = Verb(
    "/v1/sessions/get", "execution.service:GetSession", "execution.service:SessionDetail"
)
LIST_SESSIONS: "Verb[Page[UnifiedSession]]" = Verb(
    "/v1/sessions/list", "sessions.session:ListSessions", "sessions.session:UnifiedSession", paged=True
)
CLOSE_SESSION: "Verb[SessionClosedAnswer]" = Verb(
    "/v1/sessions/close",
    "sessions.session:CloseSession",
    "sessions.session:SessionClosedAnswer",
    changes=True,
)

GET_OPERATION: "Verb[Result]" = Verb("/v1/operations/get", "execution.status:GetOperation", _RESULT)
CANCEL_OPERATION: "Verb[Result]" = Verb(
    "/v1/operations/cancel", "execution.status:CancelOperation", _RESULT, changes=True
)
QUERY_EVENTS: "Verb[Page[ExecutionEvent]]" = Verb(
    "/v1/events/query", "sessions.reading:QueryEvents", "journal.events:ExecutionEvent", paged=True
)

LIST_DOCUMENTS: "Verb[Page[DocumentSummary]]" = Verb(
    "/v1/documents/list",
    "documents.filing:ListDocuments",
    "documents.document:DocumentSummary",
    paged=True,
)
GET_DOCUMENT: "Verb[Document]" = Verb(
    "/v1/documents/get", "documents.filing:GetDocument", "documents.document:Document"
)
DELETE_DOCUMENTS: "Verb[DocumentsDeleted]" = Verb(
    "/v1/documents/delete",
    "documents.custody:DeleteTheDocuments",
    "documents.custody:DocumentsDeleted",
    changes=True,
)
UPLOAD: "Verb[Uploaded]" = Verb("/v1/documents/upload", "", "documents.filing:Uploaded", changes=True)

CREATE_ACCOUNT: "Verb[Account]" = Verb(
    "/v1/accounts/create", "identity.account_commands:CreateAccount", _ACCOUNT, changes=True
)
LIST_ACCOUNTS: "Verb[Page[Account]]" = Verb(
    "/v1/accounts/list", "identity.account_commands:ListAccounts", _ACCOUNT, paged=True
)
UPDATE_ACCOUNT: "Verb[Account]" = Verb(
    "/v1/accounts/update", "identity.account_commands:UpdateAccount", _ACCOUNT, changes=True
)
DEACTIVATE_ACCOUNT: "Verb[Account]" = Verb(
    "/v1/accounts/deactivate", "identity.account_commands:DeactivateAccount", _ACCOUNT, changes=True
)

CREATE_KEY: "Verb[NewApiKey]" = Verb(
    "/v1/keys/create", "identity.api_keys:CreateKey", "identity.api_keys:NewApiKey", changes=True
)
LIST_KEYS: "Verb[Page[ApiKey]]" = Verb("/v1/keys/list", "identity.api_keys:ListKeys", _KEY, paged=True)
REVOKE_KEY: "Verb[ApiKey]" = Verb("/v1/keys/revoke", "identity.api_keys:RevokeKey", _KEY, changes=True)

CATALOG: "Verb[Page[CatalogEntry]]" = Verb("/v1/catalog", "", "operations.operation:CatalogEntry", paged=True)
