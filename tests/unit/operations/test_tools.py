from datetime import timedelta
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from casekeeper.acl import Effect, Role
from casekeeper.errors import ArgumentsInvalid
from casekeeper.ids import DocumentId
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import ToolCall
from casekeeper.operations.tools import DEFAULT_TIMEOUT, Tool, tool
from casekeeper.tools import BUILT_IN


class Place(BaseModel):
    """Somewhere."""

    city: str
    street: str | None = None


@tool(effects={Effect.READ, Effect.EXTERNAL}, timeout=timedelta(seconds=7))
async def find_letter(
    call: MDSContext,
    query: Annotated[str, Field(min_length=1, max_length=10, description="What to look for.")],
    place: Place | None = None,
    limit: Annotated[int, Field(ge=1, le=5)] = 3,
    document_id: DocumentId | None = None,
) -> list[Any]:
    """Find a letter.

    It may be anywhere.
    """
    return [query, place, limit, document_id]


def parse(parameters: dict[str, Any]) -> dict[str, Any]:
    call = ToolCall(operation_type="tool", tool_name="find_letter", parameters=parameters)
    return find_letter.parse(call)


def test_a_tool_is_named_and_described_by_its_function():
    assert (find_letter.name, find_letter.description) == (
        "find_letter",
        "Find a letter.\n\nIt may be anywhere.",
    )


def test_a_tool_may_be_named_otherwise():
    @tool(effects={Effect.READ}, name="other")
    async def some(call: MDSContext) -> None:
        """Do nothing."""

    assert some.name == "other"


def test_a_schema_follows_from_the_signature():
    schema = find_letter.entry().parameters

    assert schema["additionalProperties"] is False
    assert schema["required"] == ["query"]
    assert schema["properties"]["query"] == {
        "type": "string",
        "minLength": 1,
        "maxLength": 10,
        "description": "What to look for.",
        "title": "Query",
    }
    assert schema["properties"]["limit"]["default"] == 3
    assert "call" not in schema["properties"]


def test_an_entry_says_what_callers_need():
    entry = find_letter.entry()

    assert (entry.effects, entry.role, entry.timeout_s, entry.available) == (
        [Effect.EXTERNAL, Effect.READ],
        Role.EDITOR,
        7.0,
        True,
    )


def test_a_tool_has_a_minute_unless_it_says_otherwise():
    @tool(effects={Effect.READ})
    async def some(call: MDSContext) -> None:
        """Do nothing."""

    assert some.timeout == DEFAULT_TIMEOUT == timedelta(minutes=1)


def test_what_is_not_given_has_its_default():
    assert parse({"query": "rent"}) == {"query": "rent", "place": None, "limit": 3, "document_id": None}


def test_parameters_reach_the_function_as_their_types():
    assert parse({"query": "rent", "place": {"city": "Bern"}})["place"] == Place(city="Bern")


@pytest.mark.parametrize(
    ("parameters", "fields"),
    [
        ({}, ["query"]),
        ({"query": ""}, ["query"]),
        ({"query": "x" * 11}, ["query"]),
        ({"query": 7}, ["query"]),
        ({"query": None}, ["query"]),
        ({"query": "x", "limit": 6}, ["limit"]),
        ({"query": "x", "limit": "many"}, ["limit"]),
        ({"query": "x", "place": {"street": "x"}}, ["place.city"]),
        ({"query": "x", "place": []}, ["place"]),
        ({"query": "x", "document_id": "evt_1"}, ["document_id"]),
        ({"query": "x", "colour": "red"}, ["colour"]),
        ({"query": "x", "call": {}}, ["call"]),
        ({"limit": 0, "colour": 1}, ["query", "limit", "colour"]),
    ],
)
def test_what_does_not_fit_is_named_by_its_field(parameters: dict[str, Any], fields: list[str]):
    with pytest.raises(ArgumentsInvalid) as invalid:
        parse(parameters)

    prefix = "payload.operation.parameters."
    assert [error.field.removeprefix(prefix) for error in invalid.value.errors] == fields


def test_a_function_that_is_not_async_is_no_tool():
    def plain(call: MDSContext) -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="must be an async function"):
        tool(effects={Effect.READ})(plain)  # pyright: ignore[reportArgumentType] - this is what is refused


def test_an_async_generator_is_no_tool():
    async def many(call: MDSContext) -> Any:
        """Do nothing."""
        yield 1

    with pytest.raises(TypeError, match="must be an async function"):
        tool(effects={Effect.READ})(many)


def test_a_tool_without_a_docstring_is_refused():
    async def silent(call: MDSContext) -> None: ...

    with pytest.raises(TypeError, match="needs a docstring"):
        tool(effects={Effect.READ})(silent)


def test_a_parameter_without_a_type_is_refused():
    async def vague(call: MDSContext, what) -> None:  # type: ignore[no-untyped-def] # pyright: ignore
        """Do nothing."""

    with pytest.raises(TypeError, match="parameter what of tool vague has no type"):
        tool(effects={Effect.READ})(vague)  # pyright: ignore[reportUnknownArgumentType]


def test_a_tool_that_takes_no_context_is_refused():
    async def alone() -> None:
        """Do nothing."""

    with pytest.raises(TypeError, match="must take the MDSContext"):
        tool(effects={Effect.READ})(alone)


@pytest.mark.parametrize("kind", ["args", "kwargs", "positional"])
def test_a_parameter_that_has_no_place_in_a_schema_is_refused(kind: str):
    async def args(call: MDSContext, *what: int) -> None:
        """Do nothing."""

    async def kwargs(call: MDSContext, **what: int) -> None:
        """Do nothing."""

    async def positional(call: MDSContext, what: int, /) -> None:
        """Do nothing."""

    functions = {"args": args, "kwargs": kwargs, "positional": positional}

    with pytest.raises(TypeError, match="cannot be given by name"):
        tool(effects={Effect.READ})(functions[kind])


@pytest.mark.parametrize("built_in", BUILT_IN, ids=lambda built_in: built_in.name)
def test_every_built_in_tool_describes_itself(built_in: Tool):
    entry = built_in.entry()

    assert entry.description
    assert entry.parameters["additionalProperties"] is False
    assert entry.effects


def test_built_in_tools_are_listed_by_name():
    names = [built_in.name for built_in in BUILT_IN]

    assert names == sorted(set(names))
