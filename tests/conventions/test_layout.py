import ast
import subprocess
import sys
from collections import Counter

from tests.conventions.tree import (
    ROOT,
    SOURCE,
    calls_of,
    lines_of,
    modules,
    public_without_docstring,
    wide_handlers,
)

CEILING = 500
"""About 300 lines is what a module should have; how long it may be is another matter."""

CATCHES_ALL = {
    "doors/http/verbs.py": "the outermost door of a verb: whatever happens behind it becomes a problem",
    "cli/app.py": "the command line's outermost door: one line on stderr, never a traceback",
    "cli/inprocess.py": "the outermost door of an application in the same process: who asked is told",
    "reading/clean.py": "library calls on bytes of strangers: one mail never stops an import",
    "reading/extraction.py": "likewise: a file that a library chokes on is kept as it is",
    "execution/runner.py": "whatever a tool raises, and says about it, becomes a result",
    "storage/firestore/commits.py": "a session's queue: every waiting commit gets its answer",
    "storage/postgres/store.py": "a batch's transaction: every waiting commit gets its answer",
    "storage/sqlite/store.py": "the writer's thread: every waiting commit gets its answer",
}
"""Where everything may be caught, and why there."""

MAKES_CONTEXTS = {
    "execution/following.py": "the context of the operation that was just written, no longer planned",
    "sessions/manager.py": "the manager itself",
}

SAYS_NOTHING = {
    "doors/http/dependencies.py:Inbound.json",
    "documents/document.py:DocumentStore.counts",
    "documents/document.py:DocumentStore.document",
    "documents/document.py:DocumentStore.upload",
    "sessions/manager.py:Place.casefile_id",
    "sessions/manager.py:Place.session_id",
}
"""Public names whose signature says it all, or so it was thought. This list only shrinks."""


def test_no_module_is_longer_than_the_ceiling():
    assert {module for module in modules() if lines_of(module) > CEILING} == set()


def test_no_test_is_longer_than_the_ceiling():
    paths = [
        p for folder in ("tests", "scripts", "benchmarks", "examples") for p in (ROOT / folder).rglob("*.py")
    ]

    assert [
        str(p.relative_to(ROOT)) for p in paths if len(p.read_text().splitlines()) > CEILING
    ] == KNOWN_LONG_TESTS


KNOWN_LONG_TESTS = ["tests/unit/test_verify.py"]
"""Longer than the ceiling. This list only shrinks."""


def test_only_storage_and_doors_hold_folders():
    """Databases and doors are many behind one room's rules; a concept is one folder at most."""
    deep = {
        path.relative_to(SOURCE).parts[0]
        for path in SOURCE.rglob("*.py")
        if len(path.relative_to(SOURCE).parts) > 2
    }

    assert deep <= {"storage", "doors"}


def test_no_module_is_named_for_what_it_is_not():
    vague = {"utils.py", "helpers.py", "common.py", "base.py", "misc.py"}

    assert {module for module in modules() if module.rpartition("/")[2] in vague} == set()


def test_what_nobody_changes_is_a_value():
    """`@value` of `values.py`, not a frozen dataclass; the verifier imports nothing."""
    frozen = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node).startswith("dataclass(frozen=True")
    }

    assert frozen == {"verify.py"}


def test_only_the_gate_proves_entry():
    assert set(calls_of("Access")) == {"casefiles/access.py"}


def test_only_the_manager_proves_sessions():
    assert set(calls_of("SessionContext")) == set(MAKES_CONTEXTS)


def test_only_admitting_proves_that_an_operation_was_let_in():
    assert set(calls_of("Admitted")) == {"operations/admitting.py"}


def test_everything_is_caught_only_where_there_is_a_reason():
    assert set(wide_handlers()) == set(CATCHES_ALL)


def test_everything_is_caught_once_in_each_of_these_places():
    assert {module: count for module, count in Counter(wide_handlers()).items() if count > 1} == {}


def test_nothing_is_printed_but_by_the_command_line_and_the_verifier():
    printing = {module for module in calls_of("print") if not module.startswith("cli/")}

    assert printing == {"verify.py"}


def test_what_is_public_says_what_it_is():
    """An error's title is its description; what a protocol explains, its implementations need not."""
    silent = {name for name in public_without_docstring() if not name.startswith("errors.py:")}

    assert silent == SAYS_NOTHING


def test_every_package_says_what_it_is():
    assert [m for m in modules() if m.endswith("__init__.py") and not lines_of(m)] == []


def test_imports_point_down_only():
    lint = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert lint.returncode == 0, lint.stdout
    assert "0 broken" in lint.stdout
