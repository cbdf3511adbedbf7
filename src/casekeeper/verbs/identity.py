"""Logins, accounts and API keys."""

from casekeeper.verbs.verb import Verb

_ACCOUNT = "identity.accounts:Account"
_KEY = "identity.credentials:ApiKey"
_TOKENS = "identity.logins:TokenSet"

VERBS = (
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
