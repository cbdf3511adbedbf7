"""The casefile's tools as an agent sees them: one toolset over the registry. It checks nothing that the corridor checks;
it only shows what the caller may use and passes calls on.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic_ai import RunContext
from pydantic_ai.exceptions import ToolFailed, UsageLimitExceeded
from pydantic_ai.messages import ModelMessage, ModelResponse, ToolCallPart
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import PydanticSerializationError, SchemaValidator, from_json, to_json

from casekeeper.acl import Effect
from casekeeper.ids import REQUEST_ID
from casekeeper.operations.admitting import scope_of
from casekeeper.operations.context import MDSContext, NestedFailed
from casekeeper.operations.operation import Operation, OperationSource, ToolCall

RESULT_MAX_CHARS = 100_000
"""Longer results reach the model cut: some 25,000 tokens are what it can still make sense of."""

_RETRIES = 3
_NAME_MAX = 128
_INPUTS_MAX_CHARS = 64_000
_UNSAFE_IN_NAMES = re.compile(r"[^A-Za-z0-9_.:/@-]")


def _jsonable(arguments: dict[str, Any]) -> dict[str, Any]:
    # Some providers hand over objects that JSON cannot hold: lone surrogates, for one.
    try:
        return from_json(to_json(arguments, inf_nan_mode="null"))
    except PydanticSerializationError as error:
        raise ValueError("this is not JSON") from error


# Any object will do here: what a tool takes is judged in one place, by the corridor.
_OBJECT = SchemaValidator(TypeAdapter(Annotated[dict[str, Any], AfterValidator(_jsonable)]).core_schema)


@dataclass(slots=True)
class Called:
    """One call of a tool within a run, and how it ended: succeeded, failed or denied."""

    tool_name: str
    call_id: str
    outcome: str = "failed"
    error_type: str | None = None
    event_id: str = ""

    def begun(self, event_id: str) -> None:
        """The child has facts under this id from now on."""
        self.event_id = event_id

    def output(self) -> dict[str, str]:
        """As the run's outputs name it. The child's fact has `call_id` as its `request_id`."""
        shown = {
            "event_id": self.event_id,
            "tool_name": self.tool_name,
            "call_id": self.call_id,
            "outcome": self.outcome,
        }
        return {**shown, "error_type": self.error_type} if self.error_type else shown


class CasefileTools(AbstractToolset[MDSContext]):
    """The tools of one run. Keeps what was called, so that what was not can be told afterwards."""

    def __init__(self, source: OperationSource, allowed: frozenset[str] | None, most_calls: int) -> None:
        self._source = source
        self._found: Mapping[str, Operation] = {}
        self._allowed = allowed
        self._most_calls = most_calls
        self.called: list[Called] = []

    @property
    def id(self) -> str:
        """The same in every run."""
        return "casefile-tools"

    @property
    def entered(self) -> int:
        """How many calls went into the corridor, whatever became of them."""
        return sum(called.outcome != "denied" for called in self.called)

    async def get_tools(self, ctx: RunContext[MDSContext]) -> dict[str, ToolsetTool[MDSContext]]:
        """What the caller's rights and the agent's own list leave, by name."""
        await self._find(ctx.deps)
        return {name: self._shown(one) for name, one in self._found.items() if self._shows(name, ctx.deps)}

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[MDSContext], tool: ToolsetTool[MDSContext]
    ) -> Any:
        """The tool's outputs, by way of the corridor.

        Raises:
            ToolFailed: Refused or failed; the model is told, and goes on.
            RightsLost: The caller's permission has ended: so does the run.
            UsageLimitExceeded: More calls than a run may make.
        """
        call_id = request_id(ctx.tool_call_id or "")
        if self.entered >= self._most_calls:
            raise UsageLimitExceeded(f"The run made its {self._most_calls} tool calls")
        called = Called(name, call_id)
        self.called.append(called)
        call = ToolCall(operation_type="tool", tool_name=name, parameters=tool_args)
        try:
            outputs = await ctx.deps.invoke(call, call_id=call_id, begun=called.begun)
        except NestedFailed as error:
            called.error_type = error.type
            raise ToolFailed(f"{error.type}: {error.message}") from error
        called.outcome = "succeeded"
        return _cut(outputs)

    async def note_refusals(
        self, context: MDSContext, messages: Sequence[ModelMessage], *, unreached: str | None = None
    ) -> None:
        """Leave one `denied` child for each call of this run that never entered the corridor.

        PydanticAI answers such calls itself: of tools that do not exist or are not shown, and with arguments that are
        no JSON object. `unreached` is why a call that was right did not run; None where it simply was not its turn.
        """
        await self._find(context)
        entered = Counter((called.tool_name, called.call_id) for called in self.called)
        for part in _calls(messages, context.event_id, whole_only=unreached is None):
            call_id = request_id(part.tool_call_id)
            if entered[part.tool_name, call_id] > 0:
                entered[part.tool_name, call_id] -= 1
                continue
            error_type = self._fault(part, context) or unreached
            if error_type is None:
                continue
            name = _UNSAFE_IN_NAMES.sub("_", part.tool_name)[:_NAME_MAX] or "_"
            event_id = await context.note_refusal(
                name=name,
                inputs=_inputs(part),
                error_type=error_type,
                message=_MESSAGES[error_type].format(name=name),
                call_id=call_id,
            )
            self.called.append(Called(name, call_id, "denied", error_type, event_id))

    async def _find(self, context: MDSContext) -> None:
        found = await self._source.catalogue(scope_of(context.access))
        self._found = {tool.name: tool for tool in found}

    def _shows(self, name: str, context: MDSContext) -> bool:
        return (self._allowed is None or name in self._allowed) and context.may(self._found[name])

    def _shown(self, tool: Operation) -> ToolsetTool[MDSContext]:
        entry = tool.entry()
        definition = ToolDefinition(
            name=tool.name,
            description=entry.description,
            parameters_json_schema=entry.parameters,
            # Calls that change something run one after the other, in the order in which the model made them.
            sequential=not tool.effects <= {Effect.READ},
        )
        return ToolsetTool(toolset=self, tool_def=definition, max_retries=_RETRIES, args_validator=_OBJECT)

    def _fault(self, part: ToolCallPart, context: MDSContext) -> str | None:
        if part.tool_name not in self._found:
            return "tool_unknown"
        if not self._shows(part.tool_name, context):
            return "tool_forbidden"
        return None if _arguments(part) is not None else "arguments_invalid"


_MESSAGES = {
    "tool_unknown": "There is no tool {name}.",
    "tool_forbidden": "The tool {name} is not open to this agent under the caller's role and the rules of this server.",
    "arguments_invalid": "The arguments for {name} are no JSON object.",
    "budget_spent": "The run's budget was spent before {name} was called.",
}


def request_id(call_id: str) -> str:
    """The provider's id of a call if it is spelled like a request id, a digest of it otherwise."""
    if re.fullmatch(REQUEST_ID, call_id):
        return call_id
    return "call_" + hashlib.sha256(call_id.encode(errors="replace")).hexdigest()[:32]


