"""Tools that unit tests run; each does one thing to the corridor."""

import asyncio
from typing import Any

from casekeeper.acl import Effect
from casekeeper.operations.context import MDSContext, NestedFailed
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import tool


@tool(effects={Effect.READ})
async def echo(call: MDSContext, value: Any = None) -> Any:
    """Say it again."""
    return value


@tool(effects={Effect.READ})
async def sleepy(call: MDSContext, seconds: float = 60, then: str = "") -> str:
    """Sleep, then call another tool if one is named."""
    await asyncio.sleep(seconds)
    if then:
        await call.invoke(ToolCall(operation_type="tool", tool_name=then))
    return "awake"


@tool(effects={Effect.EXTERNAL})
async def send(call: MDSContext, text: str = "") -> str:
    """Send something out."""
    return "sent"


@tool(effects={Effect.DESTRUCTIVE})
async def shred(call: MDSContext) -> str:
    """Destroy something."""
    return "gone"


@tool(effects={Effect.READ})
async def fail(call: MDSContext, message: str = "it broke") -> None:
    """Raise."""
    # Not even UTF-8: what a tool says may be anything.
    raise RuntimeError(f"{message} \udfff")


@tool(effects={Effect.READ})
async def nest(call: MDSContext, tool_name: str, parameters: dict[str, Any] | None = None) -> Any:
    """Call another tool and give back what it gives, or why it did not."""
    inner = ToolCall(operation_type="tool", tool_name=tool_name, parameters=parameters or {})
    try:
        return {"outputs": await call.invoke(inner, call_id="call_1")}
    except NestedFailed as failed:
        return {"type": failed.type, "message": failed.message, "retryable": failed.retryable}


@tool(effects={Effect.READ})
async def dig(call: MDSContext) -> int:
    """Call itself as deep as it may; says how deep that was."""
    try:
        return await call.invoke(ToolCall(operation_type="tool", tool_name="dig"))
    except NestedFailed:
        return call.depth


ALL = (echo, sleepy, send, shred, fail, nest, dig)
