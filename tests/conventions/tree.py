"""The code as the conventions look at it: paths, syntax trees, and who does what where."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "casekeeper"


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of casekeeper by its path below `src/casekeeper`; migrations, which are history, are left out."""
    paths = sorted(path for path in SOURCE.rglob("*.py") if "migrations" not in path.parts)
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in paths}


def lines_of(module: str) -> int:
    """How long a module is."""
    return len((SOURCE / module).read_text().splitlines())


def calls_of(name: str) -> Iterator[str]:
    """The modules that call something of this name, once for each call."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name_of(node.func) == name:
                yield module


def _name_of(node: ast.expr) -> str | None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return None


def wide_handlers() -> Iterator[str]:
    """The modules that catch everything and go on, once for each place; who raises again only looks."""
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not _raises_again(node):
                yield module


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {_name_of(node) for node in ast.walk(handler.type) if isinstance(node, ast.expr)}
    return bool(names & {"Exception", "BaseException"})


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    goes_on = any(isinstance(node, ast.Return) for statement in handler.body for node in ast.walk(statement))
    return isinstance(last, ast.Raise) and last.exc is None and not goes_on


def public_without_docstring() -> Iterator[str]:
    """Public modules, classes, functions and methods that say nothing, as `module:Name.method`.

    What a protocol or the base of all conditions declares is explained there, not by those who implement it.
    """
    declared = {method.name for tree in modules().values() for method in _declared(tree)}
    for module, tree in modules().items():
        if not ast.get_docstring(tree):
            yield module
        own = {id(method) for method in _declared(tree)}
        for name, node in _public(tree.body, ""):
            implements = "." in name and node.name in declared and id(node) not in own
            if not ast.get_docstring(node) and not implements:
                yield f"{module}:{name}"


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _declared(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and (
            "Protocol" in map(_name_of, node.bases) or node.name == "Condition"
        ):
            yield from (
                item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)
            )


def _public(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, _Definition]]:
    for node in body:
        if isinstance(node, _Definition) and node.name[0] != "_":
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body, f"{node.name}.")
