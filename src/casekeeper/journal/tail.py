"""What was committed, in order, casefile by casefile: what a live view, webhooks, figures and the like go by.

The store's own batch writes it with the facts, so no room can forget it. A consumer keeps a position and reads on from
it: after a crash it reads again what it had not yet kept, and nothing else. Why this is so on each store:
docs/decisions/0017.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Sequence
from typing import Protocol

from casekeeper.errors import PositionInvalid
from casekeeper.journal.events import Kind, StoredFact
from casekeeper.values import value

# An epoch, an instant, a session's id and a number; anything longer was not made here.
_TEXT_MAX = 400


@value
class Position:
    """A place between two facts of the tail. Outside it is text that only the store understands.

    `epoch` is the permission feed's, which changes when a backup is restored. Positions of one store can be given to
    any process that has it open; they are not compared by anybody else.
    """

    epoch: str
    place: str

    @property
    def text(self) -> str:
        """As a consumer keeps it: at most 400 letters, digits, `-` and `_`. It is no secret, and not signed."""
        return urlsafe_b64encode(f"{self.epoch} {self.place}".encode()).rstrip(b"=").decode()

    @staticmethod
    def of(text: str) -> "Position":
        """The position that a consumer has kept.

        Raises:
            PositionInvalid: It is none of ours.
        """
        try:
            if len(text) > _TEXT_MAX:
                raise PositionInvalid
            epoch, place = (
                urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode().split(" ")
            )
        except ValueError as error:
            raise PositionInvalid from error
        return Position(epoch, place)


@value
class TailFact:
    """A fact as the tail tells of it; `position` is the place right behind it, from which reading goes on."""

    position: Position
    event_id: str
    kind: Kind
    fact: StoredFact


@value
class CasefilesWithNews:
    """Casefiles in which something was committed, and from where to ask the next time; not `is_all`: at once."""

    casefile_ids: Collection[str]
    position: Position
    is_all: bool


class Tail(Protocol):
    """The facts of a casefile in the order of their commits.

    *Order.* Every reader gets the same order, at any time and from any process. Facts of one session come by their
    seq. What was acknowledged before another commit began comes before what that wrote; commits under way at once have
    one order as well, the same for all. What one commit wrote becomes readable at once, though others may
    stand between its facts.

    *Nothing lost, nothing twice.* Reading from position to position gives every fact of the casefile once, whatever is
    committed meanwhile by whichever process, however long a commit takes and wherever somebody crashes. For this a
    fact may be held back until no older commit can come any more; docs/decisions/0017 says for how long.

    *Cost* grows with what is read, not with what there is, and nothing is written for a reader.

    Whoever may read what is the consumer's affair: private sessions and the casefile's own record are in it, too.
    """

    async def read(
        self, casefile_id: str, after: Position | None, limit: int, *, payloads: bool = False
    ) -> tuple[Sequence[TailFact], Position]:
        """The next facts behind a position, and the position behind them.

        Fewer than `limit` facts: there are no more for the time being. None as position is before the first fact of
        the casefile; one that is older than all of them reads the same. `payloads`: with inputs and outputs, as in
        `EventStore.facts`; otherwise the facts come without body, salt and size.

        Raises:
            PositionOfAnotherEpoch: The store was restored since; begin anew, knowing that facts may have gone.
            PositionInvalid: The position belongs to another kind of store.
            StoreUnavailable: It does not answer.
        """
        ...

    async def end(self, casefile_id: str) -> Position:
        """The present position: every fact that is committed after this call comes behind it.

        What was committed before may come behind it as well, if it is still held back.

        Raises:
            StoreUnavailable: It does not answer.
        """
        ...

    async def casefiles_with_news(self, after: Position, facts: int = 1_000) -> CasefilesWithNews:
        """The casefiles in which something was committed behind a position, by looking at about so many facts.

        For consumers of everything, who take what `end` says of any casefile as the first position. No casefile with
        news is left out; one may be named again, or though nothing of it can be read yet.

        Raises:
            PositionOfAnotherEpoch, PositionInvalid, StoreUnavailable: As `read`.
        """
        ...
