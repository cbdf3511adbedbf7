"""Commands and results of calls as the server's own models.

They are loaded with the first call that needs them, so that importing the SDK stays cheap.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from casekeeper.client.errors import invalid
from casekeeper.verbs.verb import Verb, load

_RESULT = "client.results:Result"
_EVENT = "journal.events:ExecutionEvent"

_READ_AS = {
    "execution.status:Executed": (_RESULT, False),
    "sessions.reading:FactPage": (_EVENT, True),
}
"""What the server writes in a form of its own, and as what callers get it: the model, and whether it is a page of these."""


def command_of(verb: Verb, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are given, validated, as JSON.

    Raises:
        Invalid: They do not fit.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    model: type[BaseModel] = verb.command_type()
    try:
        command = model.model_validate(given)
    except ValidationError as error:
        raise invalid(error) from error
    return command.model_dump(mode="json", exclude_unset=True)


def result_of(verb: Verb, payload: Any) -> Any:
    """The payload of an answer as its model."""
    if verb.page_of:
        return read(verb.page_of, payload, is_page=True)
    name, is_page = _READ_AS.get(verb.result, (verb.result, False))
    return read(name, payload, is_page=is_page)


def read(name: str, payload: Any, *, is_page: bool = False) -> Any:
    """JSON from the server as the model named `module:Model`, or as a page of these."""
    return _adapter(name, is_page).validate_python(payload)


@cache
def _adapter(name: str, is_page: bool) -> TypeAdapter[Any]:
    model = load(name)
    return TypeAdapter(load("paging:Page")[model] if is_page else model)
