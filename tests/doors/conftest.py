"""Fixtures of the SDK and the command line."""

import asyncio
import shutil
import sys
from collections.abc import AsyncGenerator, Generator
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.cli.app import run
from casekeeper.client import Casekeeper, Retry
from casekeeper.server import Server
from tests.doors.commands import Cli, Ended, Served, serve
from tests.doors.network import Network
from tests.support import Api, chosen_store, open_test_server

# On another store there is no directory to work on, and no disk of ours to fill.
EMBEDDED_ONLY = (
    "test_backup.py",
    "test_bad_files.py",
    "test_blob_places.py",
    "test_bundles.py",
    "test_cli.py",
    "test_cli_documents.py",
    "test_cli_server.py",
    "test_cli_shared.py",
    "test_container.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With another store, leave out what is about the embedded one."""
    if chosen_store() == "sqlite":
        return
    left_out = [item for item in items if _is_embedded_only(item)]
    items[:] = [item for item in items if not _is_embedded_only(item)]
    config.hook.pytest_deselected(items=left_out)


def _is_embedded_only(item: pytest.Item) -> bool:
    return item.path.name in EMBEDDED_ONLY or "data" in getattr(item, "fixturenames", ())


QUICK = Retry(first_wait=timedelta(milliseconds=1))
PASSWORD = "a good password"


@pytest.fixture
def network(server: Server) -> Network:
    """What lies between the SDK and the server."""
    return Network(server)


@pytest.fixture
async def sam(api: Api, network: Network) -> AsyncGenerator[Casekeeper]:
    """The SDK for sam@example.com, who logs in with a password."""
    await api.account("sam@example.com", password=PASSWORD)
    async with Casekeeper(
        "http://casekeeper.test",
        user_id="sam@example.com",
        password=PASSWORD,
        transport=network,
        retry=QUICK,
    ) as ck:
        yield ck


@pytest.fixture
async def vera(api: Api, server: Server, network: Network) -> AsyncGenerator[Casekeeper]:
    """The SDK for vera@example.com, who has a token and no role anywhere."""
    await api.account("vera@example.com")
    async with Casekeeper(
        "http://casekeeper.test",
        token=lambda: server.identity.logins.mint_for("vera@example.com"),
        transport=network,
        retry=QUICK,
    ) as ck:
        yield ck


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after its first start, to be copied."""
    data = tmp_path_factory.mktemp("first") / "data"

    async def start() -> None:
        async with open_test_server(data) as server:
            assert server.first_login is not None
            (data / "password").write_text(server.first_login.password)

    asyncio.run(start())
    return data


@pytest.fixture
def data(first_start: Path, tmp_path: Path) -> Path:
    """A fresh data directory."""
    return Path(shutil.copytree(first_start, tmp_path / "data"))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Runs a command as somebody whose computer knows nothing of casekeeper."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str | Path, stdin: str = "") -> Ended:
        capfdbinary.readouterr()
        with (tmp_path / "stdin").open("w+", encoding="utf-8") as file:
            file.write(stdin)
            file.seek(0)
            monkeypatch.setattr(sys, "stdin", file)
            code = run([str(a) for a in arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = capfdbinary.readouterr()
        return Ended(code, out.decode(), err.decode())

    return command


@pytest.fixture(scope="module")
def served(first_start: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Served]:
    """A server on a data directory of its own."""
    running = serve(Path(shutil.copytree(first_start, tmp_path_factory.mktemp("served") / "data")))
    yield running
    if running.process.poll() is None:
        running.stop()
    running.process.communicate()
