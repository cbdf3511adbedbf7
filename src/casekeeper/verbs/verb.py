"""A row of the table of verbs."""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib import import_module
from typing import Any, Literal

from casekeeper.values import value

Need = Literal[
    "nothing",
    "account",
    "oneself",
    "operator",
    "reader",
    "viewer",
    "editor",
    "admin",
    "owner",
    "session",
    "operation",
]
"""The least that a caller needs.

`nothing`: not even a token. `oneself`: to be the account in question, or an operator. `reader`: to be a member of the
casefile, or it is public. `session`: to be let into the session. `operation`: what the operation asks for.
"""


@value
class Example:
    """A worked example: a payload and what it does."""

    summary: str
    payload: Mapping[str, Any]


@value
class Verb:
    """One thing that can be asked for.

    Attributes:
        name: Noun and verb: `casefiles/create`.
        needs: The least that a caller needs; `note` says what else there is to it.
        command: The model that is sent, as `module:Class`.
        result: The answer's payload, likewise; of pages, `page_of` names what is on them.
        calls: The method that does it, from the server on. It takes the caller (unless the verb needs nothing) and the
            command; where `claims` is set also the ask, and then it says whether this was a repeat.
        claims: The text under which its request ids are claimed. It is part of stored keys and never changes, whatever
            becomes of the name. Empty where nothing is claimed.
        unclaimed: Whether it changes something all the same: doing it twice does no harm, or it answers with secrets.
        may_wait: Whether the result may say that the work has not ended; then it is answered with 202.
        streams: Whether it is streamed on request, as server-sent events.
        takes_bytes: Whether its body is the bytes themselves instead of the envelope.
    """

    name: str
    summary: str
    needs: Need
    command: str = ""
    result: str = ""
    page_of: str = ""
    calls: str = ""
    note: str = ""
    claims: str = ""
    unclaimed: bool = False
    may_wait: bool = False
    streams: bool = False
    takes_bytes: bool = False
    examples: Mapping[str, Example] = field(default_factory=dict[str, Example])

    @property
    def path(self) -> str:
        """Where HTTP has it."""
        return f"/v1/{self.name}"

    @property
    def noun(self) -> str:
        """What it is about."""
        return self.name.partition("/")[0]

    @property
    def operation_id(self) -> str:
        """Its name in OpenAPI."""
        return self.name.replace("/", "_")

    @property
    def changes(self) -> bool:
        """Whether it starts work or changes state, so that it is sent with a request id."""
        return bool(self.claims) or self.unclaimed

    @property
    def is_open(self) -> bool:
        """Whether it can be called without a token."""
        return self.needs == "nothing"

    def command_type(self) -> Any:
        """The model of what is sent."""
        return load(self.command)

    def result_type(self) -> Any:
        """The type of the answer's payload."""
        return load("paging:Page")[load(self.page_of)] if self.page_of else load(self.result)


@cache
def load(name: str) -> Any:
    """What `module:Class` names below `casekeeper`."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(f"casekeeper.{module}"), attribute)
