"""An agent's memory: the session's conversation, stored as a trimmed snapshot between runs."""

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_core import PydanticSerializationError

from casekeeper.agents.agent import Conversations
from casekeeper.documents.blobs import BlobStore
from casekeeper.journal.chain import commitment, new_salt
from casekeeper.operations.context import MDSContext
from casekeeper.operations.operation import Message
from casekeeper.values import value

MESSAGES_MAX = 60
"""Messages in a snapshot: some ten to twenty turns."""

BYTES_MAX = 256 * 1024
"""Size of a snapshot: it is read before every run, and all of it is sent to the model."""

RETURN_MAX_CHARS = 4_000
"""What is kept of a tool's answer; the whole one is in the record, and the tool can be called again."""

_TEXT_MAX_CHARS = 32_000

Turn = Sequence[ModelMessage]


@value
class Memory:
    """The conversations of sessions, as blobs of their casefiles."""

    conversations: Conversations
    blobs: BlobStore

    async def recall(self, context: MDSContext, given: Sequence[Message] | None) -> list[ModelMessage]:
        """What came before this run: the given messages, or the session's own conversation.

        A snapshot that is lost or cannot be read does not stop the run: it starts afresh, and says so as progress.
        """
        if given is not None:
            return [_spoken(message) for message in given]
        name = await self.conversations.conversation(context.session_id)
        if name is None:
            return []
        data = await self.blobs.get(context.casefile_id, name)
        try:
            return ModelMessagesTypeAdapter.validate_json(data or b"")
        except ValidationError:
            text = "The earlier conversation could not be read; this run starts afresh."
            context.progress({"type": "notice", "text": text})
            return []

    async def keep(self, context: MDSContext, messages: Sequence[ModelMessage]) -> str:
        """Keep the conversation; returns the blob's name. The fact that names it is written later.

        The name is a salted digest: a header that holds it tells nothing about what was said.
        """
        data = _json(trim(messages))
        name = commitment(new_salt(), data).hex()
        await self.blobs.put(context.casefile_id, name, data)
        return name


def trim(
    messages: Sequence[ModelMessage], most_messages: int = MESSAGES_MAX, most_bytes: int = BYTES_MAX
) -> list[ModelMessage]:
    """The last whole turns that fit, with tools' answers cut short. A turn starts with what the user said.

    A last turn that is too large by itself is kept as what was asked and what was answered.
    """
    turns = _turns([_shortened(message) for message in messages])
    kept: list[ModelMessage] = []
    size = 0
    for turn in reversed(turns):
        size += len(_json(turn))
        if len(kept) + len(turn) > most_messages or size > most_bytes:
            break
        kept[:0] = turn
    return kept or (_in_brief(turns[-1]) if turns else [])


def _json(messages: Sequence[ModelMessage]) -> bytes:
    try:
        return ModelMessagesTypeAdapter.dump_json(list(messages))
    except PydanticSerializationError:
        # Some providers let lone surrogates through, which JSON cannot hold: each becomes a question mark.
        text = json.dumps(
            ModelMessagesTypeAdapter.dump_python(list(messages), mode="json"), ensure_ascii=False
        )
        return text.encode(errors="replace")


def _turns(messages: Sequence[ModelMessage]) -> list[list[ModelMessage]]:
    turns: list[list[ModelMessage]] = []
    for message in messages:
        if isinstance(message, ModelRequest) and _is_spoken(message):
            turns.append([])
        if turns:  # what comes before the first word of the user belongs to a turn that was cut off
            turns[-1].append(message)
    return turns


def _is_spoken(message: ModelRequest) -> bool:
    return any(isinstance(part, UserPromptPart) for part in message.parts)


def _shortened(message: ModelMessage) -> ModelMessage:
    if isinstance(message, ModelResponse):
        return message
    parts = [_cut(part) if isinstance(part, ToolReturnPart) else part for part in message.parts]
    # Instructions are given anew in every run.
    return replace(message, parts=parts, instructions=None)


def _cut(part: ToolReturnPart) -> ToolReturnPart:
    text = part.model_response_str(wrap_if_error=False)
    if len(text) <= RETURN_MAX_CHARS:
        return part
    return replace(part, content=text[:RETURN_MAX_CHARS] + " … (cut)")


def _in_brief(turn: Turn) -> list[ModelMessage]:
    asked = "".join(
        part.content
        for message in turn
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, UserPromptPart) and isinstance(part.content, str)
    )
    answered = next((m.text for m in reversed(turn) if isinstance(m, ModelResponse) and m.text), "")
    return [
        _spoken(Message(role="user", content=asked[:_TEXT_MAX_CHARS])),
        _spoken(Message(role="assistant", content=answered[:_TEXT_MAX_CHARS])),
    ]


def _spoken(message: Message) -> ModelMessage:
    if message.role == "user":
        return ModelRequest(parts=[UserPromptPart(message.content)])
    return ModelResponse(parts=[TextPart(message.content)])
