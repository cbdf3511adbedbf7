"""Sweeps in SQL: they delete the contents of deleted casefiles, and what has expired."""

from sqlalchemy import Text, bindparam, delete, select, update

from casekeeper.casefiles.casefile import EraseContents
from casekeeper.clock import to_us
from casekeeper.journal.commits import ForgetExpired
from casekeeper.journal.things import Topic
from casekeeper.storage.sql.accounts import REFRESH_TOKENS
from casekeeper.storage.sql.casefiles import CASEFILES, GRANTS
from casekeeper.storage.sql.documents import DOCUMENT_RAW, DOCUMENTS, UPLOADS
from casekeeper.storage.sql.facts import PAYLOADS
from casekeeper.storage.sql.parts import Writes
from casekeeper.storage.sql.requests import REQUESTS
from casekeeper.storage.sql.sessions import CONVERSATIONS, SESSIONS
from casekeeper.storage.sql.statements import Static, Tx
from casekeeper.storage.sql.things import ERASE as ERASE_THINGS

_here = bindparam("casefile_id", type_=Text())
_sessions = select(SESSIONS.c.session_id).where(SESSIONS.c.casefile_id == _here)
_documents = select(DOCUMENTS.c.document_id).where(DOCUMENTS.c.casefile_id == _here)
_ERASE = (
    Static(delete(PAYLOADS).where(PAYLOADS.c.session_id.in_(_sessions))),
    Static(delete(CONVERSATIONS).where(CONVERSATIONS.c.session_id.in_(_sessions))),
    Static(delete(UPLOADS).where(UPLOADS.c.casefile_id == _here)),
    # Without grants it is in nobody's list any more, not even to be passed over.
    Static(delete(GRANTS).where(GRANTS.c.casefile_id == _here)),
    Static(delete(DOCUMENT_RAW).where(DOCUMENT_RAW.c.document_id.in_(_documents))),
)
_ERASE_DOCUMENTS = Static(delete(DOCUMENTS).where(DOCUMENTS.c.casefile_id == _here))
_ERASED = Static(
    update(CASEFILES)
    .where(CASEFILES.c.casefile_id == bindparam("id_"))
    .values(erased_us=CASEFILES.c.deleted_us, title="", description="", tags="[]")
)
_FORGET = tuple(
    Static(delete(table).where(table.c.expires_us < bindparam("now"))) for table in (REQUESTS, REFRESH_TOKENS)
)


def _erase(tx: Tx, r: EraseContents) -> None:
    for statement in _ERASE:
        tx.run(statement, casefile_id=r.casefile_id)
    tx.run(ERASE_THINGS, about=Topic("casefile", r.casefile_id).key)
    tx.unindex(r.casefile_id)
    tx.run(_ERASE_DOCUMENTS, casefile_id=r.casefile_id)
    tx.run(_ERASED, id_=r.casefile_id)


def _forget(tx: Tx, r: ForgetExpired) -> None:
    for statement in _FORGET:
        tx.run(statement, now=to_us(r.now))


WRITES: Writes = {EraseContents: _erase, ForgetExpired: _forget}
