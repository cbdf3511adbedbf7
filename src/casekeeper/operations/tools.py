"""`@tool`: a typed async function becomes an operation; name, schema and description come from it."""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from casekeeper.acl import Effect, role_for_effects
from casekeeper.errors import ArgumentsInvalid, FieldError
from casekeeper.journal.events import OperationType
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import CatalogEntry, Finished
from casekeeper.strict import Strict
from casekeeper.values import value

DEFAULT_TIMEOUT = timedelta(seconds=60)

Function = Callable[..., Awaitable[Any]]

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@value
class Tool:
    """A tool: a function, what it takes, and what it does to the world."""

    name: str
    description: str
    effects: frozenset[Effect]
    timeout: timedelta
    parameters: type[BaseModel]
    function: Function
    limit: int | None = None
    parks: bool = False
    snapshot_version: int = 1

    @property
    def type(self) -> OperationType:
        """Always `tool`."""
        return "tool"

    def parse(self, call: Any) -> dict[str, Any]:
        """The function's keyword arguments out of a `ToolCall`.

        Raises:
            ArgumentsInvalid: They do not fit; `errors` names each field under `parameters`.
        """
        try:
            arguments = self.parameters.model_validate(call.parameters)
        except ValidationError as error:
            raise ArgumentsInvalid(errors=field_errors(error, "payload.operation.parameters")) from error
        return {name: getattr(arguments, name) for name in self.parameters.model_fields}

    async def run(self, context: MDSContext, parameters: Any) -> Finished:
        """Call the function."""
        return Finished(await self.function(context, **parameters))

    def entry(self) -> CatalogEntry:
        """The tool in the catalogue."""
        return CatalogEntry(
            operation_type="tool",
            name=self.name,
            description=self.description,
            effects=sorted(self.effects),
            role=role_for_effects(self.effects),
            timeout_s=self.timeout.total_seconds(),
            parameters=self.parameters.model_json_schema(),
        )


def tool(
    *,
    effects: Iterable[Effect],
    timeout: timedelta = DEFAULT_TIMEOUT,
    name: str | None = None,
    limit: int | None = None,
    parks: bool = False,
    snapshot_version: int = 1,
) -> Callable[[Function], Tool]:
    """Make a tool of an async function whose first parameter is the `MDSContext`.

    `limit`: how often it may start a minute, whoever calls it; for what others count, such as a provider's quota. 0
    means no limit, None leaves it to the settings, which may also say otherwise. `parks`: it may raise `Parked` and is
    called anew when it goes on, in any process; whatever it calls must have a key then (`Invoke`).

    Raises:
        TypeError: The function is not async, has no docstring, takes no context, or a parameter has no type or name.
    """

    def decorate(function: Function) -> Tool:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"tool {function.__name__} must be an async function")
        if not function.__doc__:
            raise TypeError(f"tool {function.__name__} needs a docstring: it is what callers and agents read")
        return Tool(
            name=name or function.__name__,
            description=inspect.cleandoc(function.__doc__),
            effects=frozenset(effects),
            timeout=timeout,
            parameters=_parameters(function),
            function=function,
            limit=limit,
            parks=parks,
            snapshot_version=snapshot_version,
        )

    return decorate


def field_errors(error: ValidationError, prefix: str) -> tuple[FieldError, ...]:
    """Pydantic's complaints by dotted path."""
    return tuple(
        FieldError(".".join([prefix, *(str(part) for part in e["loc"])]), e["msg"]) for e in error.errors()
    )


def _parameters(function: Function) -> type[BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise TypeError(f"tool {function.__name__} must take the MDSContext first")
    fields: dict[str, Any] = {}
    for parameter in parameters[1:]:
        if parameter.kind not in _BY_NAME:
            raise TypeError(f"parameter {parameter.name} of tool {function.__name__} cannot be given by name")
        if parameter.name not in hints:
            raise TypeError(f"parameter {parameter.name} of tool {function.__name__} has no type")
        required = parameter.default is inspect.Parameter.empty
        default: Any = FieldInfo() if required else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    title = "".join(part.capitalize() for part in function.__name__.split("_"))
    return create_model(title, __base__=Strict, **fields)
