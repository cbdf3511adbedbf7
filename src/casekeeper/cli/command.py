"""Makes commands out of functions: the options that all share, the client or the settings that they work with."""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import typer

from casekeeper.cli.connection import Target, connected
from casekeeper.cli.opening import read_settings
from casekeeper.cli.output import Output

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper
    from casekeeper.settings import Settings

P = ParamSpec("P")
X = TypeVar("X")

Command: TypeAlias = Callable[Concatenate[X, Output, P], Coroutine[Any, Any, None]]
Registration: TypeAlias = Callable[[Command[X, P]], Command[X, P]]

_ANYWHERE = ("url", "data", "user", "as_json")
_DIRECTORY = ("data", "as_json")

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "url": (Annotated[str | None, typer.Option(help="Server to talk to, with its saved login.")], None),
    "data": (Annotated[Path | None, typer.Option(help="Data directory to work on.")], None),
    "user": (Annotated[str | None, typer.Option(help="Act as this user, on a data directory.")], None),
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON.")], False),
}


def client_command(app: typer.Typer, name: str) -> "Registration[Casekeeper, ...]":
    """Register `async def command(ck, out, …)`: it gets a client for wherever the options point."""
    return _registration(app, name, _ANYWHERE, connected)


def placed_command(app: typer.Typer, name: str) -> "Registration[Target, ...]":
    """Register `async def command(target, out, …)`: it finds its own way to the data."""

    @asynccontextmanager
    async def as_it_is(target: Target) -> AsyncGenerator[Target]:
        yield target

    return _registration(app, name, _ANYWHERE, as_it_is)


def data_command(app: typer.Typer, name: str) -> "Registration[Settings, ...]":
    """Register `async def command(settings, out, …)`: it works on the data directory itself."""

    @asynccontextmanager
    async def settings(target: Target) -> "AsyncGenerator[Settings]":
        yield read_settings(target.data)

    return _registration(app, name, _DIRECTORY, settings)


def _registration(
    app: typer.Typer,
    name: str,
    options: Sequence[str],
    opened: Callable[[Target], AbstractAsyncContextManager[X]],
) -> Registration[X, ...]:
    """Tell typer of a command with the function's own parameters and the common options."""
    common = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for option, (annotation, default) in _OPTIONS.items()
        if option in options
    ]

    def register(function: Command[X, ...]) -> Command[X, ...]:
        # The first two are what the command works with and where it prints; typer need not know.
        _, _, *own = inspect.signature(function).parameters.values()
        parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), *common]

        async def work(target: Target, out: Output, own: dict[str, Any]) -> None:
            async with opened(target) as given:
                await function(given, out, **own)

        def command(**values: Any) -> None:
            url, data, user, as_json = (values.pop(option, None) for option in _ANYWHERE)
            asyncio.run(work(Target(url, data, user), Output(as_json=bool(as_json)), values))

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        command.__doc__ = function.__doc__
        app.command(name)(command)
        return function

    return register
