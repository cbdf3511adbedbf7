"""How each record is written to Firestore, by type."""

from collections.abc import Awaitable, Callable
from typing import Any

from casekeeper.acl_feed import Change
from casekeeper.casefiles import casefile as cf
from casekeeper.clock import to_us
from casekeeper.documents import document as doc
from casekeeper.identity import accounts as acc
from casekeeper.identity import credentials as cred
from casekeeper.journal import commits
from casekeeper.journal import operations as ops
from casekeeper.journal import requests as req
from casekeeper.sessions import adoption as ado
from casekeeper.sessions import session as ses
from casekeeper.storage.firestore import paths as at
from casekeeper.storage.firestore.conditions import generation
from casekeeper.storage.firestore.messages import Fields, Query
from casekeeper.storage.firestore.rows import (
    account_row,
    casefile_row,
    document_row,
    grant_row,
    key_row,
    session_row,
    summary_of,
    tombstone_row,
    upload_row,
    us,
)
from casekeeper.storage.firestore.things import THING_RECORDS
from casekeeper.storage.firestore.view import View


async def _put_claim(view: View, r: req.Claim) -> None:
    claim = {"fingerprint": r.fingerprint, "made": r.made, "expires_us": us(r.expires_at)}
    await view.put(at.request(r.key), claim)


async def _release_claim(view: View, r: req.ReleaseClaim) -> None:
    opened = await view.get(at.open_operation(r.made))
    if opened is None:
        paths = await view.find(Query("requests", where=(("made", "==", r.made),)))
    else:
        paths = [at.request(opened["claim"])] if opened["claim"] else []
    for path in paths:
        claim = await view.get(path)
        if claim is not None and claim["expires_us"] is None:
            await view.put(path, {**claim, "expires_us": to_us(r.expires_at)})


async def _change_open(view: View, operation: ops.OperationRef, change: Callable[[Fields], Fields]) -> None:
    path = at.open_operation(operation.event_id)
    opened = await view.get(path)
    if opened is not None:
        await view.put(path, {**opened, **change(opened)})


async def _ask_to_stop(view: View, r: ops.AskToStop) -> None:
    def asked(row: Fields) -> Fields:
        return {"stop": r.reason, "wake_us": row.get("wake_us") if row["owner"] else 0}

    await _change_open(view, r.operation, asked)


async def _park(view: View, r: ops.ParkOperation) -> None:
    def parked(row: Fields) -> Fields:
        # Woken, or asked to stop, before it parked: a word that came too early must not be lost, nor come later than it.
        woken_us = row.get("wake_us") if row["owner"] else None
        wake_us = 0 if row.get("stop") is not None else _earlier(us(r.wake_at), woken_us)
        return {"owner": ops.NOBODY, "state": "waiting", "held": r.held.to_text(), "wake_us": wake_us}

    await _change_open(view, r.operation, parked)


async def _take_over(view: View, r: ops.TakeOver) -> None:
    def taken(row: Fields) -> Fields:
        attempt = row.get("attempt", 1) + 1
        held = r.held.to_text()
        return {"owner": r.owner, "state": "running", "attempt": attempt, "wake_us": None, "held": held}

    await _change_open(view, r.operation, taken)


async def _wake(view: View, r: ops.Wake) -> None:
    def woken(row: Fields) -> Fields:
        return {"wake_us": _earlier(row.get("wake_us"), to_us(r.at))}

    await _change_open(view, r.operation, woken)


def _earlier(one_us: int | None, other_us: int | None) -> int | None:
    return min((us for us in (one_us, other_us) if us is not None), default=None)


async def _change(view: View, r: commits.PermissionChanged) -> None:
    head = await view.get(at.FEED_HEAD)
    assert head is not None, "an open store has a feed"
    number = head["number"] + 1
    await view.put(at.FEED_HEAD, {**head, "number": number})
    row = {"number": number, "casefile_id": r.casefile_id, "user_id": r.user_id}
    view.create(at.change(number), {**row, "kind": r.kind, "at_us": to_us(r.at)})
    await view.put(at.mark(r.user_id, r.casefile_id), {"number": number})
    view.changes.append(Change(number, r.casefile_id, r.user_id))


async def _put_account(view: View, r: acc.PutAccount) -> None:
    account = r.stored.account
    await view.put(at.account(account.user_id), account_row(r.stored))
    await view.put(at.pseudonym(account.pseudonym), {"user_id": account.user_id})


async def _end_families(view: View, r: acc.EndRefreshFamilies) -> None:
    number = await generation(view, r.user_id)
    await view.put(at.generation(r.user_id), {"number": number + 1})


async def _put_refresh(view: View, r: cred.PutRefresh) -> None:
    row = {"family": r.family, "user_id": r.user_id, "generation": await generation(view, r.user_id)}
    view.create(at.refresh_token(r.digest), {**row, "expires_us": to_us(r.expires_at), "used_us": None})


async def _use_refresh(view: View, r: cred.UseRefresh) -> None:
    token = await view.get(at.refresh_token(r.digest))
    if token is not None and token["used_us"] is None:
        await view.put(at.refresh_token(r.digest), {**token, "used_us": to_us(r.now)})


async def _put_casefile(view: View, r: cf.PutCasefile) -> None:
    path = at.casefile(r.casefile.casefile_id)
    await view.put(path, casefile_row(r.casefile, await view.get(path)))


