"""What casefiles hold."""

from casekeeper.verbs.verb import Verb

VERBS = (
    Verb(
        "documents/list",
        "A casefile's documents, newest filed first.",
        needs="reader",
        command="documents.filing:ListDocuments",
        page_of="documents.document:DocumentSummary",
        calls="documents.filing.page",
    ),
    Verb(
        "documents/get",
        "One document with its text.",
        needs="reader",
        command="documents.filing:GetDocument",
        result="documents.document:Document",
        calls="documents.filing.get",
    ),
    Verb(
        "documents/delete",
        "Delete documents and what was attached to them, for good; the record keeps that they were there.",
        needs="admin",
        command="documents.chain_of_custody:DeleteTheDocuments",
        result="documents.chain_of_custody:DocumentsDeleted",
        calls="documents.custody.delete",
        claims="/v1/documents/delete",
    ),
    Verb(
        "documents/upload",
        "Bring bytes in, streamed as the raw body; `document_import` files them within 24 hours.",
        needs="editor",
        result="documents.filing:Uploaded",
        calls="documents.filing.upload",
        claims="/v1/documents/upload",
        takes_bytes=True,
    ),
)
