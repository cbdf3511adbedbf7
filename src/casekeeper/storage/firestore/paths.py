"""Where everything is in Firestore: `/casefiles/{casefile_id}/sessions/{session_id}/events/{seq}`, and what stands beside."""

from casekeeper.acl_feed import ANY

FEED_HEAD = "acl/head"


def casefile(casefile_id: str) -> str:
    """A casefile."""
    return f"casefiles/{casefile_id}"


def grant(casefile_id: str, user_id: str) -> str:
    """A user's grant on a casefile."""
    return f"casefiles/{casefile_id}/grants/{user_id}"


def session(casefile_id: str, session_id: str) -> str:
    """A session."""
    return f"casefiles/{casefile_id}/sessions/{session_id}"


def event(casefile_id: str, session_id: str, seq: int) -> str:
    """A fact. Its number is its id, padded so that ids sort as numbers do: creating it is the compare-and-swap."""
    return f"{session(casefile_id, session_id)}/events/{seq:012d}"


def chunk(casefile_id: str, name: str, number: int) -> str:
    """A piece of something large: a payload, a document's text or bytes, or a blob."""
    return f"casefiles/{casefile_id}/chunks/{name}-{number:04d}"


def document(casefile_id: str, document_id: str) -> str:
    """A document without its text."""
    return f"casefiles/{casefile_id}/documents/{document_id}"


def digest(casefile_id: str, sha256: str) -> str:
    """Says that a casefile holds these bytes."""
    return f"casefiles/{casefile_id}/digests/{sha256}"


def blob(casefile_id: str, name: str) -> str:
    """Says which content has this name."""
    return f"casefiles/{casefile_id}/blobs/{name}"


def leftover(content_id: str) -> str:
    """A blob's content that no name is given, yet or any more."""
    return f"blob_leftovers/{content_id}"


def session_place(session_id: str) -> str:
    """Says in which casefile a session is; it never changes."""
    return f"session_places/{session_id}"


def auto_session(user_id: str, casefile_id: str) -> str:
    """Names a user's newest auto session in a casefile."""
    return f"auto_sessions/{user_id}~{casefile_id}"


def conversation(session_id: str) -> str:
    """Where a session's conversation goes on from."""
    return f"conversations/{session_id}"


def open_operation(event_id: str) -> str:
    """An operation that has not ended."""
    return f"open_operations/{event_id}"


def worker(owner: str) -> str:
    """A process that runs operations, while it lives."""
    return f"workers/{owner}"


SWEEPER = "store/sweeper"
"""Says which process sweeps."""


def request(key: str) -> str:
    """A claim."""
    return f"requests/{key}"


def account(user_id: str) -> str:
    """An account."""
    return f"accounts/{user_id}"


def pseudonym(name: str) -> str:
    """Whose pseudonym it is."""
    return f"pseudonyms/{name}"


def api_key(key_id: str) -> str:
    """An API key."""
    return f"api_keys/{key_id}"


def refresh_token(digest_: str) -> str:
    """A refresh token."""
    return f"refresh_tokens/{digest_}"


def family(name: str) -> str:
    """Says that a family of refresh tokens has ended."""
    return f"refresh_families/{name}"


def generation(user_id: str) -> str:
    """Counts how often all of a user's refresh tokens have ended."""
    return f"refresh_generations/{user_id}"


def upload(upload_id: str) -> str:
    """An upload that waits."""
    return f"uploads/{upload_id}"


def thing(kind: str, id_: str) -> str:
    """A small thing."""
    return f"things/{kind}~{id_}"


def change(number: int) -> str:
    """A permission change."""
    return f"acl_feed/{number:012d}"


def mark(user_id: str, casefile_id: str) -> str:
    """The number of the newest permission change of this pair; either may be `*`."""
    return f"acl_marks/{user_id}~{casefile_id}"


def marks(user_id: str, casefile_id: str) -> tuple[str, str, str]:
    """All that a change of this permission may have touched."""
    return mark(user_id, casefile_id), mark(ANY, casefile_id), mark(user_id, ANY)
