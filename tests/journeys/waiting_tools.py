"""Tools that wait, and leave traces of what they did outside the store: `sent` and `ran`, files that are only appended to.

`sent`: a line for each message that left the house: event id, root's event id, key. `ran`: a line for each time that an
operation that parks was begun or taken up: event id, name, attempt, process. `refused`: what `works` was not let do.
"""

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from casekeeper.acl import Effect
from casekeeper.documents.document import NewDocument
from casekeeper.journal.commits import Commit
from casekeeper.journal.operations import OperationEnded, WaitingFor, Wake
from casekeeper.operations.context import MDSContext, NestedFailed, NestedWaits, Parked
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import Tool, tool
from tests.journeys.waiting_servers import Home

SENT, RAN, REFUSED = "sent", "ran", "refused"
STEPS = 6
# No test kills, or takes the store away, so often that this is not enough.
_TRIES = 200


def tools(home: Home) -> Sequence[Tool]:
    """All of them."""
    return [
        _posts(home),
        _naps(home),
        _errand(home),
        _job(home),
        *_waits(home),
        *_around(home),
        _works(home),
        _wakes(home),
    ]


def parking() -> frozenset[str]:
    """The names of those that park."""
    return frozenset(one.name for one in tools(Home(Path())) if one.parks)


def _ran(home: Home, call: MDSContext, name: str) -> int:
    attempt = call.resumed.attempt if call.resumed else 1
    home.mark(RAN, call.event_id, name, attempt, os.getpid())
    return attempt


def _now(home: Home, later_ms: float = 0) -> Any:
    return home.server.clock() + timedelta(milliseconds=later_ms)


def _tool(name: str, parameters: dict[str, Any]) -> ToolCall:
    return ToolCall(operation_type="tool", tool_name=name, parameters=parameters)


def _posts(home: Home) -> Tool:
    @tool(effects={Effect.EXTERNAL})
    async def posts(call: MDSContext, key: str, pause_ms: int = 0) -> str:
        """Send something out, between two pauses."""
        home.dies_here("before-posting")
        await asyncio.sleep(pause_ms / 1000)
        home.mark(SENT, call.event_id, call.root_event_id, key)
        home.dies_here("after-posting")
        await asyncio.sleep(pause_ms / 1000)
        return key

    return posts


def _naps(home: Home) -> Tool:
    @tool(effects={Effect.READ}, parks=True)
    async def naps(call: MDSContext, ms: int) -> str:
        """Wait for some milliseconds."""
        _ran(home, call, "naps")
        if call.resumed is None or call.resumed.snapshot is None:
            raise Parked(_now(home, ms), snapshot=b"true")
        return "rested"

    return naps


def _errand(home: Home) -> Tool:
    @tool(effects={Effect.READ}, parks=True)
    async def errand(call: MDSContext, key: str, ms: int) -> Any:
        """Wait for some milliseconds, then send something out."""
        _ran(home, call, "errand")
        if call.resumed is None or call.resumed.snapshot is None:
            raise Parked(_now(home, ms), snapshot=b"true")
        home.dies_here("going-on")
        return await insist(call, "posts", {"key": key}, "post")

    return errand


def _job(home: Home) -> Tool:
    @tool(effects={Effect.READ}, parks=True, timeout=timedelta(minutes=10))
    async def job(call: MDSContext, pause_ms: int = 0, nap_ms: int = 5) -> list[Any]:
        """Make six calls, each with a key, half of which wait; what came of them is the same however often it went on."""
        _ran(home, call, "job")
        snapshot: list[Any] = from_json(call.resumed.snapshot or b"[]") if call.resumed else []
        done: list[Any] = []
        for step in range(STEPS):
            key = f"{call.event_id}-{step}"
            calls: list[tuple[str, dict[str, Any]]] = [
                ("posts", {"key": key, "pause_ms": pause_ms}),
                ("errand", {"key": key, "ms": nap_ms}),
                ("naps", {"ms": nap_ms}),
            ]
            name, parameters = calls[step % len(calls)]
            try:
                done.append(await insist(call, name, parameters, f"step {step}"))
            except NestedWaits as waits:
                home.dies_here("parking")
                raise Parked(waits.until, waits.for_what, snapshot=to_json(done)) from None
        if done[: len(snapshot)] != snapshot:
            raise AssertionError(f"{done} does not begin with {snapshot}")
        home.dies_here("ending")
        return done

    return job


