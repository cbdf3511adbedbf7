"""The command line on a machine whose wall clock is off: `python -m tests.journeys.skewed SECONDS PLANT serve …`.

Only the wall clock is: Python's own `datetime` and `time` tell another instant, before anything of the server is
imported. The monotonic clock, sleeping and the loop's timers stay as they are. PLANT names a fault to plant, or is empty.
"""

import datetime
import sys
import time
from typing import Any

_TRUE, _time, _time_ns = datetime.datetime, time.time, time.time_ns


class _Kind(type):
    """Whatever is an instant stays one."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _TRUE)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _TRUE)


def shift(seconds: float) -> None:
    """Set this process's wall clock forward, or back."""
    shifted = datetime.timedelta(seconds=seconds)

    class Skewed(_TRUE, metaclass=_Kind):
        """`datetime` with another present; what it makes are ordinary instants."""

        __slots__ = ()

        def __new__(cls, *parts: Any, **named: Any) -> Any:
            return _TRUE(*parts, **named)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return _TRUE.now(tz) + shifted

        @classmethod
        def fromtimestamp(cls, timestamp: float, tz: datetime.tzinfo | None = None) -> Any:
            return _TRUE.fromtimestamp(timestamp, tz)

        @classmethod
        def fromisoformat(cls, text: str) -> Any:
            return _TRUE.fromisoformat(text)

        @classmethod
        def strptime(cls, text: str, form: str) -> Any:
            return _TRUE.strptime(text, form)

    for module, name, instead in (
        (datetime, "datetime", Skewed),
        (time, "time", lambda: _time() + seconds),
        (time, "time_ns", lambda: _time_ns() + int(seconds * 1_000_000_000)),
    ):
        setattr(module, name, instead)


if __name__ == "__main__":
    shift(float(sys.argv[1]))
    from tests.journeys import holding, rain_plants

    rain_plants.plant(sys.argv[2])
    sys.exit(holding.run(sys.argv[3:]))
