"""The built-in tools, registered as data."""

from casekeeper.operations.tools import Tool
from casekeeper.tools.documents import casefile_summary, document_get, document_list, document_search
from casekeeper.tools.imports import document_import
from casekeeper.tools.mail import gmail_search, mail_get, mail_search, mail_thread
from casekeeper.tools.notes import note_add

BUILT_IN: tuple[Tool, ...] = (
    casefile_summary,
    document_get,
    document_import,
    document_list,
    document_search,
    gmail_search,
    mail_get,
    mail_search,
    mail_thread,
    note_add,
)
"""All of them, by name."""
