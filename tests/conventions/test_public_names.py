from importlib import import_module
from importlib.metadata import entry_points, requires
from typing import Any

import pytest

import casekeeper.client
from casekeeper.operations.registry import ENTRY_POINT
from tests.conventions.tree import ROOT

CLIENT = [
    "ApiError",
    "Casekeeper",
    "Conflict",
    "Denied",
    "FieldProblem",
    "Gone",
    "Invalid",
    "Limited",
    "NotFound",
    "OperationFailed",
    "Progress",
    "Retry",
    "ServerFault",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unreachable",
    "agent",
    "new_request_id",
    "tool",
]
"""What programs import. A name is added with a line in the changelog; one that leaves breaks somebody's program."""

VERBS = {
    "accounts": {"create", "deactivate", "each", "list", "update"},
    "casefiles": {"create", "delete", "each", "get", "list", "update"},
    "documents": {"each", "get", "import_file", "list", "upload"},
    "events": {"each", "query"},
    "keys": {"create", "list", "revoke"},
    "operations": {"cancel", "get", "part"},
    "permissions": {"check", "grant", "list", "revoke", "transfer"},
    "sessions": {"close", "create", "each", "execute", "get", "list", "stream"},
}


MISSION = [
    "execution.service:SessionService.execute_operation",
    "sessions.manager:CasefileSessionManager.validate_and_get_session",
    "sessions.manager:SessionContext",
    "sessions.session:UnifiedSession",
    "journal.events:ExecutionEvent",
    "operations.registry:MANAGED_TOOLS",
    "operations.context:MDSContext",
    "doors.http.dependencies:get_session_service",
]
"""The names that the users' own design document gave to things; they stay, wherever the things move."""


@pytest.mark.parametrize("place", MISSION)
def test_a_name_of_the_mission_is_there(place: str):
    module, _, name = place.partition(":")
    found: Any = import_module(f"casekeeper.{module}")
    for part in name.split("."):
        found = getattr(found, part)


@pytest.mark.parametrize("path", ["scripts/test_unified_sessions.py", "SESSION_UNIFIED.md"])
def test_a_file_of_the_mission_is_there(path: str):
    assert (ROOT / path).is_file()


def test_the_sdk_offers_these_names():
    assert sorted(casekeeper.client.__all__) == CLIENT


def test_every_name_that_the_sdk_offers_is_there():
    assert [name for name in CLIENT if not hasattr(casekeeper.client, name)] == []


async def test_the_sdk_has_the_verbs_of_the_api():
    async with casekeeper.client.Casekeeper("http://127.0.0.1:1", token="t") as ck:
        missing = {
            f"{noun}.{verb}"
            for noun, verbs in VERBS.items()
            for verb in verbs
            if not callable(getattr(getattr(ck, noun), verb, None))
        }

    assert missing == set()


def test_the_command_is_installed():
    [command] = [e for e in entry_points(group="console_scripts") if e.name == "casekeeper"]

    assert callable(command.load())


def test_packages_bring_tools_through_this_entry_point():
    assert ENTRY_POINT == "casekeeper.tools"


def test_the_extras_are_these():
    extras = {
        part.split("extra ==")[1].strip(" '\"") for part in requires("casekeeper") or [] if "extra ==" in part
    }

    assert extras == {"all", "anthropic", "blobs", "firestore", "google", "openai", "postgres", "redis"}
