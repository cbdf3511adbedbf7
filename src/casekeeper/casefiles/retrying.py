"""Retries of changes that lost a race before they were committed: the permission changed, or another write came first."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from casekeeper.casefiles.casefile import FenceBroken
from casekeeper.errors import Refused, StoreUnavailable

T = TypeVar("T")

# Each lost race means that somebody else got through; a handful of tries is plenty.
_TRIES = 8


def overtaken() -> StoreUnavailable:
    """The error for a caller whose every retry lost the race."""
    return StoreUnavailable("The permission, or what it was for, changed again and again; try once more.")


async def retried(
    attempt: Callable[[bool], Awaitable[T]],
    *,
    races: tuple[type[Exception], ...] = (),
    tries: int = _TRIES,
    otherwise: Callable[[], Exception] | None = None,
) -> T:
    """What the attempt makes, tried again where its fence broke or it lost one of these races.

    From the first broken fence on the attempt is called with True: it must look the permission up in the store.

    Raises:
        StoreUnavailable: It lost each time; the last race's own error where that is a refusal, or what `otherwise` makes.
    """
    again, lost = False, Exception()
    for _ in range(tries):
        try:
            return await attempt(again)
        except FenceBroken as error:
            again, lost = True, error
        except races as error:
            lost = error
    if otherwise is None and isinstance(lost, Refused):
        raise lost
    raise (otherwise or overtaken)() from lost
