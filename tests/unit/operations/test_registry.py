from pathlib import Path

import pytest

from casekeeper.acl import Effect, Role
from casekeeper.casefiles.access import Access
from casekeeper.errors import ArgumentsInvalid
from casekeeper.identity.principal import Principal
from casekeeper.journal.events import OperationType
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import AgentCall, ToolCall
from casekeeper.operations.registry import (
    DuplicateTool,
    Registry,
    ToolRegistry,
    tools_of_packages,
)
from casekeeper.operations.tools import tool
from tests.unit.support import NOW
from tests.unit.tools import echo, fail, send


@tool(effects={Effect.READ}, name="echo")
async def another_echo(call: MDSContext) -> None:
    """Have the name of another."""


def access(role: Role | None) -> Access:
    caller = Principal("sam@example.com", "usr_1", is_operator=False, epoch="", asof=0, expires_at=NOW)
    return Access(caller, "cf_251023_5acf44", role, "store", 0, NOW)


def test_tools_are_listed_by_name():
    registry = ToolRegistry((send, echo, fail))

    assert list(registry) == [entry.name for entry in registry.catalogue()] == ["echo", "fail", "send"]


def test_a_registry_is_a_mapping_of_tools():
    registry = ToolRegistry((echo,))

    assert (registry["echo"], registry.find("echo"), registry.find("x"), len(registry)) == (
        echo,
        echo,
        None,
        1,
    )
    assert registry.type is OperationType.TOOL


def test_two_tools_of_one_name_stop_the_start():
    with pytest.raises(DuplicateTool, match="echo"):
        ToolRegistry((echo, another_echo))


def test_the_same_tool_twice_is_no_harm():
    assert len(ToolRegistry((echo, echo))) == 1


def test_a_call_finds_its_operation():
    registry = Registry([ToolRegistry((echo,))])

    assert registry.find(ToolCall(operation_type="tool", tool_name="echo")) is echo


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
def test_an_unknown_name_is_told_with_its_field(call: ToolCall | AgentCall, field: str):
    registry = Registry([ToolRegistry((echo,))])

    with pytest.raises(ArgumentsInvalid) as invalid:
        registry.find(call)

    assert [error.field for error in invalid.value.errors] == [field]


def test_the_catalogue_has_everything():
    registry = Registry([ToolRegistry((send, echo))])

    assert [(e.operation_type, e.name) for e in registry.catalogue()] == [("tool", "echo"), ("tool", "send")]


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
