"""Fixtures of what waits: a stage of tools that park, a house with them, and a casefile."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from casekeeper.acl import Role
from casekeeper.casefiles.casefile import CasefileView
from casekeeper.identity.principal import Principal
from tests.unit.execution.waiting.stage import Stage
from tests.unit.support import ANNA, BEN, House, open_house


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def house(directory: Path, stage: Stage) -> AsyncGenerator[House]:
    async with open_house(directory, tools=stage.tools()) as opened:
        yield opened


@pytest.fixture
async def anna(house: House) -> Principal:
    return await house.caller(ANNA)


@pytest.fixture
async def casefile(house: House, anna: Principal) -> CasefileView:
    """Anna's casefile, in which Ben is editor."""
    made = await house.casefile(anna)
    await house.account(BEN)
    await house.grant(anna, made.casefile_id, BEN, Role.EDITOR)
    return made
