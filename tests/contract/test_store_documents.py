"""What every store promises about deleting documents: what they say is gone, and the same bytes may come again."""

from dataclasses import replace

from casekeeper.documents.document import AddDocument, DeleteDocuments
from casekeeper.documents.query_parser import parse_query
from casekeeper.documents.search import Order, PageStart
from casekeeper.journal.commits import Commit
from casekeeper.storage.store import Storage
from tests.contract.conftest import Opening
from tests.contract.shelf import LATER, NOW, OWNER, Shelf


async def file(shelf: Shelf, text: str, **fields: object) -> AddDocument:
    """A document that is filed."""
    added = shelf.document(text, **fields)
    await shelf.commit(Commit(records=(added,)))
    return added


async def found(storage: Storage, shelf: Shelf, query: str) -> set[str]:
    """The ids of what a search finds."""
    term = parse_query(query, NOW, OWNER)
    hits = await storage.search.search(shelf.casefile_id, term, Order.NEWEST, PageStart(), 10)
    return {ranked.hit.document_id for ranked in hits}


def deletion(shelf: Shelf, *added: AddDocument) -> Commit:
    """The commit that deletes these."""
    ids = [one.document.document_id for one in added]
    return Commit(records=(DeleteDocuments(shelf.casefile_id, ids, LATER),))


async def test_nothing_of_a_deleted_document_is_read_or_found(shelf: Shelf):
    kept, gone = await file(shelf, "heating stays"), await file(shelf, "heating goes", labels=["Flat"])

    await shelf.commit(deletion(shelf, gone))

    documents, casefile_id, gone_id = shelf.storage.documents, shelf.casefile_id, gone.document.document_id
    assert await documents.document(casefile_id, gone_id) is None
    assert await documents.raw(casefile_id, gone_id) is None
    assert await documents.known(casefile_id, [gone.document.sha256]) == {}
    listed = await documents.documents(casefile_id, None, None, 10)
    assert [one.document_id for one in listed] == [kept.document.document_id]
    for query in ("heating", "", "heating OR goes", "-nothing", "label:flat OR heating"):
        assert await found(shelf.storage, shelf, query) == {kept.document.document_id}
    counts = await documents.counts(casefile_id)
    assert (counts.documents, counts.bytes) == (1, kept.document.size)


async def test_the_same_bytes_come_in_again_as_a_new_document(shelf: Shelf):
    first = await file(shelf, "heating")
    await shelf.commit(deletion(shelf, first))

    again = await file(shelf, "heating", sha256=first.document.sha256)

    assert await found(shelf.storage, shelf, "heating") == {again.document.document_id}
    assert await shelf.storage.documents.raw(shelf.casefile_id, again.document.document_id) == b"heating"


async def test_deleting_twice_or_in_another_casefile_changes_nothing(shelf: Shelf):
    await shelf.casefile("cf_260301_ffffff")
    kept, gone = await file(shelf, "heating stays"), await file(shelf, "goes")
    await shelf.commit(deletion(shelf, gone))

    await shelf.commit(deletion(shelf, gone))
    ids = [kept.document.document_id]
    await shelf.commit(Commit(records=(DeleteDocuments("cf_260301_ffffff", ids, LATER),)))

    assert await found(shelf.storage, shelf, "heating") == {kept.document.document_id}
    assert (await shelf.storage.documents.counts(shelf.casefile_id)).documents == 1


async def test_a_large_text_and_large_bytes_are_deleted(shelf: Shelf):
    added = await file(shelf, "")
    text = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(600_000))
    large = replace(shelf.document(text), raw=text.encode())
    await shelf.commit(Commit(records=(large,)))

    await shelf.commit(deletion(shelf, large))

    assert await shelf.storage.documents.document(shelf.casefile_id, large.document.document_id) is None
    assert await found(shelf.storage, shelf, "") == {added.document.document_id}


async def test_what_was_attached_is_found_by_what_it_was_attached_to(shelf: Shelf):
    mail, other = await file(shelf, "mail"), await file(shelf, "other")
    parts = [await file(shelf, text, parent_id=mail.document.document_id) for text in ("one", "two")]
    await file(shelf, "three", parent_id=other.document.document_id)
    inner = await file(shelf, "inner", parent_id=parts[0].document.document_id)
    await shelf.commit(deletion(shelf, parts[1]))

    attached = await shelf.storage.documents.attached(shelf.casefile_id, [mail.document.document_id])
    deeper = await shelf.storage.documents.attached(
        shelf.casefile_id, [part.document.document_id for part in parts] + ["doc_x"] * 60
    )

    assert [one.document_id for one in attached] == [parts[0].document.document_id]
    assert [one.document_id for one in deeper] == [inner.document.document_id]


async def test_another_process_finds_what_was_deleted_no_more(opening: Opening):
    async with opening() as storage:
        shelf = await Shelf.filled(storage)
        gone, kept = await file(shelf, "heating goes"), await file(shelf, "heating stays")
        if not storage.is_shared:
            return
        async with opening() as other:
            assert len(await found(other, shelf, "heating")) == 2

            await shelf.commit(deletion(shelf, gone))

            assert await found(other, shelf, "heating") == {kept.document.document_id}
            again = await file(shelf, "heating comes back", sha256=gone.document.sha256)
            assert await found(other, shelf, "comes") == {again.document.document_id}
