"""How long a revoke takes, when nothing goes wrong, in a place that is never public: for the record, not for a verdict."""

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from statistics import quantiles
from time import monotonic

from tests.journeys.deployed import begun
from tests.journeys.rain import Rain
from tests.journeys.rain_logins import Person
from tests.journeys.support import bearing, request_bytes, tool_call


def told(name: str, seconds: Sequence[float]) -> str:
    """A line for a report."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    p50, p99, most = (f"{1000 * s:.1f}" for s in (cuts[49], cuts[98], max(seconds)))
    return f"{name}: p50 {p50}, p99 {p99}, most {most} ms ({len(seconds)} times)"


async def until_refused(rain: Rain, times: int) -> list[float]:
    """From the answer of a revoke that waits for nobody to the first refusal at each other worker, one call included."""
    took: list[float] = []

    async def refused(guest: Person, place: str, worker: int, since: float) -> None:
        async with asyncio.timeout(10):
            while True:
                reply = await rain.ask(guest, worker, "/v1/casefiles/get", {"casefile_id": place})
                if reply.status == 404:
                    took.append(reply.answered - since)
                    return

    workers = range(len(rain.site.workers))
    for number in range(times):
        guest, place = rain.guests[number % len(rain.guests)], rain.places[-1]
        await _grant(rain, guest, place)
        for worker in workers:
            # From here on each believes a cache of its own.
            await rain.ask(guest, worker, "/v1/casefiles/get", {"casefile_id": place})
        one = number % len(workers)
        payload = {"casefile_id": place, "user_id": guest.user_id, "wait": "none"}
        reply = await rain.ask(rain.owner, one, "/v1/permissions/revoke", payload)
        others = [worker for worker in workers if worker != one]
        await asyncio.gather(*(refused(guest, place, worker, reply.answered) for worker in others))
    return took


async def until_stopped(rain: Rain, marks: Path, times: int) -> tuple[list[float], list[float], list[float]]:
    """From the sending of a revoke to the end of an operation and of a stream, at two other workers, and to its answer."""
    stopped, closed, answered = list[float](), list[float](), list[float]()
    marks.mkdir()
    for number in range(times):
        guest, place = rain.guests[number % len(rain.guests)], rain.places[-1]
        await _grant(rain, guest, place)
        made = await rain.ask(guest, 0, "/v1/sessions/create", {"casefile_id": place})
        session_id = made.body["payload"]["session_id"]
        token = guest.token(rain.rng)
        assert token is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", rain.site.workers[1].port)
        path = f"/v1/sessions/{session_id}/events/stream"
        writer.write(request_bytes("GET", path, headers=bearing(token.text)))
        call = tool_call("hold", {"marks": str(marks)}, session_id=session_id)
        held = asyncio.create_task(_until(rain.ask(guest, 0, "/v1/sessions/execute", call)))
        streamed = asyncio.create_task(_until(reader.read()))
        await begun(marks, number + 1)
        since = monotonic()
        payload = {"casefile_id": place, "user_id": guest.user_id}
        await rain.ask(rain.owner, 2, "/v1/permissions/revoke", payload)
        answered.append(monotonic() - since)
        stopped.append(await held - since)
        closed.append(await streamed - since)
        writer.close()
    return stopped, closed, answered


async def _until(work: Awaitable[object]) -> float:
    await work
    return monotonic()


async def _grant(rain: Rain, guest: Person, place: str) -> None:
    payload = {"casefile_id": place, "user_id": guest.user_id, "role": "viewer"}
    await rain.ask(rain.owner, 0, "/v1/permissions/grant", payload)
