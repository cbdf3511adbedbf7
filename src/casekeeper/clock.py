"""The only reader of the wall clock. Everything else takes a `Clock`, so that time can stand still in a test."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
Monotonic = Callable[[], float]
"""Seconds that only grow, whatever happens to the wall clock; for durations and leases."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def utc_now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC)  # noqa: TID251


def to_us(instant: datetime) -> int:
    """Whole microseconds since 1970-01-01T00:00Z; stores keep instants in this form."""
    return (instant - _EPOCH) // _MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC instant of a count of microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=us)


def rfc3339(instant: datetime) -> str:
    """The instant as the record writes it: UTC, six fractional digits, `Z` (RFC 3339 §5.6)."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
