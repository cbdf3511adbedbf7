import importlib
from collections.abc import Iterator

import pytest

from casekeeper.journal.commits import Condition, Record
from tests.conventions.tree import modules


def all_of(kind: type) -> Iterator[type]:
    """Every class below this one, in all modules of casekeeper."""
    for path in modules():
        # What is run is not imported.
        if not path.endswith("__main__.py"):
            name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            importlib.import_module(f"casekeeper.{name}" if name != "__init__" else "casekeeper")
    below = [kind]
    while below:
        for found in below.pop().__subclasses__():
            below.append(found)
            # A test may have made some of its own.
            if found.__module__.startswith("casekeeper."):
                yield found


@pytest.mark.parametrize("kind", [Condition, Record])
def test_every_condition_and_record_says_what_it_is_about(kind: type):
    silent = {
        found.__qualname__
        for found in all_of(kind)
        if getattr(found, "about", None) in (Condition.about, Record.about)
    }

    assert silent == set()


def test_conditions_and_records_are_found():
    assert {found.__name__ for kind in (Condition, Record) for found in all_of(kind)} >= {
        "Claim",
        "Fence",
        "PutSession",
        "AddBlobPart",
    }
