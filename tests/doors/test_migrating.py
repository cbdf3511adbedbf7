"""`casekeeper migrate` on stores that several processes share."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from casekeeper.casefiles.casefile import Status
from casekeeper.clock import to_us, utc_now
from casekeeper.storage.opening import open_storage
from casekeeper.storage.sql.migrating import upgrade
from tests.doors.commands import Cli
from tests.fakes.postgres import shared_postgres

# It comes without types.
_driver: Any = asyncpg

MINE, GUEST = "operator@localhost", "guest@example.com"
CASEFILES = 25


async def at_0005() -> str:
    """A database of that schema with casefiles, granted in another order than they were made in."""
    url = await shared_postgres().make()
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0005")
    await engine.dispose()
    connection = await _driver.connect(url)
    for number in range(CASEFILES):
        casefile_id, made_us = f"cf_260101_{number:06x}", number * 7 % CASEFILES + 1
        state = "archived" if number % 5 == 0 else "active"
        deleted_us = 99 if number % 6 == 0 else None
        await connection.execute(
            "INSERT INTO casefiles VALUES ($1, 'Rent', '', '[]', $2, 'none', $3, 1, $4, 1, '', $5, $5)",
            casefile_id, state, MINE, made_us, deleted_us,
        )  # fmt: skip
        for user_id, role in ((MINE, "owner"), (GUEST, "viewer")):
            await connection.execute(
                "INSERT INTO grants VALUES ($1, $2, $3, NULL, $4, $5, NULL)",
                user_id, casefile_id, role, MINE, number,
            )  # fmt: skip
    await connection.close()
    return url


async def in_pages(url: str, directory: Path, user_id: str, status: Status | None) -> list[int]:
    """The numbers of a user's casefiles, listed four at a time."""
    walked, before = list[int](), None
    async with open_storage(url, directory, lambda _: None) as storage:
        while page := await storage.casefiles.casefiles_of(user_id, utc_now(), status, before, 4):
            walked += [int(casefile.casefile_id[-6:], 16) for casefile, _ in page]
            before = (to_us(page[-1][0].created_at), page[-1][0].casefile_id)
    return walked


def test_casefiles_granted_before_grants_had_an_age_are_listed_in_pages(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = asyncio.run(at_0005())
    monkeypatch.setenv("CASEKEEPER_STORE", url)

    migrated = cli("migrate", "--data", tmp_path / "data")
    again = cli("migrate", "--data", tmp_path / "data", "--json")
    listed = [
        asyncio.run(in_pages(url, tmp_path / "data", user_id, status))
        for user_id in (MINE, GUEST)
        for status in (None, Status.ACTIVE)
    ]

    newest = sorted(range(CASEFILES), key=lambda number: number * 7 % CASEFILES, reverse=True)
    there = [number for number in newest if number % 6]
    assert migrated.code == 0, migrated.err
    assert "Migrated" in migrated.out
    assert again.json["changed"] is False
    assert listed == [there, [number for number in there if number % 5]] * 2


def test_a_store_that_cannot_be_migrated_is_one_plain_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = dict[str, int]()
    for address in ("postgresql://nobody@127.0.0.1:1/none", "mysql://x/y"):
        monkeypatch.setenv("CASEKEEPER_STORE", address)
        answer = cli("migrate", "--data", tmp_path / "data")
        assert (answer.out, answer.err.count("\n")) == ("", 1), answer.err
        ended[address] = answer.code

    assert list(ended.values()) == [18, 20]
