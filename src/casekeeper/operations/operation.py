"""Operations: what is asked for, what answers it, and where they come from."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field, StringConstraints

from casekeeper.acl import Effect, Role
from casekeeper.journal.commits import Record
from casekeeper.journal.events import OperationType
from casekeeper.operations.context import MDSContext
from casekeeper.strict import Strict
from casekeeper.values import value

OperationName = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:/@-]+$")
]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=200_000)]


class ToolCall(Strict):
    """Run a tool."""

    operation_type: Literal["tool"]
    tool_name: OperationName
    parameters: dict[str, Any] = Field(default={})

    @classmethod
    def of(cls, name: str, inputs: Any) -> "ToolCall":
        """The call that was recorded with these inputs."""
        return cls(operation_type="tool", tool_name=name, parameters=inputs)

    @property
    def name(self) -> str:
        """The tool's name."""
        return self.tool_name

    @property
    def inputs(self) -> dict[str, Any]:
        """What the record keeps of the call."""
        return self.parameters


class Message(Strict):
    """One earlier message of a conversation: text of the user or the assistant, nothing else."""

    role: Literal["user", "assistant"]
    content: Annotated[str, StringConstraints(max_length=200_000)]


class AgentCall(Strict):
    """Run an agent. Without `message_history` the session's own conversation continues; `[]` starts a new one."""

    operation_type: Literal["agent"]
    agent_name: OperationName
    prompt: Prompt
    message_history: Annotated[list[Message], Field(max_length=1000)] | None = None

    @classmethod
    def of(cls, name: str, inputs: Any) -> "AgentCall":
        """The call that was recorded with these inputs."""
        return cls.model_validate({"operation_type": "agent", "agent_name": name, **inputs})

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.agent_name

    @property
    def inputs(self) -> dict[str, Any]:
        """What the record keeps of the call."""
        return self.model_dump(mode="json", include={"prompt", "message_history"}, exclude_none=True)


OperationCall = Annotated[ToolCall | AgentCall, Field(discriminator="operation_type")]
_CALLS: Mapping[str, type[ToolCall | AgentCall]] = {"tool": ToolCall, "agent": AgentCall}


def call_of(type_: OperationType, name: str, inputs: Any) -> OperationCall:
    """The call that was recorded with these inputs.

    Raises:
        ValueError: They are no inputs of such a call.
    """
    if (kind := _CALLS.get(type_)) is None:
        raise ValueError(f"there is no kind of operation {type_!r}")
    return kind.of(name, inputs)


class CatalogEntry(BaseModel):
    """One operation, as catalogue, documentation and agents see it."""

    operation_type: OperationType
    name: str
    description: str
    effects: list[Effect]
    role: Role = Field(description="The smallest role that may run it.")
    timeout_s: float
    parameters: dict[str, Any] = Field(description="JSON schema of what it takes.")
    rule_based: bool = Field(default=False, description="Follows written rules; there is no model behind it.")
    available: bool = Field(default=True, description="Whether it can run with the present settings.")
    unavailable_because: str | None = None


@value
class Finished:
    """What a run gives back: its outputs, what it used, and records to write with its terminal fact."""

    outputs: Any
    usage: dict[str, int | str] | None = None
    conversation: str | None = None
    records: Sequence[Record] = field(default_factory=tuple[Record, ...])


class Operation(Protocol):
    """Something that can be run."""

    @property
    def type(self) -> OperationType:
        """Which type it is of."""
        ...

    @property
    def name(self) -> str:
        """What calls name it by."""
        ...

    @property
    def effects(self) -> frozenset[Effect]:
        """What it does to the world; the role that it needs follows."""
        ...

    @property
    def timeout(self) -> timedelta:
        """How long a run may take when the caller says nothing, and at most."""
        ...

    @property
    def limit(self) -> int | None:
        """How often it may start a minute, in the whole deployment; None leaves that to the settings."""
        ...

    @property
    def parks(self) -> bool:
        """Whether `run` may raise `Parked`, and is prepared to be called again by any process (`context.resumed`)."""
        ...

    @property
    def snapshot_version(self) -> int:
        """Of the snapshots that it parks with; it must know how to go on from this one and all before it."""
        ...

    def parse(self, call: Any) -> Any:
        """The parameters, validated.

        Raises:
            ArgumentsInvalid: They do not fit; the fields are named.
            ModelUnavailable: What the operation needs is not there.
        """
        ...

    async def run(self, context: MDSContext, parameters: Any) -> Finished:
        """Do it. May raise anything; the runner makes a `failed` fact of it.

        Raises:
            Parked: It waits; no task and no memory is kept for it.
        """
        ...

    def entry(self) -> CatalogEntry:
        """What the catalogue says of it."""
        ...


@value
class OperationScope:
    """For whom and where operations are looked for; both None: those that are everywhere and for everybody."""

    casefile_id: str | None = None
    user_id: str | None = None


EVERYWHERE = OperationScope()


class OperationSource(Protocol):
    """Where the operations of one kind come from. Which there are may depend on the casefile and change at any time.

    Whether a caller may run one is not decided here.
    """

    @property
    def type(self) -> OperationType:
        """Which kind it brings."""
        ...

    @property
    def names(self) -> Collection[str] | None:
        """The names of all operations that there will be while the server runs; None where that cannot be said."""
        ...

    async def find(self, name: str, scope: OperationScope) -> Operation | None:
        """The operation of this name.

        Raises:
            StoreUnavailable: It is not known whether there is one.
        """
        ...

    async def catalogue(self, scope: OperationScope) -> Sequence[Operation]:
        """All operations of the scope, by name.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        ...
