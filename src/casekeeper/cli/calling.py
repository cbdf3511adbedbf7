"""`casekeeper call`: any verb of the API, by its name and the fields of its command."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from casekeeper.cli.command import client_command
from casekeeper.cli.exits import USAGE, Stop
from casekeeper.cli.output import Output
from casekeeper.verbs import VERBS

if TYPE_CHECKING:
    from casekeeper.client import Casekeeper


def add_to(app: typer.Typer) -> None:
    """Put the command into the tree."""
    client_command(app, "call")(call)


async def call(
    ck: "Casekeeper",
    out: Output,
    verb: Annotated[str, typer.Argument(help="Its name, such as casefiles/get.", show_default=False)],
    fields: Annotated[
        list[str] | None, typer.Argument(help="Fields: key=text or key:=JSON.", show_default=False)
    ] = None,
    request_id: Annotated[
        str | None, typer.Option(help="Makes the call safe to repeat.", show_default=False)
    ] = None,
) -> None:
    """Call any verb of the API (docs/api.md) and print its result as JSON."""
    known = VERBS.get(verb)
    if known is None or not known.command or known.is_open:
        callable_ = ", ".join(v.name for v in VERBS.values() if v.command and not v.is_open)
        raise Stop(f"There is no verb {verb!r} to call; there are {callable_}.", USAGE)
    out.json(await ck.call(verb, pairs_of(fields or [], "A field"), request_id=request_id))


def pairs_of(pairs: Sequence[str], said: str) -> dict[str, Any]:
    """Values by their keys, out of `key=text` and `key:=JSON`; `said` is how messages name one."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.rstrip(":"):
            raise Stop(f"{said} takes key=text or key:=JSON, not {pair!r}.", USAGE)
        if key.endswith(":"):
            try:
                values[key[:-1]] = json.loads(value)
            except ValueError as error:
                raise Stop(f"{said} {key[:-1]}: {value!r} is not JSON.", USAGE) from error
        else:
            values[key] = value
    return values
