from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casekeeper.errors import ArgumentsInvalid, ThingTooLarge
from casekeeper.journal.things import BODY_MAX, Drop, IsAt, Put, Thing, ThingChanged, Topic, body_of, topic_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE = Topic("casefile", "cf_260301_abc123")
# A kind that nobody else has heard of.
PERMIT = Thing(
    kind="parking_permit", id="pp_1", about=HERE, state="asked", created_at=NOW, updated_at=NOW, body={"n": 1}
)


def nested(levels: int) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for _ in range(levels - 1):
        body = {"in": body}
    return body


INVALID: list[tuple[str, Any]] = [
    ("kind", ""),
    ("kind", "Permit"),
    ("kind", "parking permit"),
    ("kind", "p" * 33),
    ("kind", "permit\n"),
    ("id", ""),
    ("id", "a/b"),
    ("id", "a b"),
    ("id", "a\x00"),
    ("id", "\ud800"),
    ("id", "x" * 255),
    ("about", Topic("account", "")),
    ("about", Topic("casefile", "cf/1")),
    ("state", "two words"),
    ("state", "\x00"),
    ("version", 0),
    ("due_at", datetime(2026, 3, 1)),  # noqa: DTZ001 - what is refused
    ("created_at", datetime(2026, 3, 1)),  # noqa: DTZ001 - likewise
    ("body", []),
    ("body", None),
    ("body", {"half": "\ud800"}),
    ("body", {"\udfff": 1}),
    ("body", {"n": float("nan")}),
    ("body", {"n": {1, 2}}),
]


@pytest.mark.parametrize(
    ("name", "given"), INVALID, ids=[f"{name} {n}" for n, (name, _) in enumerate(INVALID)]
)
def test_what_no_thing_can_be_is_refused_by_the_name_of_its_field(name: str, given: Any):
    with pytest.raises(ArgumentsInvalid) as refused:
        Put(replace(PERMIT, **{name: given}))

    assert [error.field for error in refused.value.errors] == [name]
    assert refused.value.detail.isprintable()


@pytest.mark.parametrize("part", [IsAt, Drop])
def test_what_names_no_thing_is_neither_asked_for_nor_dropped(part: Any):
    version = {"version": 1} if part is IsAt else {}

    with pytest.raises(ArgumentsInvalid):
        part(kind="parking_permit", id="a/b", topic=HERE, **version)


def test_a_body_takes_64_kib_as_json():
    body = {"text": "é" * ((BODY_MAX - len('{"text":""}')) // 2)}
    body["text"] += "x" * (BODY_MAX - len('{"text":""}') - 2 * len(body["text"]))

    assert len(Put(replace(PERMIT, body=body)).body) == BODY_MAX
    with pytest.raises(ThingTooLarge, match="65537 bytes as JSON, at most 65536"):
        Put(replace(PERMIT, body={"text": body["text"] + "x"}))


def test_a_body_has_some_200_levels_at_most():
    assert body_of(Put(replace(PERMIT, body=nested(200))).body) == nested(200)
    for levels in (210, 10_000):
        with pytest.raises(ArgumentsInvalid, match="body"):
            Put(replace(PERMIT, body=nested(levels)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_json_object_is_read_as_it_was_written(body: dict[str, Any]):
    assert body_of(Put(replace(PERMIT, body=body)).body) == body


@pytest.mark.parametrize("topic", [HERE, Topic("account", "anna+x:y@example.com")])
def test_a_topic_is_read_as_it_was_written(topic: Topic):
    assert topic_of(topic.key) == topic


def test_what_is_about_an_account_is_in_no_casefile():
    account = Topic("account", "anna@example.com")

    assert [HERE.casefile_id, account.casefile_id] == ["cf_260301_abc123", None]
    assert [one.kind for one in Put(replace(PERMIT, about=account)).about] == ["thing"]


def test_the_next_version_keeps_what_is_not_changed():
    later = NOW + timedelta(hours=1)

    assert PERMIT.changed(later, state="given") == replace(PERMIT, state="given", version=2, updated_at=later)


def test_a_thing_that_changed_tells_the_version_that_is_there():
    asked = IsAt.before(PERMIT.changed(NOW))
    found = [None, (1, HERE.key), (3, HERE.key), (1, "casefile:cf_260301_ffffff")]

    refusals = [asked.refusal(one) for one in found]

    assert [r.version if isinstance(r, ThingChanged) else r for r in refusals] == [0, None, 3, 1]


def test_of_the_first_version_nothing_may_be_there():
    asked = IsAt.before(PERMIT)

    assert asked.refusal(None) is None
    assert isinstance(asked.refusal((1, HERE.key)), ThingChanged)
    assert isinstance(asked.refusal((1, "account:anna@example.com")), ThingChanged)