async def insist(call: MDSContext, name: str, parameters: dict[str, Any], key: str) -> Any:
    """The outcome of a call that is asked again where the store was gone, and under another key where its process was lost."""
    tries = 0
    for _ in range(_TRIES):
        try:
            return await call.invoke(_tool(name, parameters), key=f"{key} try {tries}")
        except NestedFailed as failed:
            match failed.type:
                case "store_unavailable" | "overloaded":
                    await asyncio.sleep(0.1)
                case "process_gone" | "server_stopped":
                    tries += 1
                case _:
                    raise
    raise AssertionError(f"{name} was lost again and again")


def _waits(home: Home) -> list[Tool]:
    async def wait(call: MDSContext, name: str, ms: int | None) -> dict[str, Any]:
        attempt = _ran(home, call, name)
        if call.resumed is None or call.resumed.snapshot is None:
            until = None if ms is None else _now(home, ms)
            raise Parked(until, (WaitingFor("signal", "go", until),), snapshot=b'"waited"')
        return {"attempt": attempt, "process": os.getpid(), "snapshot": from_json(call.resumed.snapshot)}

    @tool(effects={Effect.READ}, parks=True)
    async def waits(call: MDSContext, ms: int | None = None) -> dict[str, Any]:
        """Wait to be woken, or for so long; then say by whom it was taken up."""
        return await wait(call, "waits", ms)

    @tool(effects={Effect.WRITE}, parks=True)
    async def waits_writing(call: MDSContext, ms: int | None = None) -> dict[str, Any]:
        """The same with an editor's rights."""
        return await wait(call, "waits_writing", ms)

    return [waits, waits_writing]


def _around(home: Home) -> list[Tool]:
    @tool(effects={Effect.READ}, parks=True)
    async def around(call: MDSContext, name: str) -> Any:
        """Call a tool, and wait where it does."""
        _ran(home, call, "around")
        return await call.invoke(_tool(name, {}), key="inner")

    @tool(effects={Effect.READ}, timeout=timedelta(minutes=10))
    async def impatient(call: MDSContext, name: str, parameters: dict[str, Any] | None = None) -> Any:
        """Call a tool, without being able to wait oneself where it does."""
        return await call.invoke(_tool(name, parameters or {}), key="inner")

    return [around, impatient]


def _works(home: Home) -> Tool:
    @tool(effects={Effect.WRITE}, parks=True)
    async def works(call: MDSContext, name: str, parks_at: int = 0) -> dict[str, Any]:
        """Work until there is a file `go-NAME-ATTEMPT`; then send something out, once for all attempts, and file a note.

        The attempt of this number waits to be woken instead.
        """
        attempt = _ran(home, call, "works")
        if attempt == parks_at:
            raise Parked(None, (WaitingFor("signal", "go"),))
        await home.comes(f"go-{name}-{attempt}")
        try:
            await call.invoke(_tool("posts", {"key": name}), key="post")
        except NestedFailed as failed:
            home.mark(REFUSED, name, attempt, failed.type)
        raw = f"{name} {attempt}".encode()
        note = NewDocument(kind="note", title=name, raw=raw, sha256=raw.hex(), source="works")
        try:
            await call.documents.add([note])
        except OperationEnded as ended:
            home.mark(REFUSED, name, attempt, type(ended).__name__)
        return {"attempt": attempt, "process": os.getpid()}

    return works


def _wakes(home: Home) -> Tool:
    @tool(effects={Effect.READ})
    async def wakes(call: MDSContext, event_ids: list[str], in_ms: int = 0, hint: bool = False) -> int:
        """Write that what these wait for has come, or comes in so many milliseconds; answers from which process."""
        found = await home.server.storage.events.opened(event_ids)
        at = _now(home, in_ms)
        await home.server.storage.commits.commit(Commit(records=[Wake(one.row.ref, at) for one in found]))
        if hint:
            home.server.execution.waker.hint()
        return os.getpid()

    return wakes
