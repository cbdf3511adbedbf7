"""What each condition looks up in Firestore, by type, and what is read ahead for a commit."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any

from casekeeper.acl_feed import ANY
from casekeeper.casefiles import casefile as cf
from casekeeper.clock import from_us, to_us
from casekeeper.documents import document as doc
from casekeeper.identity import accounts as acc
from casekeeper.identity import credentials as cred
from casekeeper.journal import adoption as chain
from casekeeper.journal import commits
from casekeeper.journal import operations as ops
from casekeeper.journal import requests as req
from casekeeper.journal.things import Drop, IsAt, Put
from casekeeper.sessions import adoption as ado
from casekeeper.sessions import session as ses
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.messages import Query
from casekeeper.storage.firestore.things import THING_CONDITIONS
from casekeeper.storage.firestore.view import View


async def _closed_us(view: View, c: ses.SessionIsOpen) -> int | None:
    session = await view.session(c.session_id)
    return None if session is None else session["closed_us"] or 0


async def _open_in(view: View, c: ses.SessionIsIdle) -> list[str]:
    # The tail comes first: whatever starts after it takes the number that the closing fact needs.
    if casefile_id := await view.casefile_of(c.session_id):
        await view.tail(casefile_id, c.session_id)
    found = await view.find(Query("open_operations", where=(("session_id", "==", c.session_id),)))
    there = [path for path in found if await view.get(path) is not None]
    begun = [path for path, fields in view.made("open_operations/") if fields["session_id"] == c.session_id]
    return [path.partition("/")[2] for path in dict.fromkeys((*there, *begun))]


async def _auto(view: View, c: ses.AutoSessionIsAbsent) -> str | None:
    pointer = await view.get(at.auto_session(c.user_id, c.casefile_id))
    session = await view.session(pointer["session_id"]) if pointer else None
    if pointer is None or session is None or session["closed_us"] is not None:
        return None
    tail = await view.tail(c.casefile_id, pointer["session_id"])
    used = max(tail.last_us, session["created_us"])
    return pointer["session_id"] if used >= to_us(c.active_since) else None


async def _owner(view: View, c: ops.OwnedBy) -> tuple[str, int] | None:
    opened = await view.get(at.open_operation(c.operation.event_id))
    return None if opened is None else (opened["owner"], opened.get("attempt", 1))


async def _claimed(view: View, c: req.Claim) -> str | None:
    claim = await view.get(at.request(c.key))
    if claim is None or (claim["expires_us"] is not None and claim["expires_us"] <= to_us(c.now)):
        return None
    return claim["made"]


async def _newest(view: View, user_id: str, casefile_id: str) -> int:
    numbers: list[int] = []
    for path in dict.fromkeys(at.marks(user_id, casefile_id)):
        mark = await view.get(path)
        if mark is None:
            # It has to be there for a commit to check that it has not changed.
            await view.put(path, mark := {"number": 0})
        numbers.append(mark["number"])
    return max(numbers)


async def _account_changed(view: View, c: acc.AccountStands) -> int:
    path = at.mark(c.user_id, ANY)
    mark = await view.get(path)
    if mark is None:
        await view.put(path, mark := {"number": 0})
    return mark["number"]


async def _casefile(view: View, casefile_id: str, name: str) -> Any:
    casefile = await view.get(at.casefile(casefile_id))
    return None if casefile is None or casefile["deleted_us"] is not None else casefile[name]


async def _ids_taken(view: View, c: cf.CasefileIdIsFree) -> bool:
    taken = [await view.get(path) for path in (at.casefile(c.casefile_id), at.session_place(c.session_id))]
    return any(found is not None for found in taken)


async def _casefile_of(view: View, c: ado.SessionIdIsFreeIn) -> str | None:
    place = await view.get(at.session_place(c.session_id))
    return place["casefile_id"] if place else None


async def _chain_end(view: View, c: chain.ChainEndsAt) -> tuple[int, bytes]:
    tail = await view.tail(c.casefile_id, c.session_id)
    return tail.seq, tail.hash


async def _grant_end(view: View, c: cf.GrantEndsAt) -> datetime | None:
    grant = await view.get(at.grant(c.casefile_id, c.user_id))
    return from_us(grant["expires_us"]) if grant and grant["expires_us"] is not None else None


async def _lives(view: View, c: cred.FamilyLives) -> bool:
    token = await view.get(at.refresh_token(c.digest))
    if token is None:
        return False
    family = await view.get(at.family(token["family"]))
    return not (family and family["has_ended"]) and token["generation"] == await generation(
        view, token["user_id"]
    )


async def generation(view: View, user_id: str) -> int:
    """How often all of a user's refresh tokens have ended."""
    found = await view.get(at.generation(user_id))
    if found is None:
        await view.put(at.generation(user_id), found := {"number": 0})
    return found["number"]


