"""The only reader of the wall clock. Everything else takes a `Clock`, so that time can stand still in a test."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from time import monotonic

Clock = Callable[[], datetime]
Monotonic = Callable[[], float]
"""Seconds that only grow, whatever happens to the wall clock; for durations and leases."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251


class AgreedClock:
    """The time of those who share a store: the store's own, which each process asks for now and then.

    In between it goes with the process's monotonic clock, so it is right where the machine's wall clock is wrong, or
    is set while the process runs. Until it has asked, and where nobody shares the store, it is the wall clock.
    """

    def __init__(self, *, monotonic: Monotonic = monotonic) -> None:
        self._monotonic = monotonic
        self._zero: datetime | None = None

    def __call__(self) -> datetime:
        """The present instant."""
        return utc_now() if self._zero is None else self._zero + self._since_zero()

    async def ask(self, store_now: Callable[[], Awaitable[datetime]]) -> None:
        """Agree with the store: its answer was true at some moment between the asking and the answer's arrival.

        Raises:
            StoreUnavailable: It does not answer; the clock goes on as before.
        """
        sent = self._since_zero()
        now = await store_now()
        earliest, latest = now - self._since_zero(), now - sent
        # No more than needed: a slow answer says little, and must not move what a quick one has told.
        self._zero = min(max(self._zero or earliest + (latest - earliest) / 2, earliest), latest)

    def _since_zero(self) -> timedelta:
        return timedelta(seconds=self._monotonic())


def to_us(instant: datetime) -> int:
    """Whole microseconds since 1970-01-01T00:00Z; stores keep instants in this form."""
    return (instant - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC instant of a count of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


def rfc3339(instant: datetime) -> str:
    """The instant as the record writes it: UTC, six fractional digits, `Z` (RFC 3339 §5.6)."""
    utc = instant if instant.tzinfo is UTC else instant.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")[:-6] + "Z"
