"""Commands on accounts."""

from typing import Annotated

from pydantic import Field, StringConstraints

from casekeeper.identity.passwords import Password
from casekeeper.ids import UserId
from casekeeper.journal.requests import NotFingerprinted
from casekeeper.paging import DEFAULT_LIMIT, Limit
from casekeeper.strict import Strict

Name = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class CreateAccount(Strict):
    """Make an account. Without a password it can only be used through API keys."""

    user_id: UserId
    password: Annotated[Password | None, NotFingerprinted()] = None
    display_name: Name = ""
    is_operator: bool = False


class UpdateAccount(Strict):
    """Change an account. Operators change any; everyone else only their own password, giving the present one."""

    user_id: UserId
    password: Annotated[Password | None, NotFingerprinted()] = None
    current_password: Annotated[str | None, Field(max_length=256), NotFingerprinted()] = None
    display_name: Name | None = None
    is_operator: bool | None = None
    is_active: bool | None = None


class DeactivateAccount(Strict):
    """End an account: its tokens and keys stop at once, its running work is stopped. Nothing is deleted."""

    user_id: UserId


class ListAccounts(Strict):
    """All accounts, by user id."""

    limit: Limit = DEFAULT_LIMIT
    cursor: str | None = None
