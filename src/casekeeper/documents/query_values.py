"""Dates, ages and sizes as Gmail's operators take them. Each is None where the text is none."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

# The separator may be either; what follows the year may be missing.
_YEAR_FIRST = re.compile(r"([0-9]{4})(?:([/-])([0-9]{1,2})(?:\2([0-9]{1,2}))?)?")
_MONTH_FIRST = re.compile(r"([0-9]{1,2})([/-])([0-9]{1,2})\2([0-9]{4})")
_EPOCH = re.compile(r"[0-9]{8,11}")
_AGE = re.compile(r"([0-9]{1,5})([hdwmy])")
_SIZE = re.compile(r"([0-9]{1,15})([kmg]?)b?")
_FACTORS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)


def day(text: str) -> datetime | None:
    """The midnight (UTC) that begins a day, month or year; or an instant in seconds since 1970."""
    try:
        if found := _YEAR_FIRST.fullmatch(text):
            return datetime(int(found[1]), int(found[3] or 1), int(found[4] or 1), tzinfo=UTC)
        if found := _MONTH_FIRST.fullmatch(text):
            return datetime(int(found[4]), int(found[1]), int(found[3]), tzinfo=UTC)
        return datetime.fromtimestamp(int(text), UTC) if _EPOCH.fullmatch(text) else None
    except (ValueError, OverflowError):
        return None


def age(text: str, now: datetime) -> datetime | None:
    """The instant so many hours, days, weeks, months or years before `now`."""
    found = _AGE.fullmatch(text)
    if found is None:
        return None
    number, unit = int(found[1]), found[2]
    try:
        if unit in "my":
            months = now.year * 12 + now.month - 1 - number * (12 if unit == "y" else 1)
            return _in_month(now, months)
        return now - number * {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}[unit]
    except OverflowError:
        return _EARLIEST


def size(text: str) -> int | None:
    """A size in bytes, given in bytes, KiB, MiB or GiB."""
    found = _SIZE.fullmatch(text)
    return int(found[1]) * _FACTORS[found[2]] if found else None


def _in_month(now: datetime, months: int) -> datetime:
    year, month = months // 12, months % 12 + 1
    if year < 1:
        return _EARLIEST
    # The last day of a shorter month, as calendars do.
    for shorter in range(4):
        try:
            return now.replace(year=year, month=month, day=now.day - shorter)
        except ValueError:
            continue
    raise AssertionError("every month has 28 days")
