from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from casekeeper.acl import Effect, Role
from casekeeper.casefiles.access import Access
from casekeeper.errors import ArgumentsInvalid
from casekeeper.identity.principal import Principal
from casekeeper.kinds import KINDS, OperationType
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import EVERYWHERE, AgentCall, OperationScope, ToolCall, call_of
from casekeeper.operations.registry import (
    DuplicateTool,
    Registry,
    ToolRegistry,
    tools_of_packages,
)
from casekeeper.operations.tools import Tool, tool
from tests.unit.support import NOW
from tests.unit.tools import echo, fail, send


@tool(effects={Effect.READ}, name="echo")
async def another_echo(call: MDSContext) -> None:
    """Have the name of another."""


def access(role: Role | None) -> Access:
    caller = Principal("sam@example.com", "usr_1", is_operator=False, epoch="", asof=0, expires_at=NOW)
    return Access(caller, "cf_251023_5acf44", role, "store", 0, NOW)


async def test_tools_are_listed_by_name():
    registry = ToolRegistry((send, echo, fail))

    assert list(registry) == [tool.name for tool in await registry.catalogue()] == ["echo", "fail", "send"]


async def test_a_registry_is_a_mapping_of_tools():
    registry = ToolRegistry((echo,))

    assert (registry["echo"], await registry.find("echo"), await registry.find("x"), len(registry)) == (
        echo,
        echo,
        None,
        1,
    )
    assert registry.type == "tool"


def test_two_tools_of_one_name_stop_the_start():
    with pytest.raises(DuplicateTool, match="echo"):
        ToolRegistry((echo, another_echo))


def test_the_same_tool_twice_is_no_harm():
    assert len(ToolRegistry((echo, echo))) == 1


async def test_a_call_finds_its_operation():
    registry = Registry([ToolRegistry((echo,))])

    assert await registry.find(ToolCall(operation_type="tool", tool_name="echo"), EVERYWHERE) is echo


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (ToolCall(operation_type="tool", tool_name="ECHO"), "payload.operation.tool_name"),
        (ToolCall(operation_type="tool", tool_name="nothing"), "payload.operation.tool_name"),
        (
            AgentCall(operation_type="agent", agent_name="nobody", prompt="Hello"),
            "payload.operation.agent_name",
        ),
    ],
)
async def test_an_unknown_name_is_told_with_its_field(call: ToolCall | AgentCall, field: str):
    registry = Registry([ToolRegistry((echo,))])

    with pytest.raises(ArgumentsInvalid) as invalid:
        await registry.find(call, EVERYWHERE)

    assert [error.field for error in invalid.value.errors] == [field]


async def test_the_catalogue_has_everything():
    registry = Registry([ToolRegistry((send, echo))])

    entries = await registry.catalogue()
    assert [(e.operation_type, e.name) for e in entries] == [("tool", "echo"), ("tool", "send")]


class Local:
    """Tools that one casefile has, and that may be added while the server runs."""

    type: OperationType = "tool"
    names: Collection[str] | None = None

    def __init__(self, casefile_id: str) -> None:
        self.casefile_id = casefile_id
        self.tools = list[Tool]()

    async def find(self, name: str, scope: OperationScope) -> Tool | None:
        return next((tool for tool in await self.catalogue(scope) if tool.name == name), None)

    async def catalogue(self, scope: OperationScope) -> Sequence[Tool]:
        return self.tools if scope.casefile_id == self.casefile_id else []


async def test_an_operation_of_one_casefile_is_found_and_listed_only_there():
    local = Local("cf_here")
    registry, call = Registry([local]), ToolCall(operation_type="tool", tool_name="echo")
    local.tools.append(echo)

    assert await registry.find(call, OperationScope("cf_here", "sam@example.com")) is echo
    assert [entry.name for entry in await registry.catalogue(OperationScope("cf_here"))] == ["echo"]
    for elsewhere in (OperationScope("cf_there", "sam@example.com"), EVERYWHERE):
        assert await registry.catalogue(elsewhere) == []
        with pytest.raises(ArgumentsInvalid):
            await registry.find(call, elsewhere)


def test_every_kind_has_a_source_and_a_call():
    for kind in KINDS.values():
        assert call_of(kind.name, "x", {"prompt": "Hello"}).operation_type == kind.name


# Packages


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that brings the tools of a module through the entry point."""
    (tmp_path / "stamps-1.0.dist-info").mkdir()
    (tmp_path / "stamps-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stamps\nVersion: 1.0\n"
    )
    (tmp_path / "stamps-1.0.dist-info" / "entry_points.txt").write_text(
        "[casekeeper.tools]\nb = stamps_of_a_test:TOOLS\na = stamps_of_a_test:MORE\n"
    )
    (tmp_path / "stamps_of_a_test.py").write_text(
        "from tests.unit.tools import echo, send\nTOOLS = [echo]\nMORE = (send,)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType] - pytest leaves it open
    return tmp_path


@pytest.mark.usefixtures("package")
def test_packages_bring_tools_in_the_order_of_their_names():
    brought = [brought for brought in tools_of_packages() if brought.name in ("echo", "send")]

    assert brought == [send, echo]


@pytest.mark.usefixtures("package")
def test_a_package_cannot_take_the_place_of_another_tool():
    with pytest.raises(DuplicateTool):
        ToolRegistry((another_echo, *tools_of_packages()))
