"""Firestore's messages: documents, queries and writes, to and from its protocol buffers.

Values are those that need no thought: None, bool, int within 64 bits, str, bytes, lists of them, and `SERVER_TIME`. JSON
of others is kept as bytes: Firestore takes neither nested arrays nor empty keys nor integers beyond 64 bits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.cloud.firestore_v1.types import firestore, query, write

from casekeeper.values import value

# The generated messages behind the wrappers: a third of the time, and no types either way.
_types: Any = firestore
_query: Any = query.StructuredQuery
_OPERATOR: Any = _query.FieldFilter.Operator
_DIRECTIONS = {"asc": int(_query.Direction.ASCENDING), "desc": int(_query.Direction.DESCENDING)}
_AND = int(_query.CompositeFilter.Operator.AND)
_REQUEST_TIME = int(write.DocumentTransform.FieldTransform.ServerValue.REQUEST_TIME)
RunQuery: Any = _types.RunQueryRequest.pb()
RunQueryAnswer: Any = _types.RunQueryResponse.pb()
GetDocuments: Any = _types.BatchGetDocumentsRequest.pb()
GetDocumentsAnswer: Any = _types.BatchGetDocumentsResponse.pb()
CommitRequest: Any = _types.CommitRequest.pb()
CommitAnswer: Any = _types.CommitResponse.pb()


Fields = Mapping[str, Any]


class _ServerTime:
    """Stands for the instant of the commit, as the server has it."""


SERVER_TIME = _ServerTime()


@value
class Instant:
    """An instant by the server's clock, in microseconds since 1970."""

    us: int


@value
class StoredDocument:
    """A document as it was read. `version` is the time of the commit that changed it last.

    `made_us`: the time of the commit that created it, in microseconds since 1970. Both compare with those of other
    documents and with the `read_time` of queries (google.firestore.v1 Document).
    """

    path: str
    fields: dict[str, Any]
    version: Any
    made_us: int


@value
class Write:
    """One change. `base` is the version that it replaces, None: there must be no such document.

    Without `fields` the document is deleted; `only_checks` changes nothing and is refused where the version differs;
    `is_partial` leaves the fields that are not named as they are; `is_blind` replaces whatever is there.
    """

    path: str
    base: Any
    fields: Fields | None = None
    only_checks: bool = False
    is_blind: bool = False
    is_partial: bool = False


@value
class Made:
    """A commit that was made: the version of its documents, and how much later it was than its `SERVER_TIME`.

    The server takes that time when it begins with a commit; `late_us` is 0 if the commit has none.
    """

    version: Any
    late_us: int


@value
class Query:
    """Documents of one collection, below `parent` or (`everywhere`) of that name wherever it is."""

    collection: str
    parent: str = ""
    everywhere: bool = False
    where: tuple[tuple[str, str, Any], ...] = ()
    order: tuple[tuple[str, str], ...] = ()
    after: tuple[Any, ...] | None = None
    limit: int | None = None
    only: tuple[str, ...] | None = None


_OPERATORS = {
    "==": int(_OPERATOR.EQUAL),
    "<": int(_OPERATOR.LESS_THAN),
    "<=": int(_OPERATOR.LESS_THAN_OR_EQUAL),
    ">": int(_OPERATOR.GREATER_THAN),
    ">=": int(_OPERATOR.GREATER_THAN_OR_EQUAL),
    "in": int(_OPERATOR.IN),
}


def _fill(target: Any, given: Any) -> None:
    match given:
        case None:
            target.null_value = 0
        case bool():
            target.boolean_value = given
        case int():
            target.integer_value = given
        case str():
            target.string_value = given
        case bytes():
            target.bytes_value = given
        case Instant(us):
            target.timestamp_value.FromMicroseconds(us)
        case _:
            target.array_value.SetInParent()
            for one in given:
                _fill(target.array_value.values.add(), one)


def _read(given: Any) -> Any:
    kind = given.WhichOneof("value_type")
    match kind:
        case "null_value":
            return None
        case "timestamp_value":
            return Instant(given.timestamp_value.ToMicroseconds())
        case "array_value":
            return [_read(one) for one in given.array_value.values]
        case _:
            return getattr(given, kind)


def document_of(root: str, found: Any) -> StoredDocument:
    """A document out of an answer; `root` is what all names begin with."""
    fields = {name: _read(given) for name, given in found.fields.items()}
    made_us = found.create_time.ToMicroseconds()
    return StoredDocument(found.name.removeprefix(root), fields, found.update_time, made_us)


def made_of(answer: Any) -> Made:
    """The answer to a commit."""
    stamps = [one.ToMicroseconds() for result in answer.write_results for one in _times(result)]
    made_us = answer.commit_time.ToMicroseconds()
    return Made(answer.commit_time, made_us - stamps[0] if stamps else 0)


def _times(result: Any) -> list[Any]:
    return [one.timestamp_value for one in result.transform_results]


def get_request(database: str, root: str, paths: Sequence[str], *, consistent: bool) -> Any:
    """Asks for documents by their paths; `consistent`: all as of one instant."""
    request = GetDocuments(database=database, documents=[root + path for path in paths])
    if consistent:
        # A read-only transaction takes no locks and needs no end.
        request.new_transaction.read_only.SetInParent()
    return request


def query_request(root: str, wanted: Query) -> Any:
    """Asks for what a query says."""
    parent = root + wanted.parent if wanted.parent else root.removesuffix("/")
    request = RunQuery(parent=parent)
    asked = request.structured_query
    source = asked.from_.add()
    source.collection_id, source.all_descendants = wanted.collection, wanted.everywhere
    if wanted.where:
        both = asked.where.composite_filter
        both.op = _AND
        for name, sign, given in wanted.where:
            one = both.filters.add().field_filter
            one.field.field_path, one.op = name, _OPERATORS[sign]
            _fill(one.value, given)
    for name, direction in wanted.order:
        order = asked.order_by.add()
        order.field.field_path = name
        order.direction = _DIRECTIONS[direction]
    if wanted.after is not None:
        for given in wanted.after:
            _fill(asked.start_at.values.add(), given)
        asked.start_at.before = False
    if wanted.limit is not None:
        asked.limit.value = wanted.limit
    if wanted.only is not None:
        for name in wanted.only or ("__name__",):
            asked.select.fields.add().field_path = name
    return request


def commit_request(database: str, root: str, writes: Sequence[Write]) -> Any:
    """Asks for all of these changes or none."""
    request = CommitRequest(database=database)
    for one in writes:
        change = request.writes.add()
        if one.fields is None and not one.only_checks:
            change.delete = root + one.path
        else:
            change.update.name = root + one.path
        if one.only_checks:
            change.update_mask.SetInParent()
        if one.is_partial and one.fields is not None:
            change.update_mask.field_paths.extend(
                name for name, given in one.fields.items() if given is not SERVER_TIME
            )
        for name, given in (one.fields or {}).items():
            if given is SERVER_TIME:
                stamp = change.update_transforms.add()
                stamp.field_path, stamp.set_to_server_value = name, _REQUEST_TIME
            else:
                _fill(change.update.fields[name], given)
        if one.is_blind:
            continue
        if one.base is None:
            change.current_document.exists = False
        else:
            change.current_document.update_time.CopyFrom(one.base)
    return request
