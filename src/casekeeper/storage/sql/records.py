"""What each record writes to SQL, by type."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from casekeeper.casefiles import casefile as cf
from casekeeper.clock import to_us
from casekeeper.identity import accounts as acc
from casekeeper.identity import credentials as cred
from casekeeper.journal import commits
from casekeeper.journal.things import Topic
from casekeeper.sessions import adoption as ado
from casekeeper.sessions import session as ses
from casekeeper.storage.sql import schema as t
from casekeeper.storage.sql.blobs import BLOB_RECORDS
from casekeeper.storage.sql.document_records import DOCUMENT_RECORDS
from casekeeper.storage.sql.operations import OPERATION_RECORDS
from casekeeper.storage.sql.statements import Static, Tx
from casekeeper.storage.sql.things import ERASE as ERASE_THINGS
from casekeeper.storage.sql.writing import insert_into, put_into, us

_PUT_ACCOUNT = put_into(t.accounts, "user_id")
_PUT_KEY = put_into(t.api_keys, "key_id")
_ADD_REFRESH = insert_into(t.refresh_tokens)
_USE_REFRESH = Static(
    update(t.refresh_tokens)
    .where(t.refresh_tokens.c.digest == bindparam("digest_"), t.refresh_tokens.c.used_us.is_(None))
    .values(used_us=bindparam("used"))
)
_END_FAMILY = Static(delete(t.refresh_tokens).where(t.refresh_tokens.c.family == bindparam("family")))
_END_FAMILIES = Static(delete(t.refresh_tokens).where(t.refresh_tokens.c.user_id == bindparam("user_id")))
_PUT_CASEFILE = put_into(t.casefiles, "casefile_id", keep=("deleted_us", "erased_us"))
_DELETE_CASEFILE = Static(
    update(t.casefiles)
    .where(t.casefiles.c.casefile_id == bindparam("id_"))
    .values(deleted_us=bindparam("at_us"))
)
_CREATED = Static(
    select(t.casefiles.c.created_us).where(t.casefiles.c.casefile_id == bindparam("casefile_id"))
)
_PUT_GRANT = put_into(t.grants, "user_id", "casefile_id")
_REMOVE_GRANT = Static(
    delete(t.grants).where(
        t.grants.c.user_id == bindparam("user_id"), t.grants.c.casefile_id == bindparam("casefile_id")
    )
)
_ADD_SESSION = insert_into(t.sessions)
# A second try finds the row of the first, whose head stays where the facts are.
_new_session = upsert(t.sessions).values({c.name: bindparam(c.name) for c in t.sessions.c})
_ADOPT_SESSION = Static(
    _new_session.on_conflict_do_update(
        index_elements=["session_id"],
        set_={c: _new_session.excluded[c] for c in ("title", "visibility", "metadata", "closed_us")},
    )
)
_END_SESSION = Static(
    update(t.sessions).where(t.sessions.c.session_id == bindparam("id_")).values(closed_us=bindparam("at_us"))
)
_PUT_CONVERSATION = put_into(t.conversations, "session_id")
_in_casefile = select(t.sessions.c.session_id).where(t.sessions.c.casefile_id == bindparam("casefile_id"))
_ERASE = (
    Static(delete(t.payloads).where(t.payloads.c.session_id.in_(_in_casefile))),
    Static(delete(t.conversations).where(t.conversations.c.session_id.in_(_in_casefile))),
    Static(delete(t.uploads).where(t.uploads.c.casefile_id == bindparam("casefile_id"))),
    # Without grants it is in nobody's list any more, not even to be passed over.
    Static(delete(t.grants).where(t.grants.c.casefile_id == bindparam("casefile_id"))),
    Static(
        delete(t.document_raw).where(
            t.document_raw.c.document_id.in_(
                select(t.documents.c.document_id).where(t.documents.c.casefile_id == bindparam("casefile_id"))
            )
        )
    ),
)
_ERASE_DOCUMENTS = Static(delete(t.documents).where(t.documents.c.casefile_id == bindparam("casefile_id")))
_ERASED = Static(
    update(t.casefiles)
    .where(t.casefiles.c.casefile_id == bindparam("id_"))
    .values(erased_us=t.casefiles.c.deleted_us, title="", description="", tags="[]")
)


_FORGET = (
    Static(delete(t.requests).where(t.requests.c.expires_us < bindparam("now"))),
    Static(delete(t.refresh_tokens).where(t.refresh_tokens.c.expires_us < bindparam("now"))),
)


def _put_account(tx: Tx, r: acc.PutAccount) -> None:
    account = r.stored.account
    tx.run(
        _PUT_ACCOUNT,
        user_id=account.user_id,
        pseudonym=account.pseudonym,
        display_name=account.display_name,
        password_hash=r.stored.password_hash,
        is_operator=int(account.is_operator),
        is_active=int(account.is_active),
        created_us=to_us(account.created_at),
    )


def _put_key(tx: Tx, r: cred.PutKey) -> None:
    tx.run(
        _PUT_KEY,
        key_id=r.key.key_id,
        user_id=r.key.user_id,
        name=r.key.name,
        digest=r.digest,
        created_us=to_us(r.key.created_at),
        expires_us=us(r.key.expires_at),
        revoked_us=us(r.key.revoked_at),
    )


def _add_refresh(tx: Tx, r: cred.PutRefresh) -> None:
    tx.run(
        _ADD_REFRESH,
        digest=r.digest,
        family=r.family,
        user_id=r.user_id,
        expires_us=to_us(r.expires_at),
        used_us=None,
    )


def _put_casefile(tx: Tx, r: cf.PutCasefile) -> None:
    c = r.casefile
    tx.run(
        _PUT_CASEFILE,
        casefile_id=c.casefile_id,
        title=c.title,
        description=c.description,
        tags=json.dumps(c.tags),
        status=c.status,
        public_role=c.public_role,
        owner=c.owner,
        version=c.version,
        created_us=to_us(c.created_at),
        updated_us=to_us(c.updated_at),
        record_session_id=c.record_session_id,
    )


def _put_grant(tx: Tx, r: cf.PutGrant) -> None:
    g = r.grant
    [created_us] = tx.one(_CREATED, casefile_id=g.casefile_id) or (None,)
    tx.run(
        _PUT_GRANT,
        user_id=g.user_id,
        casefile_id=g.casefile_id,
        role=g.role,
        expires_us=us(g.expires_at),
        granted_by=g.granted_by,
        granted_us=to_us(g.granted_at),
        note=g.note,
        created_us=created_us,
    )


def _open_record_session(tx: Tx, r: cf.OpenRecordSession) -> None:
    session = ses.UnifiedSession(
        session_id=r.session_id,
        casefile_id=r.casefile_id,
        user_id=r.user_id,
        session_type=ses.SessionType.RECORD,
        visibility=ses.Visibility.PRIVATE,
        created_at=r.at,
        last_activity_at=r.at,
    )
    _put_session(tx, ses.PutSession(session))


def _put_session(tx: Tx, r: ses.PutSession | ado.AdoptSession) -> None:
    s = r.session
    tx.run(
        _ADD_SESSION if isinstance(r, ses.PutSession) else _ADOPT_SESSION,
        session_id=s.session_id,
        casefile_id=s.casefile_id,
        user_id=s.user_id,
        session_type=s.session_type,
        visibility=s.visibility,
        title=s.title,
        auto=int(s.auto),
        metadata=json.dumps(s.metadata),
        created_us=to_us(s.created_at),
        last_us=to_us(s.created_at),
        closed_us=us(s.closed_at),
        head_seq=0,
        head_hash=b"",
    )


def _erase(tx: Tx, r: cf.EraseContents) -> None:
    for statement in _ERASE:
        tx.run(statement, casefile_id=r.casefile_id)
    tx.run(ERASE_THINGS, about=Topic("casefile", r.casefile_id).key)
    tx.unindex(r.casefile_id)
    tx.run(_ERASE_DOCUMENTS, casefile_id=r.casefile_id)
    tx.run(_ERASED, id_=r.casefile_id)


def _forget(tx: Tx, r: commits.ForgetExpired) -> None:
    for statement in _FORGET:
        tx.run(statement, now=to_us(r.now))


RECORDS: dict[type[commits.Record], Callable[[Tx, Any], object]] = {
    commits.ForgetExpired: _forget,
    acc.PutAccount: _put_account,
    acc.EndRefreshFamilies: lambda tx, r: tx.run(_END_FAMILIES, user_id=r.user_id),
    cred.PutKey: _put_key,
    cred.PutRefresh: _add_refresh,
    cred.UseRefresh: lambda tx, r: tx.run(_USE_REFRESH, digest_=r.digest, used=to_us(r.now)),
    cred.EndFamily: lambda tx, r: tx.run(_END_FAMILY, family=r.family),
    cf.PutCasefile: _put_casefile,
    cf.DeleteCasefile: lambda tx, r: tx.run(_DELETE_CASEFILE, id_=r.casefile_id, at_us=to_us(r.at)),
    cf.EraseContents: _erase,
    cf.OpenRecordSession: _open_record_session,
    cf.PutGrant: _put_grant,
    cf.RemoveGrant: lambda tx, r: tx.run(_REMOVE_GRANT, user_id=r.user_id, casefile_id=r.casefile_id),
    ses.PutSession: _put_session,
    ado.AdoptSession: _put_session,
    ses.EndSession: lambda tx, r: tx.run(_END_SESSION, id_=r.session_id, at_us=to_us(r.at)),
    ses.PutConversation: lambda tx, r: tx.run(
        _PUT_CONVERSATION, session_id=r.session_id, event_id=r.event_id, blob=r.blob
    ),
    **OPERATION_RECORDS,
    **DOCUMENT_RECORDS,
    **BLOB_RECORDS,
}
"""How each record is written."""
