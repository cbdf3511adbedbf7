"""The documents, and the script that writes some of them."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.conventions.tree import ROOT


@cache
def generator() -> ModuleType:
    """`scripts/generate_docs.py` as a module."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documents() -> list[Path]:
    """Every Markdown file of the project itself."""
    folders = [ROOT, ROOT / "docs", ROOT / "docs" / "decisions", ROOT / "tests", ROOT / "benchmarks"]
    return sorted(path for folder in folders for path in folder.glob("*.md"))
