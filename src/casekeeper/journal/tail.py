"""The tail: each casefile's facts in commit order, the source of live views, webhooks, analytics and the like.

The store writes it together with the facts, so no room can forget to. A consumer keeps a position and reads on from it;
after a crash it reads again what it had not recorded as done, and nothing else. How each store keeps the order is in
docs/decisions/0019.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Sequence
from typing import Protocol

from casekeeper.errors import PositionInvalid
from casekeeper.journal.events import Kind, StoredFact
from casekeeper.values import value

# An epoch, a time, a session id and a number fit.
_TEXT_MAX = 400


@value
class Position:
    """A place in a casefile's tail. Outside it is opaque text; only the store that made it can interpret it.

    `epoch` is the permission feed's, which changes when a backup is restored. A position is valid in every process that
    has the store open, and stays valid until then. Positions cannot be compared.
    """

    epoch: str
    place: str

    @property
    def text(self) -> str:
        """The text to keep: at most 400 letters, digits, `-` and `_`. It is neither secret nor signed."""
        return urlsafe_b64encode(f"{self.epoch} {self.place}".encode()).rstrip(b"=").decode()

    @staticmethod
    def of(text: str) -> "Position":
        """The position of a kept text.

        Raises:
            PositionInvalid: The text is not a position.
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
    """A fact in the tail. `position` is right behind it: reading from there gives the next one."""

    position: Position
    event_id: str
    kind: Kind
    fact: StoredFact


@value
class CasefilesWithNews:
    """Casefiles with new facts, and the position for the next call; unless `is_all`, there are more already."""

    casefile_ids: Collection[str]
    position: Position
    is_all: bool


class Tail(Protocol):
    """The facts of a casefile in the order of their commits.

    *Order.* All readers get the same order, at any time and in any process. Facts of one session come in the order of
    `seq`. A commit that was acknowledged before another began comes first; concurrent commits have one order as well.
    The facts of one commit become readable together, though facts of concurrent commits may stand between them.

    *Exactly once.* Reading from position to position gives each fact of the casefile once, whatever other processes
    commit meanwhile, however long a commit takes, and whoever crashes. A fact may be held back until no earlier commit
    can appear any more: not at all on SQLite, usually for milliseconds on PostgreSQL, for a quarter of a second on
    Firestore.

    *Cost.* Reading costs what is read, however much there is; readers cost writers nothing.

    Access is not checked here: private sessions and the casefile's record session are included, and consumers must
    apply the rules of `sessions.manager` themselves.
    """

    async def read(
        self, casefile_id: str, after: Position | None, limit: int, *, payloads: bool = False
    ) -> tuple[Sequence[TailFact], Position]:
        """The next facts behind a position, and the position from which to read next.

        Fewer than `limit` (at least 1) facts mean that there are no more at the moment; the position may have moved all
        the same. None is the position before the casefile's first fact. With `payloads`, facts have inputs and outputs
        as `EventStore.facts` gives them; without, they have neither body nor salt, and size 0.

        Raises:
            PositionOfAnotherEpoch: The store was restored since. Begin anew, knowing that known facts may be gone.
            PositionInvalid: The position is not one of this store's.
            StoreUnavailable: The store does not answer.
        """
        ...

    async def end(self, casefile_id: str) -> Position:
        """The present end of the tail: every fact that is committed after this call comes behind it.

        So does a fact that was committed before but is still held back.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        ...

    async def casefiles_with_news(self, after: Position, facts: int = 1_000) -> CasefilesWithNews:
        """The casefiles with facts behind a position, found by looking at about `facts` facts of all casefiles.

        For consumers of everything, who begin with the `end` of any casefile. No casefile with news is left out. A
        casefile may be named again, or before its facts can be read.

        Raises:
            PositionOfAnotherEpoch, PositionInvalid, StoreUnavailable: As `read`.
        """
        ...
