"""SQL expressions that differ between the databases."""

from typing import Any

from sqlalchemy import ColumnElement, Integer, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import NullType


class IsInJson(ColumnElement[Any]):
    """The column is in a JSON list of texts given as one parameter, so that the statement stays static."""

    # Not Boolean: databases without such a type would be asked whether it equals 1, and scan.
    type = NullType()
    inherit_cache = False

    def __init__(self, column: ColumnElement[str], parameter: str) -> None:
        self.column = column
        self.parameter = bindparam(parameter, type_=Text())


@compiles(IsInJson)
def _is_in_json(element: IsInJson, compiler: SQLCompiler, **more: Any) -> str:
    column, parameter = compiler.process(element.column, **more), compiler.process(element.parameter, **more)
    return f"{column} IN (SELECT value FROM json_each({parameter}))"  # noqa: S608 - names of ours


@compiles(IsInJson, "postgresql")
def _is_in_json_postgres(element: IsInJson, compiler: SQLCompiler, **more: Any) -> str:
    column, parameter = compiler.process(element.column, **more), compiler.process(element.parameter, **more)
    return f"{column} IN (SELECT jsonb_array_elements_text(({parameter})::jsonb))"


class BodyText(ColumnElement[str]):
    """Stored JSON bytes as text."""

    type = Text()
    inherit_cache = True

    def __init__(self, column: ColumnElement[bytes]) -> None:
        self.column = column


@compiles(BodyText)
def _body_text(element: BodyText, compiler: SQLCompiler, **more: Any) -> str:
    return f"CAST({compiler.process(element.column, **more)} AS TEXT)"


@compiles(BodyText, "postgresql")
def _body_text_postgres(element: BodyText, compiler: SQLCompiler, **more: Any) -> str:
    return f"convert_from({compiler.process(element.column, **more)}, 'UTF8')"


class TextPosition(ColumnElement[int]):
    """Where a text begins within another, counted from 1; 0 if it is not there."""

    type = Integer()
    inherit_cache = True

    def __init__(self, within: ColumnElement[Any], text: ColumnElement[Any]) -> None:
        self.within = within
        self.sought = text


@compiles(TextPosition)
def _text_position(element: TextPosition, compiler: SQLCompiler, **more: Any) -> str:
    return f"instr({compiler.process(element.within, **more)}, {compiler.process(element.sought, **more)})"


@compiles(TextPosition, "postgresql")
def _text_position_postgres(element: TextPosition, compiler: SQLCompiler, **more: Any) -> str:
    return f"strpos({compiler.process(element.within, **more)}, {compiler.process(element.sought, **more)})"
