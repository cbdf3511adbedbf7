"""How one commit is judged and taken into a batch: conditions, numbers and hashes, records."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from casekeeper.journal.adoption import Adopted, AdoptFacts
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.journal.operations import OpenOperation
from casekeeper.journal.requests import Claim
from casekeeper.storage import firestore_places as at
from casekeeper.storage.firestore_conditions import CONDITIONS
from casekeeper.storage.firestore_records import MAKES_SESSIONS, RECORDS
from casekeeper.storage.firestore_rows import INLINE_BYTES, open_row, pieces
from casekeeper.storage.firestore_values import SERVER_TIME, Fields
from casekeeper.storage.firestore_view import Tail, Totals, View, totals_to_bytes

# A fact carries the totals of its session: past so many names, further ones are counted together.
_NAMES_MAX = 1000
OTHERS = "other"

_ORDER = {type_: place for place, type_ in enumerate(RECORDS)}


async def judge(view: View, commit: Commit, nonce: str) -> Sequence[Sealed]:
    """Take a commit into the batch.

    Raises:
        Refused: A condition does not hold; the view is to be thrown away.
        Superseded: Likewise, because of a race.
        LookupError: It asks for what cannot be.
    """
    for condition in commit.conditions:
        refusal = condition.refusal(await CONDITIONS[type(condition)](view, condition))
        if refusal is not None:
            raise refusal
    records = sorted(
        (record for record in commit.records if not isinstance(record, OpenOperation | AdoptFacts)),
        key=lambda record: _ORDER[type(record)],
    )
    for record in records:
        if isinstance(record, MAKES_SESSIONS):
            await RECORDS[type(record)](view, record)
    sealed = [await _seal(view, fact, nonce) for fact in commit.facts]
    for record in commit.records:
        if isinstance(record, AdoptFacts):
            await _adopt(view, record, nonce)
        if isinstance(record, OpenOperation):
            # The claim is named, so that releasing it costs no search.
            claim = next((r.key for r in records if isinstance(r, Claim) and r.made == record.event_id), None)
            view.create(at.open_operation(record.event_id), open_row(record, sealed[-1], claim))
    for record in records:
        if not isinstance(record, MAKES_SESSIONS):
            await RECORDS[type(record)](view, record)
    return sealed


async def _seal(view: View, fact: Fact, nonce: str) -> Sealed:
    if await view.casefile_of(fact.session_id) != fact.casefile_id:
        raise LookupError("a fact was written for a session that does not exist")
    tail = await view.tail(fact.casefile_id, fact.session_id)
    seq = tail.seq + 1
    header = canonical(fact.header(seq))
    previous = tail.hash if tail.seq else genesis(fact.casefile_id, fact.session_id)
    hash_ = link(previous, header, fact.payload.commit)
    _append(view, Adopted(fact, seq, header, hash_), tail, nonce)
    return Sealed(fact, seq, hash_)


async def _adopt(view: View, record: AdoptFacts, nonce: str) -> None:
    for adopted in record.facts:
        _append(view, adopted, await view.tail(record.casefile_id, record.session_id), nonce)


def _append(view: View, one: Adopted, tail: Tail, nonce: str) -> None:
    """Write a fact behind the session's tail, of which it becomes the newest."""
    fact, seq = one.fact, one.seq
    is_terminal = fact.kind in TERMINAL
    totals = _counted(tail.totals, fact) if is_terminal else tail.totals
    counted_seq = seq if is_terminal else tail.counted_seq
    newest = Tail(seq, one.hash, max(fact.at_us, tail.last_us), totals, counted_seq)
    row = event_row(fact, newest, one.header, nonce)
    view.create(at.event(fact.casefile_id, fact.session_id, seq), row)
    view.tails[fact.session_id] = newest


def event_row(fact: Fact, tail: Tail, header: bytes, nonce: str) -> Fields:
    """A fact's fields, the newest of its session."""
    payload, is_terminal = fact.payload, fact.kind in TERMINAL
    is_large = payload.body is not None and len(payload.body) > INLINE_BYTES
    return {
        "session_id": fact.session_id,
        "seq": tail.seq,
        "casefile_id": fact.casefile_id,
        "event_id": fact.event_id,
        "parent_event_id": fact.parent_event_id,
        "kind": fact.kind.value,
        "is_terminal": is_terminal,
        "operation_type": fact.operation_type,
        "operation_name": fact.operation_name,
        "actor": fact.actor,
        "request_id": fact.request_id,
        "at_us": fact.at_us,
        "last_us": tail.last_us,
        "committed_at": SERVER_TIME,
        "started_seq": fact.started_seq,
        "header": header,
        "commitment": payload.commit,
        "hash": tail.hash,
        "totals": totals_to_bytes(tail.totals) if is_terminal else tail.counted_seq,
        "nonce": nonce,
        # An adopted fact may have been erased before.
        "salt": payload.salt or None,
        "body": None if is_large else payload.body,
        "chunks": len(list(pieces(payload.body or b""))) if is_large else 0,
        "blob": payload.blob,
        "size": payload.size,
    }


def _counted(totals: Totals, fact: Fact) -> Totals:
    if fact.operation_type is None:
        return totals
    usage: dict[str, Any] = fact.usage or {}
    busy_ms = fact.busy_ms if fact.parent_event_id is None else 0
    tokens = int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))
    cost = int(Decimal(str(usage.get("cost", 0))) * 1_000_000)
    names = (fact.operation_type, fact.operation_name or "", fact.kind.value)
    if names not in totals and len(totals) >= _NAMES_MAX:
        names = (fact.operation_type, OTHERS, fact.kind.value)
    count_, busy_, tokens_, cost_ = totals.get(names, (0, 0, 0, 0))
    return {**totals, names: (count_ + 1, busy_ + busy_ms, tokens_ + tokens, cost_ + cost)}
