"""Running coroutines a step at a time."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(4):
        await asyncio.sleep(0)


@coroutine
def rest_of(check: Coroutine[Any, Any, None], first: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that has begun, waiting for what it waits for first."""
    waits_for = first
    while True:
        try:
            yield waits_for
        except BaseException as error:
            go_on: Callable[[], Any] = _throwing(check, error)
        else:
            go_on = _going(check)
        try:
            waits_for = go_on()
        except StopIteration:
            return


def _throwing(check: Coroutine[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: check.throw(error)


def _going(check: Coroutine[Any, Any, None]) -> Callable[[], Any]:
    return lambda: check.send(None)
