"""Fixtures of the agents' tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_ai import models

from tests.fakes.aimock import aimock as aimock
from tests.unit.agents.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(autouse=True)
def no_model_requests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only tests that ask for aimock may send anything to a model."""
    with models.override_allow_model_requests("aimock" in request.fixturenames):
        yield
