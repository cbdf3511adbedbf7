"""What a running operation may see and do."""

from collections.abc import Callable
from dataclasses import KW_ONLY
from datetime import datetime
from typing import Any, Protocol

from casekeeper.acl import Role
from casekeeper.casefiles.access import Access
from casekeeper.documents.casefile_documents import CasefileDocuments
from casekeeper.errors import Denied
from casekeeper.values import value


class RightsLost(Denied):
    """The caller's permission ended while the operation ran; its result is `denied`."""

    code = "rights_lost"
    title = "The permission for this ended while it ran"


class TooDeep(Denied):
    """Operations call each other deeper than any sensible plan."""

    code = "too_deep"
    title = "Operations are nested too deep"
    check = "what"


class NestedFailed(Exception):
    """A nested operation was refused or did not succeed. The caller decides whether it can go on without."""

    def __init__(
        self,
        type_: str,
        message: str,
        *,
        retryable: bool = False,
        usage: dict[str, int | str] | None = None,
    ) -> None:
        self.usage = usage
        self.type = type_
        self.message = message
        self.retryable = retryable
        super().__init__(message)


class Invoke(Protocol):
    """Runs another operation inside this one, through the same corridor, with the caller's rights at that moment."""

    async def __call__(
        self, call: Any, *, call_id: str | None = None, begun: Callable[[str], None] | None = None
    ) -> Any:
        """Its outputs.

        `call` is a `ToolCall` or `AgentCall`; `call_id` is kept as the child's request id; `begun` is told the
        child's event id as soon as it has one.

        Raises:
            NestedFailed: Refused, failed, cancelled, timed out. The child's own fact says why.
        """
        ...


class NoteRefusal(Protocol):
    """Leaves one `denied` child for a call that never became an operation: invented, forbidden, or ill-formed.

    Returns the child's event id.
    """

    async def __call__(
        self, *, name: str, inputs: Any, error_type: str, message: str, call_id: str
    ) -> str: ...


@value
class MDSContext:
    """Who runs this operation, where, and by which event; and the casefile's documents, bound to it.

    Ids are fixed when the operation starts: nothing that a model or a parameter says can point elsewhere.
    """

    _: KW_ONLY
    access: Access
    session_id: str
    event_id: str
    root_event_id: str
    depth: int
    deadline: datetime
    documents: CasefileDocuments
    invoke: Invoke
    note_refusal: NoteRefusal
    may: Callable[[Any], bool]
    """Whether the caller may run this operation, if need be with an approval; the executor judges again."""
    taint: Callable[[], None]
    """Say that what this operation asks for from now on may follow what somebody else has written."""
    progress: Callable[[Any], None]

    @property
    def user_id(self) -> str:
        """The account whose rights are used."""
        return self.access.caller.user_id

    @property
    def casefile_id(self) -> str:
        """The casefile, and the only one, in which this runs."""
        return self.access.casefile_id

    @property
    def role(self) -> Role:
        """The caller's role when the operation was let in."""
        return self.access.role or Role.VIEWER
