import re
from pathlib import Path

import pytest

from casekeeper.journal.events import Kind
from casekeeper.settings import PREFIX, Settings
from tests.conventions.documents import documents, generator
from tests.conventions.tree import ROOT, SOURCE

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"```.*?```", re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z]+)\b")
VARIABLE = re.compile(rf"\b{PREFIX}([A-Z_]+)\b")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted(generator().PAGES))
def test_a_generated_page_is_in_step_with_the_code(page: str):
    assert (ROOT / "docs" / page).read_text() == generator().PAGES[page]()


def test_the_script_says_which_page_is_out_of_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main = generator().main

    codes = [main(arguments, tmp_path) for arguments in (["--check"], [], ["--check"])]

    assert codes == [1, 0, 0]
    assert capsys.readouterr().out.count("out of step") == len(generator().PAGES)


@pytest.mark.parametrize("page", documents(), ids=names)
def test_every_link_leads_somewhere(page: Path):
    dead: list[str] = []
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            dead.append(target)

    assert dead == []


@pytest.mark.parametrize("page", documents(), ids=names)
def test_every_make_target_that_is_named_exists(page: Path):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    code = " ".join(re.findall(r"`+[^`]+`+", page.read_text()))
    assert set(MAKE.findall(code)) <= targets


def test_the_two_commands_are_in_the_readme():
    assert {"demo", "test"} <= set(MAKE.findall((ROOT / "README.md").read_text()))


@pytest.mark.parametrize("page", documents(), ids=names)
def test_every_setting_that_is_named_exists(page: Path):
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}

    assert {name for name in VARIABLE.findall(page.read_text()) if not name.endswith("_")} <= known


def test_the_makefile_sets_nothing_that_stops_the_start():
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}

    assert set(VARIABLE.findall((ROOT / "Makefile").read_text())) <= known


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str):
    assert f"| `{PREFIX}{name.upper()}` |" in (ROOT / "docs" / "settings.md").read_text()


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.value)
def test_every_kind_of_fact_is_documented_for_readers_and_for_verifiers(kind: Kind):
    for page in ("events.md", "record-format.md"):
        assert f"`{kind.value}`" in (ROOT / "docs" / page).read_text()


def test_every_former_route_has_its_successor_in_the_migration():
    page = (ROOT / "docs" / "migration.md").read_text()

    assert all(route in page for route in ("/v1/tool-sessions", "/v1/chat"))


@pytest.mark.parametrize("page", documents(), ids=names)
def test_every_module_that_is_named_exists(page: Path):
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", page.read_text()))

    missing = {
        path
        for path in named
        if not any((base / path).exists() for base in (SOURCE, ROOT, ROOT / "src", ROOT / "tests"))
    }
    assert missing == set()
