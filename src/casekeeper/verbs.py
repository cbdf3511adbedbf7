"""The one table of verbs: what can be asked of casekeeper, as data.

The doors bind a verb to the method that does it, the SDK sends its command and reads its result, `docs/api.md` and the
tests list it. A new verb is a row here and a method in a room. Commands and results are named and loaded with the first call
that needs them, so that importing the table stays cheap.
"""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib import import_module
from typing import Any, Literal

from casekeeper.values import value

Need = Literal[
    "nothing",
    "account",
    "oneself",
    "operator",
    "reader",
    "viewer",
    "editor",
    "admin",
    "owner",
    "session",
    "operation",
]
"""The least that a caller needs.

`nothing`: not even a token. `oneself`: to be the account in question, or an operator. `reader`: to be a member of the
casefile, or it is public. `session`: to be let into the session. `operation`: what the operation asks for.
"""


@value
class Example:
    """A worked example: a payload and what it does."""

    summary: str
    payload: Mapping[str, Any]


@value
class Verb:
    """One thing that can be asked for.

    Attributes:
        name: Noun and verb: `casefiles/create`.
        needs: The least that a caller needs; `note` says what else there is to it.
        command: The model that is sent, as `module:Class`.
        result: The answer's payload, likewise; of pages, `page_of` names what is on them.
        calls: The method that does it, from the server on. It takes the caller (unless the verb needs nothing) and the
            command; where `claims` is set also the ask, and then it says whether this was a repeat.
        claims: The text under which its request ids are claimed. It is part of stored keys and never changes, whatever
            becomes of the name. Empty where nothing is claimed.
        unclaimed: Whether it changes something all the same: doing it twice does no harm, or it answers with secrets.
        may_wait: Whether the result may say that the work has not ended; then it is answered with 202.
        streams: Whether it is streamed on request, as server-sent events.
        takes_bytes: Whether its body is the bytes themselves instead of the envelope.
    """

    name: str
    summary: str
    needs: Need
    command: str = ""
    result: str = ""
    page_of: str = ""
    calls: str = ""
    note: str = ""
    claims: str = ""
    unclaimed: bool = False
    may_wait: bool = False
    streams: bool = False
    takes_bytes: bool = False
    examples: Mapping[str, Example] = field(default_factory=dict[str, Example])

    @property
    def path(self) -> str:
        """Where HTTP has it."""
        return f"/v1/{self.name}"

    @property
    def noun(self) -> str:
        """What it is about."""
        return self.name.partition("/")[0]

    @property
    def operation_id(self) -> str:
        """Its name in OpenAPI."""
        return self.name.replace("/", "_")

    @property
    def changes(self) -> bool:
        """Whether it starts work or changes state, so that it is sent with a request id."""
        return bool(self.claims) or self.unclaimed

    @property
    def is_open(self) -> bool:
        """Whether it can be called without a token."""
        return self.needs == "nothing"

    def command_type(self) -> Any:
        """The model of what is sent."""
        return load(self.command)

    def result_type(self) -> Any:
        """The type of the answer's payload."""
        return load("paging:Page")[load(self.page_of)] if self.page_of else load(self.result)


