"""What a running operation may see and do."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY
from datetime import datetime
from typing import Any, Protocol

from casekeeper.acl import Role
from casekeeper.casefiles.access import Access
from casekeeper.documents.casefile_documents import CasefileDocuments
from casekeeper.errors import Denied
from casekeeper.journal.operations import WaitingFor
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


class Parked(Exception):
    """The operation waits: raised out of `Operation.run`, by operations that say that they park.

    Nothing of the run is kept but its snapshot; when it goes on, `run` is called anew with `context.resumed`.
    """

    def __init__(
        self,
        until: datetime | None = None,
        for_what: Sequence[WaitingFor] = (),
        *,
        snapshot: bytes | None = None,
    ) -> None:
        """Wait.

        Args:
            until: When it goes on by itself; None: only when it is woken. A word that came before it parked counts.
            for_what: What callers are told that it waits for.
            snapshot: JSON, at most 10 MiB, from which it goes on; None keeps the one that it has, if any.
        """
        super().__init__("It waits.")
        self.until = until
        self.for_what = for_what
        self.snapshot = snapshot


class NestedWaits(Parked):
    """A nested operation has parked. Let through, it parks the one around it until the nested one has ended.

    Whoever parks otherwise because of it passes on `until`.
    """

    def __init__(self, event_id: str, for_what: Sequence[WaitingFor], until: datetime | None = None) -> None:
        super().__init__(until, for_what)
        self.event_id = event_id


@value
class Resumed:
    """How an operation that goes on left off.

    Attributes:
        attempt: How often it has been taken up, from 2: unlike the one before in everything that may not repeat.
        snapshot: What it parked with last; None if it never did with one.
        version: The snapshot's.
    """

    attempt: int
    snapshot: bytes | None
    version: int


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


def _never() -> bool:
    return False


class Invoke(Protocol):
    """Runs another operation inside this one, through the same corridor, with the caller's rights at that moment."""

    async def __call__(
        self,
        call: Any,
        *,
        call_id: str | None = None,
        key: str | None = None,
        tainted: bool = False,
        begun: Callable[[str], None] | None = None,
    ) -> Any:
        """Its outputs.

        Args:
            call: A `ToolCall` or `AgentCall`.
            call_id: Kept as the child's request id.
            key: Names the call within this operation: asked again with the same key, after a restart too, the outcome
                of the first is given and nothing runs again. At most 200 characters. Without one it runs each time.
            tainted: What it is asked to do follows what somebody else may have written, even if nothing else here does.
            begun: Called with the child's event id as soon as it has one.

        Raises:
            NestedFailed: Refused, failed, cancelled, timed out; the child's own fact says why. Also, with `retryable`
                and without a child, where the answer is "later"; and where the key belongs to another call.
            NestedWaits: It has parked, and so may this one; an operation that does not park waits for its end instead.
            Parked: The server is stopping and this operation parks, so it calls nothing more here.
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
    resumed: Resumed | None = None
    """None the first time; whatever is done before it is asked is done again after a crash."""
    is_stopping: Callable[[], bool] = _never
    """Whether the server stops: what parks should do so at the next good moment, and goes on elsewhere."""

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
