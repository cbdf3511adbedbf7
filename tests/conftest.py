"""What holds for every test: no network but loopback, no paid models; and the fixtures that all rooms share."""

import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from pytest_socket import socket_allow_hosts

from casekeeper.server import Server
from tests.support import Api, House, Workshop, drop_databases_of, listening, open_test_server


@pytest.fixture(autouse=True)
def only_loopback() -> None:
    """No test reaches another machine."""
    socket_allow_hosts(["127.0.0.1", "::1"], allow_unix_socket=True)


@pytest.fixture(autouse=True)
def no_real_models() -> None:
    """No test pays for a model. PydanticAI is not imported for it: most tests never need it."""
    if models := sys.modules.get("pydantic_ai.models"):
        vars(models)["ALLOW_MODEL_REQUESTS"] = False


@pytest.fixture
def workshop() -> Workshop:
    """Tools that tests control, registered in the server of the same test."""
    return Workshop()


@pytest.fixture
async def server(tmp_path: Path, workshop: Workshop) -> AsyncGenerator[Server]:
    """A server on a fresh data directory; what it has in PostgreSQL goes with the test."""
    async with open_test_server(tmp_path / "data", workshop=workshop) as opened:
        yield opened
    await drop_databases_of(tmp_path)


@pytest.fixture
async def api(server: Server) -> AsyncGenerator[Api]:
    """The HTTP door of that server."""
    async with Api.of(server) as opened:
        yield opened


@pytest.fixture
async def house(api: Api) -> House:
    """A casefile with people in it."""
    return await api.house()


@pytest.fixture
async def url(server: Server) -> AsyncGenerator[str]:
    """The server on loopback."""
    async with listening(server) as address:
        yield address