CONDITIONS: dict[type[commits.Condition], Callable[[View, Any], Awaitable[Any]]] = {
    ops.OperationIsOpen: lambda view, c: view.get(at.open_operation(c.operation.event_id)),
    ops.OwnedBy: _owner,
    req.Claim: _claimed,
    ses.SessionIsOpen: _closed_us,
    ses.SessionIsIdle: _open_in,
    ses.SessionIdIsFree: lambda view, c: view.get(at.session_place(c.session_id)),
    ses.AutoSessionIsAbsent: _auto,
    cf.Fence: lambda view, c: _newest(view, c.user_id, c.casefile_id),
    cf.CasefileIsActive: lambda view, c: _casefile(view, c.casefile_id, "status"),
    cf.CasefileIsAt: lambda view, c: _casefile(view, c.casefile_id, "version"),
    cf.CasefileIdIsFree: _ids_taken,
    cf.CasefileIsAbsent: lambda view, c: view.get(at.casefile(c.casefile_id)),
    ado.SessionIdIsFreeIn: _casefile_of,
    chain.ChainEndsAt: _chain_end,
    cf.GrantEndsAt: _grant_end,
    acc.AccountAbsent: lambda view, c: view.get(at.account(c.user_id)),
    acc.AccountStands: _account_changed,
    cred.FamilyLives: _lives,
    **THING_CONDITIONS,
}
"""What a condition's `refusal` is given."""


def places(commit: commits.Commit) -> Iterable[str]:
    """What a commit will certainly ask for, to be read at once."""
    known = {fact.session_id: fact.casefile_id for fact in commit.facts}
    for one in (*commit.conditions, *commit.records):
        match one:
            case (
                ops.OperationIsOpen()
                | ops.OwnedBy()
                | ops.CloseOperation()
                | ops.ParkOperation()
                | ops.TakeOver()
                | ops.Wake()
                | ops.AskToStop()
            ):
                yield at.open_operation(one.operation.event_id)
            case req.Claim():
                yield at.request(one.key)
            case ses.SessionIsOpen(session_id) | ses.EndSession(session_id):
                if session_id in known:
                    yield at.session(known[session_id], session_id)
            case cf.Fence(user_id, casefile_id):
                yield from at.marks(user_id, casefile_id)
            case commits.PermissionChanged(casefile_id, user_id):
                yield at.FEED_HEAD
                yield at.mark(user_id, casefile_id)
            case cf.CasefileIsActive(casefile_id) | cf.CasefileIsAt(casefile_id):
                yield at.casefile(casefile_id)
            case cf.PutGrant(grant):
                yield at.grant(grant.casefile_id, grant.user_id)
            case ses.PutSession(session):
                yield at.session_place(session.session_id)
                yield at.session(session.casefile_id, session.session_id)
            case doc.AddDocument(document):
                yield at.digest(document.casefile_id, document.sha256)
            case doc.DeleteDocuments(casefile_id, document_ids):
                yield from (at.document(casefile_id, document_id) for document_id in document_ids)
            case IsAt() | Put() | Drop():
                yield at.thing(*one.name)
            case _:
                pass
