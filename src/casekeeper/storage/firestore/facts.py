"""Facts in Firestore: numbered and chained behind the tail of their session, each a document."""

from collections.abc import Sequence
from operator import add

from casekeeper.journal.adoption import Adopted, AdoptFacts, ChainEndsAt
from casekeeper.journal.chain import canonical, genesis, link
from casekeeper.journal.commits import Commit
from casekeeper.journal.events import TERMINAL, Fact, Sealed
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.chunks import INLINE_BYTES, chunks_of, put_chunks
from casekeeper.storage.firestore.client import Firestore
from casekeeper.storage.firestore.messages import SERVER_TIME, Fields
from casekeeper.storage.firestore.parts import Finds
from casekeeper.storage.firestore.view import ChainEnd, Totals, View, totals_to_bytes
from casekeeper.storage.rows import event_row, payload_row, totals_of

# A fact carries the totals of its session: past so many names, further ones are counted together.
_NAMES_MAX = 1000
OTHERS = "other"


def facts_of(commit: Commit) -> Sequence[Fact]:
    """All facts that a commit writes, its own and those that it adopts."""
    adopted = (record.facts for record in commit.records if isinstance(record, AdoptFacts))
    return [*commit.facts, *(one.fact for facts in adopted for one in facts)]


async def put_payloads(store: Firestore, commit: Commit) -> None:
    """Write the payloads that are too large for their facts."""
    for fact in facts_of(commit):
        if (body := fact.payload.body) is not None and len(body) > INLINE_BYTES:
            # By this name readers look for it.
            await put_chunks(store, fact.casefile_id, fact.payload.commit.hex(), body)


async def seal(view: View, fact: Fact, nonce: str) -> Sealed:
    """Number a fact and link it to the one before it; `nonce` tells the try that wrote it.

    Raises:
        LookupError: There is no such session in its casefile.
    """
    if await view.casefile_of(fact.session_id) != fact.casefile_id:
        raise LookupError("a fact was written for a session that does not exist")
    tail = await view.tail(fact.casefile_id, fact.session_id)
    seq = tail.seq + 1
    header = canonical(fact.header(seq))
    previous = tail.hash if tail.seq else genesis(fact.casefile_id, fact.session_id)
    hash_ = link(previous, header, fact.payload.commit)
    _append(view, Adopted(fact, seq, header, hash_), tail, nonce)
    return Sealed(fact, seq, hash_)


async def adopt(view: View, record: AdoptFacts, nonce: str) -> None:
    """Take in facts that have their numbers and hashes."""
    for adopted in record.facts:
        _append(view, adopted, await view.tail(record.casefile_id, record.session_id), nonce)


def _append(view: View, one: Adopted, tail: ChainEnd, nonce: str) -> None:
    """Write a fact behind the session's tail, of which it becomes the newest."""
    fact, seq = one.fact, one.seq
    is_terminal = fact.kind in TERMINAL
    totals = _counted(tail.totals, fact) if is_terminal else tail.totals
    counted_seq = seq if is_terminal else tail.counted_seq
    newest = ChainEnd(seq, one.hash, max(fact.at_us, tail.last_us), totals, counted_seq)
    row = _row(fact, newest, one.header, nonce)
    view.create(at.event(fact.casefile_id, fact.session_id, seq), row)
    view.tails[fact.session_id] = newest


def _row(fact: Fact, tail: ChainEnd, header: bytes, nonce: str) -> Fields:
    """A fact's fields, the newest of its session."""
    payload, is_terminal = fact.payload, fact.kind in TERMINAL
    is_large = payload.body is not None and len(payload.body) > INLINE_BYTES
    row = event_row(fact, tail.seq, fact.at_us, header, tail.hash) | payload_row(payload)
    if is_large:
        row["body"] = None
    return row | {
        "is_terminal": is_terminal,
        "last_us": tail.last_us,
        "committed_at": SERVER_TIME,
        "totals": totals_to_bytes(tail.totals) if is_terminal else tail.counted_seq,
        "nonce": nonce,
        # An adopted fact may have been erased before.
        "salt": payload.salt or None,
        "chunks": chunks_of(payload.body or b"") if is_large else 0,
    }


def _counted(totals: Totals, fact: Fact) -> Totals:
    if fact.operation_type is None:
        return totals
    names, counted = totals_of(fact, fact.operation_type)
    if names not in totals and len(totals) >= _NAMES_MAX:
        names = (names[0], OTHERS, names[2])
    count, busy_ms, tokens, cost_micros = map(add, totals.get(names, (0, 0, 0, 0)), counted)
    return {**totals, names: (count, busy_ms, tokens, cost_micros)}


async def _end(view: View, c: ChainEndsAt) -> tuple[int, bytes]:
    tail = await view.tail(c.casefile_id, c.session_id)
    return tail.seq, tail.hash


FINDS: Finds = {ChainEndsAt: _end}
