"""Conversations: mails with one thread number, or that name each other's message ids."""

from casekeeper.documents import exact_terms
from casekeeper.documents.document import Document, DocumentSummary
from casekeeper.documents.query import ExactTerm, Or
from casekeeper.documents.search import Order, PageStart, SearchStore

THREAD_MAX = 500
"""Mails of one conversation that are returned at most."""

# Each round follows the references of what the last one found; real conversations end after two or three.
_ROUNDS = 8
_IDS_AT_ONCE = 50


async def thread_of(store: SearchStore, casefile_id: str, document: Document) -> list[DocumentSummary]:
    """The mails of a document's conversation with itself, oldest first.

    Gmail's thread number decides where there is one. Otherwise the ids count that mails name in `References` and
    `In-Reply-To` (RFC 5322 §3.6.4): all that name one of them, or are one of them.
    """
    if document.thread_id:
        found = await _with_terms(store, casefile_id, [ExactTerm(exact_terms.THREAD, document.thread_id)])
        return found or [document]
    known = {*_ids(document)}
    new, mails = known, dict[str, DocumentSummary]()
    for _ in range(_ROUNDS):
        for mail in await _naming(store, casefile_id, sorted(new)):
            mails[mail.document_id] = mail
        seen = {one for mail in mails.values() for one in _ids(mail)}
        new = seen - known
        known |= seen
        if not new or len(mails) >= THREAD_MAX:
            break
    mails[document.document_id] = document
    return sorted(mails.values(), key=_age)[:THREAD_MAX]


def _ids(mail: DocumentSummary) -> list[str]:
    return [*mail.references, *([mail.message_id] if mail.message_id else [])]


def _age(mail: DocumentSummary) -> tuple[float, str]:
    return (mail.sent_at or mail.created_at).timestamp(), mail.document_id


async def _naming(store: SearchStore, casefile_id: str, ids: list[str]) -> list[DocumentSummary]:
    found: list[DocumentSummary] = []
    for start in range(0, len(ids), _IDS_AT_ONCE):
        some = ids[start : start + _IDS_AT_ONCE]
        terms = [ExactTerm(kind, one) for one in some for kind in (exact_terms.ID, exact_terms.REFERENCE)]
        found += await _with_terms(store, casefile_id, terms)
    return found


async def _with_terms(store: SearchStore, casefile_id: str, terms: list[ExactTerm]) -> list[DocumentSummary]:
    rows = await store.search(casefile_id, Or(tuple(terms)), Order.OLDEST, PageStart(), THREAD_MAX)
    return [row.hit for row in rows]
