"""What a bundle holds, in which order, and reading it part by part (docs/bundles.md)."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from casekeeper.acl import Grant
from casekeeper.bundles.archive import BundleUnfit, Member, members
from casekeeper.casefiles.casefile import Casefile
from casekeeper.clock import to_us
from casekeeper.documents.document import Document
from casekeeper.ids import CasefileId, UserId
from casekeeper.sessions.session import UnifiedSession
from casekeeper.values import value

T = TypeVar("T")

FORMAT = "casekeeper bundle"
VERSION = 1
HEAD, CASEFILE, PEOPLE, GRANTS = "bundle.json", "casefile.json", "people.jsonl", "grants.jsonl"
SESSIONS, COUNTS = "sessions.jsonl", "counts.json"


class BundleHeader(BaseModel):
    """The first member: what this file is."""

    model_config = ConfigDict(frozen=True)

    format: Literal["casekeeper bundle"] = FORMAT
    version: Literal[1] = VERSION
    casefile_id: CasefileId
    exported_at: datetime
    exported_by: str


class Person(BaseModel):
    """An account that the casefile names: no password, no key, no rights."""

    model_config = ConfigDict(frozen=True)

    user_id: UserId
    pseudonym: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
    display_name: str = ""


class Counts(BaseModel):
    """The last member but the digests: how much there must be."""

    people: int = 0
    grants: int = 0
    sessions: int = 0
    facts: int = 0
    conversations: int = 0
    documents: int = 0
    bytes: int = 0


@value
class Lists:
    """Everything but the record, the conversations and the documents."""

    head: BundleHeader
    casefile: Casefile
    people: list[Person]
    grants: list[Grant]
    sessions: list[UnifiedSession]


@value
class SessionRecord:
    """The record lines of one session."""

    session: UnifiedSession
    member: Member


@value
class Conversation:
    """What agents remember in a session: the snapshot that a fact's header names."""

    name: str
    member: Member


@value
class RawDocument:
    """A document and its raw bytes."""

    document: Document
    member: Member


Part = Lists | SessionRecord | Conversation | RawDocument | Counts

_SESSION = TypeAdapter(UnifiedSession)


def session_json(session: UnifiedSession) -> bytes:
    """A session as a bundle has it."""
    return _SESSION.dump_json(session)


def record_name(session_id: str) -> str:
    """The member with a session's record."""
    return f"records/{session_id}.jsonl"


def parts(file: BinaryIO) -> Iterator[Part]:
    """The parts in order, each to be read before the next is asked for.

    Raises:
        BundleUnfit: Something is missing, doubled, out of order or not what it must be.
    """
    found = members(file)
    lists = _lists(found)
    yield lists
    for session in lists.sessions:
        yield SessionRecord(session, _expected(found, record_name(session.session_id)))
    last: tuple[int, str] | None = None
    for member in found:
        if member.name == COUNTS:
            yield _parsed(Counts, member.name, member.content())
            if next(found, None) is not None:
                raise BundleUnfit(f"there is more behind {COUNTS}")
            return
        folder, _, name = member.name.partition("/")
        if folder == "conversations" and last is None:
            yield Conversation(name, member)
            continue
        document = _parsed(Document, member.name, member.content())
        if member.name != f"documents/{document.document_id}.json":
            raise BundleUnfit(f"{member.name} is not where it should be")
        place = (-to_us(document.created_at), document.document_id)
        if last is not None and place[0] < last[0]:
            raise BundleUnfit(f"{member.name} is out of order")
        last = place
        yield RawDocument(document, _expected(found, f"documents/{document.document_id}.raw"))
    raise BundleUnfit(f"it has no {COUNTS}")


def _lists(found: Iterator[Member]) -> Lists:
    first = next(found, None)
    if first is None or first.name != HEAD:
        raise BundleUnfit("it is no bundle")
    head = _head(first.content())
    casefile = _parsed(Casefile, CASEFILE, _expected(found, CASEFILE).content())
    lists = Lists(
        head,
        casefile,
        _list(found, PEOPLE, TypeAdapter(Person)),
        _list(found, GRANTS, TypeAdapter(Grant)),
        _list(found, SESSIONS, _SESSION),
    )
    owned = {head.casefile_id, casefile.casefile_id}
    owned |= {g.casefile_id for g in lists.grants} | {s.casefile_id for s in lists.sessions}
    if owned != {head.casefile_id}:
        raise BundleUnfit("it mixes casefiles")
    ids = {s.session_id for s in lists.sessions}
    if len(ids) != len(lists.sessions) or casefile.record_session_id not in ids:
        raise BundleUnfit("its sessions are not those of a casefile")
    known = {p.user_id for p in lists.people}
    if not len(known) == len({p.pseudonym for p in lists.people}) == len(lists.people):
        raise BundleUnfit(f"{PEOPLE} names somebody twice")
    if (
        not {casefile.owner, *(g.user_id for g in lists.grants), *(s.user_id for s in lists.sessions)}
        <= known
    ):
        raise BundleUnfit(f"{PEOPLE} does not have everybody who is named")
    return lists


def _head(content: bytes) -> BundleHeader:
    told = _parsed(TypeAdapter(dict[str, Any]), HEAD, content)
    if told.get("format") == FORMAT and isinstance(told.get("version"), int) and told["version"] > VERSION:
        raise BundleUnfit(f"it is a bundle of version {told['version']}, made by a newer casekeeper")
    return _parsed(BundleHeader, HEAD, content)


def _expected(found: Iterator[Member], name: str) -> Member:
    member = next(found, None)
    if member is None or member.name != name:
        raise BundleUnfit(f"{name} is not where it should be")
    return member


def _list(found: Iterator[Member], name: str, model: TypeAdapter[T]) -> list[T]:
    return [_parsed(model, name, line) for line in _expected(found, name).lines()]


def _parsed(model: "type[T] | TypeAdapter[T]", name: str, content: bytes) -> T:
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    try:
        return adapter.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BundleUnfit(f"{name} cannot be read: {place or 'it'}: {first['msg']}") from error
