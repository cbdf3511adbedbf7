import re

import pytest

from casekeeper import errors
from casekeeper.cli.exits import EPILOG
from casekeeper.errors import CasekeeperError
from tests.conventions.documents import generator
from tests.conventions.tree import ROOT

generator().import_all()
LEAVES: list[type[CasekeeperError]] = list(generator().leaves(CasekeeperError))
ANSWERED = [leaf for leaf in LEAVES if not issubclass(leaf, errors.CannotStart)]
BRANCHES: set[type[CasekeeperError]] = {leaf.__mro__[1] for leaf in ANSWERED}
OF_THE_TREE = [leaf for leaf in LEAVES if leaf.__module__ == errors.__name__]


def drawn() -> dict[str, set[str]]:
    """The drawing: the leaves on each branch."""
    drawing, branch = dict[str, set[str]](), ""
    for line in (errors.__doc__ or "").split("```")[1].splitlines():
        if found := re.search(r"[├└]── (\w+)", line):
            branch = found[1]
        names = re.findall(r"\b[A-Z]\w+(?= ·| \(|$)|(?<=· )\w+", line)
        drawing.setdefault(branch, set()).update(name for name in names if name != branch)
    return drawing


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_error_has_a_code_and_a_title_of_its_own(leaf: type[CasekeeperError]):
    assert {"code", "title"} <= vars(leaf).keys()
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", leaf.code)
    assert leaf.title[-1] not in ".!"


def test_no_two_errors_share_a_code_or_a_title():
    assert len({leaf.code for leaf in LEAVES}) == len({leaf.title for leaf in LEAVES}) == len(LEAVES)


@pytest.mark.parametrize("leaf", ANSWERED, ids=lambda leaf: leaf.__name__)
def test_every_error_that_answers_a_call_has_a_status(leaf: type[CasekeeperError]):
    assert 400 <= leaf.status < 600


def test_statuses_are_given_by_branch():
    assert {branch for branch in BRANCHES if "status" not in vars(branch)} == set()
    assert {leaf.__name__ for leaf in LEAVES if "status" in vars(leaf)} == {"HeadersTooLarge"}


@pytest.mark.parametrize("leaf", OF_THE_TREE, ids=lambda leaf: leaf.__name__)
def test_every_error_of_the_tree_is_in_its_drawing(leaf: type[CasekeeperError]):
    assert leaf.__name__ in drawn()[leaf.__mro__[1].__name__]


def test_the_drawing_shows_no_error_that_is_gone():
    known = {cls.__name__ for leaf in LEAVES for cls in leaf.__mro__}

    assert {name for names in drawn().values() for name in names} <= known


def test_the_drawing_tells_the_statuses():
    told = dict(re.findall(r"── (\w+) +(\d{3})", errors.__doc__ or ""))

    assert told == {branch.__name__: str(branch.status) for branch in BRANCHES}


def test_only_a_room_that_must_declares_errors_of_its_own():
    """Rooms raise what `errors.py` has; these two are about running operations, which it does not know."""
    assert sorted(leaf.__name__ for leaf in LEAVES if leaf not in OF_THE_TREE) == ["RightsLost", "TooDeep"]


def test_every_branch_has_an_exit_code_of_its_own_that_the_command_line_documents():
    branches: list[type[CasekeeperError]] = [*BRANCHES, errors.CannotStart]
    documented = (ROOT / "docs" / "cli.md").read_text()

    assert len({branch.exit_code for branch in branches}) == len(branches)
    assert all(f"| {branch.exit_code} | " in documented for branch in branches)
    assert {str(branch.exit_code) for branch in branches} <= set(EPILOG.split())


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)
def test_every_error_is_documented(leaf: type[CasekeeperError]):
    status = f" {leaf.status} |" if leaf in ANSWERED else f" {leaf.title} |"

    assert f"| `{leaf.code}` |{status}" in (ROOT / "docs" / "errors.md").read_text()


def test_the_codes_that_the_doors_make_themselves_are_documented():
    doors = ROOT / "src/casekeeper/doors"
    source = (doors / "inbound.py").read_text() + (doors / "http/problems.py").read_text()
    made = set(re.findall(r'"([a-z]+_[a-z_]+)"', source)) - {
        "needed_role",
        "open_operations",
        "current_version",
    }

    codes = {"method_not_allowed", "bad_request", "internal_error"}
    assert codes <= made
    assert all(f"`{code}`" in (ROOT / "docs" / "errors.md").read_text() for code in codes)
