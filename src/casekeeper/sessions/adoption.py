"""Importing a session that another store wrote."""

from collections.abc import Sequence
from typing import Any

from casekeeper.journal.commits import About, Condition, IdTaken, Record
from casekeeper.sessions.session import UnifiedSession
from casekeeper.values import value


@value
class SessionIdIsFreeIn(Condition):
    """The session id is not taken by another casefile. `found` is the id of the casefile whose it is, or None."""

    casefile_id: str
    session_id: str

    @property
    def about(self) -> Sequence[About]:
        return About("casefile", self.casefile_id, alone=True), About("session", self.session_id, alone=True)

    def refusal(self, found: Any) -> Exception | None:
        return IdTaken(self.session_id) if found not in (None, self.casefile_id) else None


@value
class AdoptSession(Record):
    """A session as it was elsewhere, open or closed; its head follows from the facts that are adopted."""

    session: UnifiedSession

    @property
    def about(self) -> Sequence[About]:
        session = self.session
        return (
            About("casefile", session.casefile_id, alone=True),
            About("session", session.session_id, alone=True),
        )
