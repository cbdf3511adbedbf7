"""The authenticated caller, and for whom it may act."""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime

from casekeeper.acl_feed import Scope
from casekeeper.errors import OperatorOnly
from casekeeper.values import value


@value
class Principal:
    """Who calls. Made by the authenticator from a verified token, or from a stored account for work without one.

    Attributes:
        pseudonym: How the record's headers name the account.
        asof: Up to which number of the permission feed `scopes` are true.
        expires_at: When the token ends; a token minted in an answer to this caller ends no later.
        used: Casefiles in the order of their use by this token on this worker, for the eviction of scopes.
        browser_session: The browser's session by whose cookie it came; None where a token proved it.
    """

    user_id: str
    pseudonym: str
    is_operator: bool
    epoch: str
    asof: int
    expires_at: datetime
    scopes: Mapping[str, Scope] = field(default_factory=dict[str, Scope])
    used: dict[str, None] = field(default_factory=dict[str, None], compare=False)
    browser_session: str | None = None

    def touch(self, casefile_id: str) -> None:
        """Note that a scope was used, most recent last."""
        self.used.pop(casefile_id, None)
        self.used[casefile_id] = None


def must_be_operator(caller: Principal) -> None:
    """Let operators pass.

    Raises:
        OperatorOnly: The caller is none.
    """
    if not caller.is_operator:
        raise OperatorOnly


def own_or_operator(caller: Principal, user_id: str | None) -> str:
    """Whose credentials are meant: one's own, or, for operators, another's."""
    if user_id is None or user_id == caller.user_id:
        return caller.user_id
    must_be_operator(caller)
    return user_id