def _calls(messages: Sequence[ModelMessage], run_id: str, *, whole_only: bool) -> Iterator[ToolCallPart]:
    for message in messages:
        if not isinstance(message, ModelResponse) or message.run_id != run_id:
            continue
        # An answer that broke off asked for nothing yet; one that spent the budget is marked the same way, but whole.
        if whole_only and message.state == "interrupted":
            continue
        yield from (part for part in message.parts if isinstance(part, ToolCallPart))


def _arguments(part: ToolCallPart) -> dict[str, Any] | None:
    try:
        if isinstance(part.args, str):
            return _OBJECT.validate_json(part.args or "{}")
        return _OBJECT.validate_python(part.args or {})
    except (ValidationError, ValueError):
        return None


def _inputs(part: ToolCallPart) -> Any:
    """What the record keeps of a call that never ran: its arguments, or as much of their text as makes sense."""
    arguments, text = _arguments(part), str(part.args)
    if arguments is not None and len(text) <= _INPUTS_MAX_CHARS:
        return arguments
    return {"text": text[:_INPUTS_MAX_CHARS].encode(errors="replace").decode()}


def _cut(outputs: Any) -> Any:
    text = to_json(outputs).decode()
    if len(text) <= RESULT_MAX_CHARS:
        return outputs
    return {"cut": f"the first {RESULT_MAX_CHARS} of {len(text)} characters", "text": text[:RESULT_MAX_CHARS]}
