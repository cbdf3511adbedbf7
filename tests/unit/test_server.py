"""What a server begins in the background, by what it is opened for."""

import asyncio
from pathlib import Path

import pytest

from casekeeper.server import Use, open_server
from casekeeper.settings import Settings
from tests.unit.support import copy_of, fast_passwords

ALWAYS = {
    "recovering operations",
    "sweeping",
    "looking up permissions",
    "stopping what others ask for",
}


@pytest.mark.parametrize(
    ("use", "works"),
    [("prepare", set[str]()), ("command", ALWAYS), ("serve", ALWAYS | {"taking up what is due"})],
)
async def test_what_goes_on_in_the_background_follows_from_what_a_server_is_opened_for(
    template: Path, tmp_path: Path, use: Use, works: set[str]
):
    settings = Settings(data=copy_of(template, tmp_path / "data"), drain_s=0)
    before = asyncio.all_tasks()

    async with open_server(settings, passwords=fast_passwords(), use=use) as server:
        begun = {task.get_name() for task in asyncio.all_tasks() - before}

        assert begun == works
        assert server.first_login is not None
        assert list((settings.data / "keys").glob("*.pem"))
    assert asyncio.all_tasks() == before
