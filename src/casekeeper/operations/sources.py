"""Where operations come from: one source for each kind, opened with the server."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any

from casekeeper.kinds import KINDS, OperationKind
from casekeeper.operations.operation import OperationSource
from casekeeper.operations.registry import ToolRegistry
from casekeeper.values import value


@value
class SourceParts:
    """What a source may be made of.

    Attributes:
        settings: Those of the deployment; a source reads the ones of its kind.
        storage: The open store.
        tools: The tools of this server.
    """

    settings: Any
    storage: Any
    tools: ToolRegistry


OpenSource = Callable[[SourceParts], AbstractAsyncContextManager[OperationSource]]
"""Opens a source; what it holds is closed with the context."""


@asynccontextmanager
async def open_sources(parts: SourceParts) -> AsyncGenerator[list[OperationSource]]:
    """The sources of all kinds, in the order of `KINDS`."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_opener(kind)(parts)) for kind in KINDS.values()]


@asynccontextmanager
async def open_tools(parts: SourceParts) -> AsyncGenerator[ToolRegistry]:
    """The tools of this server."""
    yield parts.tools


def _opener(kind: OperationKind) -> OpenSource:
    module, name = kind.source.split(":")
    return getattr(import_module(module), name)
