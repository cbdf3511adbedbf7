"""Which commits share a queue, and how much of an atomic write each takes."""

from collections.abc import Sequence

from casekeeper.journal.commits import About, AboutKind, Commit
from casekeeper.journal.things import Put
from casekeeper.storage.firestore.chunks import INLINE_BYTES
from casekeeper.storage.firestore.facts import facts_of

# A commit waits behind those of its session, or else of its casefile.
_FIRST: Sequence[AboutKind] = ("session", "casefile")


def queue_of(about: Sequence[About]) -> str:
    """Commits of one queue are judged in the order in which they came, and written together.

    All that change permissions are in one queue; any other is in that of its session, or casefile, or what else it is
    about first.
    """
    if changes_permissions(about):
        return "acl"
    for kind in _FIRST:
        for one in about:
            if one.kind == kind:
                return one.id
    return about[0].id if about else "others"


def changes_permissions(about: Sequence[About]) -> bool:
    """Whether a commit adds to the feed of permission changes."""
    return any(one.kind == "feed" and one.alone for one in about)


def is_fenced(about: Sequence[About]) -> bool:
    """Whether a commit is judged by the feed of permission changes, or adds to it."""
    return any(one.kind == "feed" for one in about)


def size_of(commit: Commit) -> int:
    """About how many bytes of a write a commit takes."""
    facts = facts_of(commit)
    bodies = sum(min(len(fact.payload.body or b""), INLINE_BYTES) for fact in facts)
    bodies += sum(len(record.body) for record in commit.records if isinstance(record, Put))
    return bodies + 2000 * (len(facts) + len(commit.records) + len(commit.conditions))