@cache
def load(name: str) -> Any:
    """What `module:Class` names below `casekeeper`."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"casekeeper.{module}"), attribute)


_CASEFILE = "casefiles.casefile:CasefileView"
_CHANGED_GRANT = "casefiles.permissions:ChangedGrant"
_EXECUTED = "execution.status:Executed"
_ACCOUNT = "identity.accounts:Account"
_KEY = "identity.credentials:ApiKey"
_TOKENS = "identity.logins:TokenSet"
_IN = "cf_251023_5acf44"

_SESSIONS = (
    Verb(
        "sessions/create",
        "Open a session in a casefile.",
        needs="viewer",
        command="sessions.session:CreateSession",
        result="execution.service:SessionCreated",
        calls="execution.sessions.create_session",
        claims="/v1/sessions/create",
        examples={
            "interactive": Example(
                "Create a session",
                {"casefile_id": _IN, "session_type": "interactive", "metadata": {}},
            )
        },
    ),
    Verb(
        "sessions/execute",
        "Run a tool or an agent. With `Accept: text/event-stream` its facts and progress are streamed.",
        needs="operation",
        note="in another's shared session at least editor",
        command="execution.service:Execute",
        result=_EXECUTED,
        calls="execution.sessions.execute_operation",
        claims="/v1/sessions/execute",
        may_wait=True,
        streams=True,
        examples={
            "tool": Example(
                "Execute a tool",
                {
                    "casefile_id": _IN,
                    "session_id": None,
                    "operation": {
                        "operation_type": "tool",
                        "tool_name": "gmail_search",
                        "parameters": {"query": "invoice"},
                    },
                },
            ),
            "agent": Example(
                "Execute an agent",
                {
                    "casefile_id": _IN,
                    "operation": {
                        "operation_type": "agent",
                        "agent_name": "gemini-2.0-flash-exp",
                        "prompt": "Find my tax documents from 2024",
                        "message_history": [],
                    },
                },
            ),
        },
    ),
    Verb(
        "sessions/get",
        "Read a session, a page of its record, and what has not ended.",
        needs="session",
        command="execution.service:GetSession",
        result="execution.service:SessionDetail",
        calls="execution.sessions.get_session",
    ),
    Verb(
        "sessions/list",
        "List the sessions that the caller may see, newest first.",
        needs="account",
        note="shows what it may see",
        command="sessions.session:ListSessions",
        page_of="sessions.session:UnifiedSession",
        calls="execution.sessions.list_sessions",
    ),
    Verb(
        "sessions/close",
        "Close a session for good and get its statistics.",
        needs="admin",
        note="one's own session: any member",
        command="sessions.session:CloseSession",
        result="sessions.session:SessionClosedAnswer",
        calls="execution.sessions.close_session",
        claims="/v1/sessions/close",
    ),
)

_OPERATIONS = (
    Verb(
        "operations/get",
        "How an operation stands, or how it ended, outputs in full.",
        needs="session",
        command="execution.status:GetOperation",
        result=_EXECUTED,
        calls="execution.operations.get",
        may_wait=True,
    ),
    Verb(
        "operations/cancel",
        "Stop an operation. Repeating it is safe; one that has ended is left as it is.",
        needs="admin",
        note="one's own operation: any member",
        command="execution.status:CancelOperation",
        result=_EXECUTED,
        calls="execution.operations.cancel",
        unclaimed=True,
        may_wait=True,
    ),
    Verb(
        "events/query",
        "Events by ids or filters, across all sessions that the caller may read.",
        needs="account",
        note="shows what it may see",
        command="sessions.reading:QueryEvents",
        result="sessions.reading:FactPage",
        calls="sessions.reading.query",
    ),
)

_CASEFILES = (
    Verb(
        "casefiles/create",
        "Make a casefile; the caller becomes its owner.",
        needs="account",
        note="operators only, where `everybody_creates` is off",
        command="casefiles.commands:CreateCasefile",
        result=_CASEFILE,
        calls="casefiles.commands.create",
        claims="/v1/casefiles/create",
    ),
    Verb(
        "casefiles/get",
        "Read a casefile.",
        needs="reader",
        command="casefiles.commands:GetCasefile",
        result=_CASEFILE,
        calls="casefiles.commands.get",
    ),
    Verb(
        "casefiles/list",
        "The casefiles of which the caller is a member, newest first.",
        needs="account",
        note="shows its own casefiles",
        command="casefiles.commands:ListCasefiles",
        page_of=_CASEFILE,
        calls="casefiles.commands.page",
    ),
    Verb(
        "casefiles/update",
        "Change title, description, tags, public role or status.",
        needs="admin",
        command="casefiles.commands:UpdateCasefile",
        result=_CASEFILE,
        calls="casefiles.commands.update",
        claims="/v1/casefiles/update",
    ),
    Verb(
        "casefiles/delete",
        "Delete a casefile: for everybody, for good.",
        needs="owner",
        command="casefiles.commands:DeleteTheCasefile",
        result="casefiles.commands:Deleted",
        calls="casefiles.commands.delete",
        claims="/v1/casefiles/delete",
    ),
)

_PERMISSIONS = (
    Verb(
        "permissions/grant",
        "Give a user a role, or change the one they have.",
        needs="admin",
        command="casefiles.permissions:GrantRole",
        result=_CHANGED_GRANT,
        calls="casefiles.permissions.grant",
        claims="/v1/permissions/grant",
    ),
    Verb(
        "permissions/revoke",
        "Take a user's role away; what they run in the casefile is stopped.",
        needs="admin",
        note="one's own role: every member but the owner",
        command="casefiles.permissions:RevokeRole",
        result=_CHANGED_GRANT,
        calls="casefiles.permissions.revoke",
        claims="/v1/permissions/revoke",
    ),
    Verb(
        "permissions/list",
        "Who has access to a casefile.",
        needs="viewer",
        command="casefiles.permissions:ListGrants",
        page_of="casefiles.permissions:GrantView",
        calls="casefiles.permissions.page",
    ),
    Verb(
        "permissions/transfer",
        "Make another user the owner; the former owner stays as admin.",
        needs="owner",
        command="casefiles.permissions:TransferCasefile",
        result=_CASEFILE,
        calls="casefiles.permissions.transfer",
        claims="/v1/permissions/transfer",
    ),
    Verb(
        "permissions/check",
        "Whether somebody may do something, and if not, why and what would do. Nothing is executed.",
        needs="reader",
        note="for others: admin",
        command="execution.explain:CheckPermission",
        result="execution.explain:Verdict",
        calls="execution.explain.check",
    ),
)

_DOCUMENTS = (
    Verb(
        "documents/list",
        "A casefile's documents, newest filed first.",
        needs="reader",
        command="documents.filing:ListDocuments",
        page_of="documents.document:DocumentSummary",
        calls="documents.filing.page",
    ),
    Verb(
        "documents/get",
        "One document with its text.",
        needs="reader",
        command="documents.filing:GetDocument",
        result="documents.document:Document",
        calls="documents.filing.get",
    ),
    Verb(
        "documents/delete",
        "Delete documents and what was attached to them, for good; the record keeps that they were there.",
        needs="admin",
        command="documents.custody:DeleteTheDocuments",
        result="documents.custody:DocumentsDeleted",
        calls="documents.custody.delete",
        claims="/v1/documents/delete",
    ),
    Verb(
        "documents/upload",
        "Bring bytes in, streamed as the raw body; `document_import` files them within 24 hours.",
        needs="editor",
        result="documents.filing:Uploaded",
        calls="documents.filing.upload",
        claims="/v1/documents/upload",
        takes_bytes=True,
    ),
)

_IDENTITY = (
    Verb(
        "auth/token",
        "Tokens for a password or an API key.",
        needs="nothing",
        command="identity.logins:Login",
        result=_TOKENS,
        calls="identity.logins.log_in",
        unclaimed=True,
    ),
    Verb(
        "auth/refresh",
        "The next tokens for a refresh token.",
        needs="nothing",
        command="identity.logins:Refresh",
        result=_TOKENS,
        calls="identity.logins.refresh",
        unclaimed=True,
    ),
    Verb(
        "auth/session",
        "Log a browser in with a password: begins its session, whose cookie no script can read.",
        needs="nothing",
        command="doors.http.browser:BrowserLogin",
        result="doors.http.browser:WhoIsIn",
        unclaimed=True,
    ),
    Verb(
        "auth/logout",
        "End a login or, if none is named, all tokens of an account everywhere, and stop what it has running.",
        needs="oneself",
        command="identity.logouts:LogOut",
        result="identity.logouts:LoggedOut",
        calls="identity.logouts.log_out",
        claims="/v1/auth/logout",
    ),
    Verb(
        "accounts/create",
        "Make an account; operators only.",
        needs="operator",
        command="identity.account_commands:CreateAccount",
        result=_ACCOUNT,
        calls="identity.accounts.create",
        claims="/v1/accounts/create",
    ),
    Verb(
        "accounts/list",
        "All accounts, by user id; operators only.",
        needs="operator",
        command="identity.account_commands:ListAccounts",
        page_of=_ACCOUNT,
        calls="identity.accounts.page",
    ),
    Verb(
        "accounts/update",
        "Change an account (operators), or one's own password. Tokens of the account end.",
        needs="operator",
        note="one's own password: the account itself",
        command="identity.account_commands:UpdateAccount",
        result=_ACCOUNT,
        calls="identity.accounts.update",
        claims="/v1/accounts/update",
    ),
    Verb(
        "accounts/deactivate",
        "End an account everywhere at once; operators only.",
        needs="operator",
        command="identity.account_commands:DeactivateAccount",
        result=_ACCOUNT,
        calls="identity.accounts.deactivate",
        claims="/v1/accounts/deactivate",
    ),
    Verb(
        "keys/create",
        "Make an API key; its secret is shown this once.",
        needs="oneself",
        command="identity.api_keys:CreateKey",
        result="identity.api_keys:NewApiKey",
        calls="identity.api_keys.create",
        claims="/v1/keys/create",
    ),
    Verb(
        "keys/list",
        "The keys of an account, oldest first.",
        needs="oneself",
        command="identity.api_keys:ListKeys",
        page_of=_KEY,
        calls="identity.api_keys.page",
    ),
    Verb(
        "keys/revoke",
        "End a key, and all tokens of its account with it.",
        needs="oneself",
        command="identity.api_keys:RevokeKey",
        result=_KEY,
        calls="identity.api_keys.revoke",
        claims="/v1/keys/revoke",
    ),
)

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verbs in (_SESSIONS, _OPERATIONS, _CASEFILES, _PERMISSIONS, _DOCUMENTS, _IDENTITY)
    for verb in verbs
}
"""By name."""
