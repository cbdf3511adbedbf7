"""`MANAGED_TOOLS`: the registry of tools, as data. Catalogue, agents and doors all read it."""

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from casekeeper.errors import ArgumentsInvalid, FieldError, PackageUnusable
from casekeeper.journal.events import OperationType
from casekeeper.operations.operation import (
    EVERYWHERE,
    CatalogEntry,
    Operation,
    OperationCall,
    OperationScope,
    OperationSource,
)
from casekeeper.operations.tools import Tool

ENTRY_POINT = "casekeeper.tools"
"""Third-party packages name an iterable of tools under this entry point."""


class DuplicateTool(Exception):
    """Two tools have one name: start-up stops, since which of them runs must never be chance."""


class ToolRegistry(Mapping[str, Tool]):
    """Tools by name."""

    def __init__(self, tools: Iterable[Tool] = ()) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Register a tool; the same one twice is no harm.

        Raises:
            DuplicateTool: Another tool has this name.
        """
        if self._tools.setdefault(tool.name, tool) is not tool:
            raise DuplicateTool(f"two tools are named {tool.name!r}")

    def __getitem__(self, name: str) -> Tool:
        return self._tools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._tools))

    def __len__(self) -> int:
        return len(self._tools)

    @property
    def type(self) -> OperationType:
        """Always `tool`."""
        return "tool"

    @property
    def names(self) -> Collection[str]:
        """The names of all tools."""
        return self._tools.keys()

    async def find(self, name: str, scope: OperationScope = EVERYWHERE) -> Tool | None:
        """The tool of this name, which is the same everywhere."""
        return self._tools.get(name)

    async def catalogue(self, scope: OperationScope = EVERYWHERE) -> Sequence[Tool]:
        """All tools, by name."""
        return [self[name] for name in self]


MANAGED_TOOLS = ToolRegistry()
"""The tools of this process: the built-in ones and those of installed packages. Filled at start."""


def tools_of_packages() -> Iterator[Tool]:
    """What installed packages bring through the entry point, in the order of their names.

    Raises:
        PackageUnusable: One of them cannot be imported, or brings no tools there.
    """
    for entry in _entries(tuple(sys.path)):
        try:
            yield from tuple(entry.load())
        except (ImportError, AttributeError, TypeError) as error:
            package = entry.dist.name if entry.dist else entry.value
            raise PackageUnusable(f"The tools of {package} cannot be loaded: {error}.") from error


@lru_cache(maxsize=1)
def _entries(_path: tuple[str, ...]) -> list[EntryPoint]:
    # Reads a file of every package: not for each server of a process that opens many.
    return sorted(entry_points(group=ENTRY_POINT), key=lambda e: e.name)


class Registry:
    """All operations, whatever their kind."""

    def __init__(self, sources: Iterable[OperationSource]) -> None:
        self._sources = {source.type: source for source in sources}

    @property
    def names(self) -> Mapping[str, Collection[str] | None]:
        """By kind, the names of all operations that there will be while the server runs; None where there may be more."""
        return {type_: source.names for type_, source in self._sources.items()}

    async def find(self, call: OperationCall, scope: OperationScope) -> Operation:
        """The operation that a call names.

        Raises:
            ArgumentsInvalid: There is none of this name; the field is named.
            StoreUnavailable: It is not known whether there is one.
        """
        operation = await self.named(call.operation_type, call.name, scope)
        if operation is None:
            field = f"payload.operation.{call.operation_type}_name"
            raise ArgumentsInvalid(
                errors=(FieldError(field, f"there is no {call.operation_type} {call.name!r}"),)
            )
        return operation

    async def named(self, type_: OperationType, name: str, scope: OperationScope) -> Operation | None:
        """The operation of this name, if there is one.

        Raises:
            StoreUnavailable: It is not known whether there is one.
        """
        source = self._sources.get(type_)
        return await source.find(name, scope) if source else None

    async def catalogue(self, scope: OperationScope = EVERYWHERE) -> list[CatalogEntry]:
        """All operations of the scope: by kind, then by name.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        return [
            operation.entry()
            for source in self._sources.values()
            for operation in await source.catalogue(scope)
        ]
