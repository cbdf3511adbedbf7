"""The stores that the contract is asked of. A further backend adds its name and how it is opened."""

import shutil
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from casekeeper.storage.opening import open_storage
from casekeeper.storage.options import StoreLimits
from casekeeper.storage.sqlite.opening import migrate
from casekeeper.storage.store import Storage
from tests.contract.indexes import declared, watched_queries
from tests.contract.shelf import Shelf
from tests.fakes.firestore import Emulator, running_emulator
from tests.fakes.objects import Objects, running_objects
from tests.fakes.postgres import Postgres, shared_postgres

STORES = ("sqlite", "postgresql", "firestore")

Opening = Callable[[], AbstractAsyncContextManager[Storage]]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded store at the newest schema; migrating takes longer than most tests."""
    directory = tmp_path_factory.mktemp("migrated") / "data"
    directory.mkdir()
    migrate(directory / "casekeeper.db")
    return directory


@pytest.fixture(scope="session")
def postgres() -> Postgres:
    """A PostgreSQL server."""
    return shared_postgres()


@pytest.fixture(scope="session")
def emulator() -> Generator[Emulator]:
    """A Firestore emulator."""
    with running_emulator() as server:
        yield server


@pytest.fixture(scope="session")
def objects() -> Generator[Objects]:
    """An object store."""
    with running_objects() as server:
        yield server


@dataclass(frozen=True)
class Where:
    """An empty store that any process can open."""

    kind: str
    address: str
    directory: Path

    def open(self) -> AbstractAsyncContextManager[Storage]:
        """Opens it."""
        # A server that the tests share may not have been up for long; nobody was there before it.
        limits = StoreLimits(settle=timedelta(0))
        return open_storage(self.address, self.directory, lambda _: None, limits=limits)


@asynccontextmanager
async def made(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> AsyncGenerator[Where]:
    """An empty store of a kind."""
    data = tmp_path / "data"
    if kind == "sqlite":
        migrated: Path = request.getfixturevalue("migrated")
        shutil.copytree(migrated, data)
        yield Where(kind, "", data)
    elif kind == "firestore":
        emulator: Emulator = request.getfixturevalue("emulator")
        # The search index beside it has the embedded store's tables.
        data.mkdir()
        shutil.copy(request.getfixturevalue("migrated") / "casekeeper.db", data / "search.db")
        with watched_queries() as needed:
            yield Where(kind, emulator.address(), data)
        assert needed <= declared()
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.migrated()
        yield Where(kind, url, data)
        await server.drop(url)


@pytest.fixture(params=STORES)
async def where(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Where]:
    """An empty store of each backend, for those who open it in other ways than `opening`."""
    async with made(request, request.param, tmp_path) as empty:
        yield empty


@pytest.fixture(params=STORES)
async def opening(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Opening]:
    """How to open an empty store of each backend, as often as it can be open at once."""
    async with made(request, request.param, tmp_path) as empty:
        yield empty.open


@pytest.fixture
async def database(postgres: Postgres) -> AsyncGenerator[str]:
    """A PostgreSQL database at the newest schema, for what only several processes do."""
    url = await postgres.migrated()
    yield url
    await postgres.drop(url)


@pytest.fixture
async def storage(opening: Opening) -> AsyncGenerator[Storage]:
    """An empty store of each backend."""
    async with opening() as opened:
        yield opened


@pytest.fixture
async def shelf(storage: Storage) -> Shelf:
    """The store with a casefile, its owner and a session in it."""
    return await Shelf.filled(storage)
