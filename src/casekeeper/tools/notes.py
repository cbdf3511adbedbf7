"""Notes that people and agents add to a casefile."""

import hashlib
from typing import Annotated

from pydantic import Field

from casekeeper.acl import Effect
from casekeeper.documents.document import NewDocument
from casekeeper.operations.context import MDSContext
from casekeeper.operations.tools import tool


@tool(effects={Effect.WRITE})
async def note_add(
    call: MDSContext,
    text: Annotated[str, Field(min_length=1, max_length=100_000)],
    title: Annotated[str, Field(max_length=200)] = "Note",
) -> dict[str, str]:
    """Add a note to the casefile and return its document id."""
    # The author and the event make each note its own document, even where two say the same.
    raw = f"{title}\nby {call.user_id} in {call.event_id}\n\n{text}".encode()
    sha256 = hashlib.sha256(raw).hexdigest()
    new = NewDocument(
        kind="note", title=title, raw=raw, sha256=sha256, source="note_add", text=text, sender=call.user_id
    )
    [document] = await call.documents.add([new])
    return {"document_id": document.document_id}