async def _delete_casefile(view: View, r: cf.DeleteCasefile) -> None:
    path = at.casefile(r.casefile_id)
    casefile = await view.get(path)
    if casefile is not None:
        await view.put(path, {**casefile, "deleted_us": to_us(r.at), "is_to_erase": True})


async def _put_grant(view: View, r: cf.PutGrant) -> None:
    casefile = await view.get(at.casefile(r.grant.casefile_id))
    # A user's casefiles are listed by their age.
    created_us = casefile["created_us"] if casefile else 0
    await view.put(at.grant(r.grant.casefile_id, r.grant.user_id), grant_row(r.grant, created_us))


async def _put_session(view: View, r: ses.PutSession) -> None:
    s = r.session
    if await view.get(at.session_place(s.session_id)) is not None:
        raise LookupError("a session of this id exists already")
    await view.put(at.session_place(s.session_id), {"casefile_id": s.casefile_id})
    await view.put(at.session(s.casefile_id, s.session_id), session_row(s))
    if s.auto:
        await view.put(at.auto_session(s.user_id, s.casefile_id), {"session_id": s.session_id})


async def _adopt_session(view: View, r: ado.AdoptSession) -> None:
    s = r.session
    closed_us = None if s.closed_at is None else to_us(s.closed_at)
    await view.put(at.session_place(s.session_id), {"casefile_id": s.casefile_id})
    await view.put(at.session(s.casefile_id, s.session_id), {**session_row(s), "closed_us": closed_us})


async def _open_record_session(view: View, r: cf.OpenRecordSession) -> None:
    session = ses.UnifiedSession(
        session_id=r.session_id,
        casefile_id=r.casefile_id,
        user_id=r.user_id,
        session_type=ses.SessionType.RECORD,
        visibility=ses.Visibility.PRIVATE,
        created_at=r.at,
        last_activity_at=r.at,
    )
    await _put_session(view, ses.PutSession(session))


async def _end_session(view: View, r: ses.EndSession) -> None:
    session, casefile_id = await view.session(r.session_id), await view.casefile_of(r.session_id)
    if session is not None and casefile_id is not None:
        await view.put(at.session(casefile_id, r.session_id), {**session, "closed_us": to_us(r.at)})


async def _put_conversation(view: View, r: ses.PutConversation) -> None:
    row = {"event_id": r.event_id, "blob": r.blob, "casefile_id": await view.casefile_of(r.session_id)}
    await view.put(at.conversation(r.session_id), row)


async def _add_document(view: View, r: doc.AddDocument) -> None:
    d = r.document
    path = at.digest(d.casefile_id, d.sha256)
    if await view.get(path) is not None:
        return
    await view.put(path, {"document_id": d.document_id})
    view.create(at.document(d.casefile_id, d.document_id), document_row(d, r.raw))
    view.documents.append(r)


async def _delete_documents(view: View, r: doc.DeleteDocuments) -> None:
    for document_id in r.document_ids:
        path = at.document(r.casefile_id, document_id)
        row = await view.get(path)
        if row is None or row.get("deleted_us") is not None:
            continue
        for part, count in (("text", row["text_chunks"]), ("raw", row["raw_chunks"] or 0)):
            for number in range(count):
                await view.delete(at.chunk(r.casefile_id, f"{document_id}-{part}", number))
        # The same bytes may be brought in again.
        await view.delete(at.digest(r.casefile_id, summary_of(row).sha256))
        await view.put(path, tombstone_row(row, r.at))
    view.documents.append(r)


RECORDS: dict[type[commits.Record], Callable[[View, Any], Awaitable[None]]] = {
    # Those first on which others of the same commit rely.
    cf.PutCasefile: _put_casefile,
    cf.OpenRecordSession: _open_record_session,
    ses.PutSession: _put_session,
    ado.AdoptSession: _adopt_session,
    req.Claim: _put_claim,
    req.ReleaseClaim: _release_claim,
    commits.PermissionChanged: _change,
    acc.PutAccount: _put_account,
    acc.EndRefreshFamilies: _end_families,
    cred.PutKey: lambda view, r: view.put(at.api_key(r.key.key_id), key_row(r)),
    cred.PutRefresh: _put_refresh,
    cred.UseRefresh: _use_refresh,
    cred.EndFamily: lambda view, r: view.put(at.family(r.family), {"has_ended": True}),
    cf.DeleteCasefile: _delete_casefile,
    cf.PutGrant: _put_grant,
    cf.RemoveGrant: lambda view, r: view.delete(at.grant(r.casefile_id, r.user_id)),
    ses.EndSession: _end_session,
    ses.PutConversation: _put_conversation,
    ops.CloseOperation: lambda view, r: view.delete(at.open_operation(r.operation.event_id)),
    ops.AskToStop: _ask_to_stop,
    ops.ParkOperation: _park,
    ops.TakeOver: _take_over,
    ops.Wake: _wake,
    doc.AddDocument: _add_document,
    doc.DeleteDocuments: _delete_documents,
    doc.PutUpload: lambda view, r: view.put(at.upload(r.upload.upload_id), upload_row(r.upload)),
    doc.DropUpload: lambda view, r: view.delete(at.upload(r.upload_id)),
    **THING_RECORDS,
}
"""How each record is written, in the order in which those of one commit are."""

MAKES_SESSIONS = (cf.PutCasefile, cf.OpenRecordSession, ses.PutSession, ado.AdoptSession)
"""Written before the facts of their commit, which may be the new session's first."""
