"""The facts of an operation: started, ended, denied."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from casekeeper.casefiles.access import Access
from casekeeper.execution.runner import Ending
from casekeeper.ids import new_event_id
from casekeeper.journal.events import Fact, Kind, OperationType, Payload
from casekeeper.values import value


@value
class Asked:
    """What somebody asked to run: enough for a fact about it, whether it becomes an operation or not.

    `is_tainted`: an agent asks that has read something, so it may be somebody else's wish.
    """

    operation_type: OperationType
    name: str
    inputs: Any
    request_id: str
    parent_event_id: str | None = None
    is_tainted: bool = False


def started_fact(access: Access, session_id: str, asked: Asked, payload: Payload, now: datetime) -> Fact:
    """The fact that opens an operation, under a fresh event id."""
    return Fact(
        casefile_id=access.casefile_id,
        session_id=session_id,
        event_id=new_event_id(now),
        parent_event_id=asked.parent_event_id,
        kind=Kind.STARTED,
        operation_type=asked.operation_type,
        operation_name=asked.name,
        actor=access.caller.pseudonym,
        request_id=asked.request_id,
        started_at=now,
        permission=access.permission,
        is_tainted=asked.is_tainted,
        payload=payload,
    )


def denied_fact(
    access: Access, session_id: str, asked: Asked, error_type: str, payload: Payload, now: datetime
) -> Fact:
    """The one fact of a call that was refused."""
    opened = started_fact(access, session_id, asked, payload, now)
    return replace(opened, kind=Kind.DENIED, error_type=error_type)


def terminal_fact(
    started: Fact,
    started_seq: int,
    ending: Ending,
    payload: Payload,
    now: datetime,
    *,
    is_tainted: bool,
    waited: timedelta,
) -> Fact:
    """The fact that ends an operation: repeats the header, and refers to the inputs by their commitment."""
    finished = ending.finished
    return Fact(
        casefile_id=started.casefile_id,
        session_id=started.session_id,
        event_id=started.event_id,
        parent_event_id=started.parent_event_id,
        kind=ending.kind,
        operation_type=started.operation_type,
        operation_name=started.operation_name,
        actor=started.actor,
        request_id=started.request_id,
        started_at=started.started_at,
        # The wall clock may step back; an operation never ends before it began.
        ended_at=max(now, started.started_at),
        permission=started.permission,
        is_tainted=is_tainted,
        payload=payload,
        error_type=ending.failure.type if ending.failure else None,
        usage=finished.usage if finished else ending.usage,
        conversation=finished.conversation if finished else None,
        started_seq=started_seq,
        inputs_commit=started.payload.commit.hex(),
        waited_ms=waited // timedelta(milliseconds=1) or None,
    )
