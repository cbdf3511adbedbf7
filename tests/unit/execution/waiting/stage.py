"""Operations that wait, for tests: small tools that park, and say how they went on."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from casekeeper.acl import Effect
from casekeeper.journal.operations import AT_ONCE, WaitingFor
from casekeeper.operations.context import MDSContext, NestedFailed, NestedWaits, Parked
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import Tool, tool


@dataclass
class Stage:
    """What the tools of one test share. `runs` counts how often each was called, `sent` what left the house."""

    runs: Counter[str] = field(default_factory=Counter[str])
    sent: list[str] = field(default_factory=list[str])
    go: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[MDSContext] = field(default_factory=list[MDSContext])
    until: datetime | None = None

    def tools(self) -> list[Tool]:
        """All of them."""
        return [
            *_pauses(self),
            _follows(self),
            _impatient(self),
            _works(self),
            _lies(),
            *_sends(self),
            _unfit(),
        ]


def _pauses(stage: Stage) -> list[Tool]:
    @tool(effects={Effect.READ}, parks=True, timeout=timedelta(seconds=60))
    async def pauses(call: MDSContext, times: int = 1, size: int = 0) -> dict[str, Any]:
        """Wait for a signal, this often; then say what it went on with."""
        stage.runs["pauses"] += 1
        stage.contexts.append(call)
        if call.resumed is None or call.resumed.attempt <= times:
            said = (WaitingFor("signal", "go", stage.until),)
            raise Parked(stage.until, said, snapshot=b'{"x":"%s"}' % (b"x" * size))
        return {"attempt": call.resumed.attempt, "snapshot": len(call.resumed.snapshot or b"")}

    @tool(effects={Effect.WRITE}, parks=True, timeout=timedelta(seconds=60))
    async def pauses_writing(call: MDSContext) -> str:
        """Wait for an approval with an editor's rights."""
        if call.resumed is None:
            raise Parked(stage.until, (WaitingFor("approval", "apr_1"),))
        return "written"

    @tool(effects={Effect.READ}, parks=True, timeout=timedelta(seconds=60))
    async def pauses_then_works(call: MDSContext) -> None:
        """Wait, then work until the test says go."""
        if call.resumed is None:
            raise Parked
        stage.runs["works_on"] += 1
        await stage.go.wait()

    return [pauses, pauses_writing, pauses_then_works]


def _follows(stage: Stage) -> Tool:
    @tool(effects={Effect.READ}, parks=True)
    async def follows(call: MDSContext, steps: list[str], at_once: bool = False) -> list[Any]:
        """Call these tools one after the other, each by a key of its own; wait where they do."""
        stage.runs["follows"] += 1
        told: list[Any] = []
        for number, step in enumerate(steps):
            inner = ToolCall(operation_type="tool", tool_name=step)
            try:
                told.append(await call.invoke(inner, key=f"step {number}"))
            except NestedFailed as failed:
                told.append(failed.type)
            except NestedWaits:
                if at_once:
                    raise Parked(AT_ONCE) from None
                raise
        return told

    return follows


def _impatient(stage: Stage) -> Tool:
    @tool(effects={Effect.READ}, timeout=timedelta(seconds=30))
    async def impatient(call: MDSContext, name: str = "pauses", key: str | None = None) -> Any:
        """Call a tool that waits, without being able to wait itself."""
        stage.runs["impatient"] += 1
        try:
            return await call.invoke(ToolCall(operation_type="tool", tool_name=name), key=key)
        except NestedFailed as failed:
            return failed.type

    return impatient


def _works(stage: Stage) -> Tool:
    @tool(effects={Effect.READ}, parks=True, timeout=timedelta(seconds=60))
    async def works(call: MDSContext) -> int:
        """Work until the test says go, for as many attempts as it takes."""
        stage.runs["works"] += 1
        await stage.go.wait()
        return call.resumed.attempt if call.resumed else 1

    return works


def _lies() -> Tool:
    @tool(effects={Effect.READ})
    async def lies(call: MDSContext) -> None:
        """Park without saying that it does."""
        raise Parked

    return lies


def _sends(stage: Stage) -> list[Tool]:
    @tool(effects={Effect.EXTERNAL})
    async def posts(call: MDSContext) -> str:
        """Send something out, once."""
        stage.sent.append(call.event_id)
        return call.event_id

    @tool(effects={Effect.EXTERNAL})
    async def breaks(call: MDSContext) -> str:
        """Send something out, and fail."""
        stage.sent.append(call.event_id)
        raise RuntimeError("it broke")

    return [posts, breaks]


def _unfit() -> Tool:
    @tool(effects={Effect.READ}, parks=True)
    async def unfit(call: MDSContext, size: int) -> None:
        """Park with what cannot be kept: no JSON, or more of it than there may be."""
        raise Parked(snapshot=b'"%s"' % (b"x" * size) if size else b"no JSON")

    return unfit
